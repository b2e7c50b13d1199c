//! A made-up shop whose recorded incidents have a known cause: five services, two kinds of requests, twelve quiet minutes and
//! three with a fault. Everything follows from a seed.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::json;

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing is; clients ask for other things than before.
    None,
    /// A third of its requests fail, which only its log tells.
    Exception(&'static str),
    /// It works for 60 ms more.
    Work(&'static str),
    /// Its answers are on the way for 60 ms more.
    Network(&'static str),
    /// It burns CPU, which nobody feels yet.
    Cpu(&'static str),
    /// It no longer logs what it did.
    LostLogs(&'static str),
}

/// Service, and CPU in percent of a core.
pub const SERVICES: [&str; 5] = ["front", "orders", "payments", "stock", "bank"];

/// Who is called by a request of each kind: (callee, its operation, callees of it).
struct Call(&'static str, &'static str, &'static [Call]);

const BUY: Call = Call(
    "orders",
    "POST /orders",
    &[
        Call("stock", "POST /reserve", &[]),
        Call("payments", "POST /pay", &[Call("bank", "POST /transfer", &[])]),
    ],
);
const LOOK: Call = Call("stock", "GET /items", &[]);

/// What recordings are like where nobody took care.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rough {
    /// The clock of each service is off by up to 25 ms.
    pub clocks: bool,
    /// One span of eight names a parent that is not there.
    pub orphans: bool,
    /// It sends no spans and no log lines; those of its callers name it.
    pub silent: Option<&'static str>,
}

/// A case is written piece by piece.
pub struct Shop {
    seed: u64,
    fault: Fault,
    rough: Rough,
    /// Microseconds since the first minute.
    from: i64,
    spans: Vec<(i64, String)>,
    logs: Vec<(i64, String)>,
    next: u64,
}

const BEGIN: i64 = 1_795_255_200_000_000;
const MINUTE: i64 = 60_000_000;
const QUIET: i64 = 12;
const FAULTY: i64 = 3;

fn time(at: i64) -> String {
    jiff::Timestamp::from_microsecond(BEGIN + at).expect("in range").to_string()
}

/// Writes a case; with only some of the tables if `tables` says so.
pub fn write(dir: &Path, fault: Fault, seed: u64, tables: &[&str]) {
    write_rough(dir, fault, seed, tables, Rough::default());
}

/// Like [`write`].
pub fn write_rough(dir: &Path, fault: Fault, seed: u64, tables: &[&str], rough: Rough) {
    let from = QUIET * MINUTE;
    let mut shop = Shop { seed: seed * 2 + 1, fault, rough, from, spans: vec![], logs: vec![], next: 0 };
    for minute in 0..QUIET + FAULTY {
        // The mix of requests is another one in the window: clients do as they like.
        let buys = if minute < QUIET { 12 } else { 20 };
        for i in 0..30 {
            let at = minute * MINUTE + i * 2_000_000 + shop.below(1_500_000);
            shop.request(at, if i < buys { &BUY } else { &LOOK });
        }
    }
    let head = json!({"id": "made-up", "alert": {"service": "front", "metric": null, "at": time(from + MINUTE)},
        "window": {"from": time(from), "to": time(from + FAULTY * MINUTE)}});
    fs::create_dir_all(dir).expect("writable");
    fs::write(dir.join("case.json"), head.to_string()).expect("writable");
    let put = |name: &str, header: &str, body: String| {
        if tables.contains(&name) {
            fs::write(dir.join(format!("{name}.csv")), format!("{header}\n{body}")).expect("writable");
        }
    };
    let joined = |mut rows: Vec<(i64, String)>| {
        rows.sort();
        rows.into_iter().map(|r| r.1).collect::<String>()
    };
    put("metrics", "timestamp,service,metric,value", shop.metrics());
    let header = "trace_id,span_id,parent_id,service,operation,start,duration_us,status";
    let peer = if rough.silent.is_some() { ",peer" } else { "" };
    put("spans", &format!("{header}{peer}"), joined(shop.spans));
    put("logs", "timestamp,service,level,message", joined(shop.logs));
    put(
        "topology",
        "caller,callee",
        "front,orders\nfront,stock\norders,stock\norders,payments\npayments,bank\n".into(),
    );
}

/// All tables.
pub const ALL: [&str; 4] = ["metrics", "spans", "logs", "topology"];

impl Shop {
    /// A number below `n` (splitmix64).
    fn below(&mut self, n: i64) -> i64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as i64
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("{:016x}", self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn request(&mut self, at: i64, call: &Call) {
        let trace = format!("{}{}", self.id(), self.id());
        let name = if call.1.starts_with("GET") { "GET /" } else { "POST /buy" };
        let own = 2000 + self.below(1500);
        let id = self.id();
        let end = self.call(&trace, &id, "front", call, at + own / 2) + own / 2;
        self.span(&trace, &id, "", "front", name, at, end - at, "");
    }

    /// The caller's span that waits, and what is done meanwhile; returns when the answer is there.
    fn call(&mut self, trace: &str, parent: &str, caller: &str, call: &Call, at: i64) -> i64 {
        let faulty = at >= self.from;
        let wire =
            300 + self.below(300) + if faulty && self.fault == Fault::Network(call.0) { 60_000 } else { 0 };
        let (client, server) = (self.id(), self.id());
        let arrived = at + wire / 2;
        let end = self.serve(trace, &client, &server, call, arrived);
        let name = format!("call {}", call.0);
        self.span(trace, &client, parent, caller, &name, at, end + wire / 2 - at, call.0);
        end + wire / 2
    }

    fn serve(&mut self, trace: &str, parent: &str, id: &str, call: &Call, at: i64) -> i64 {
        let &Call(service, operation, callees) = call;
        let faulty = at >= self.from;
        let fails = faulty && self.fault == Fault::Exception(service) && self.below(3) == 0;
        let mut now = at + 1000 + self.below(2000);
        if faulty && self.fault == Fault::Work(service) {
            now += 60_000;
        }
        let quiet = faulty && self.fault == Fault::LostLogs(service);
        if !quiet {
            let number = self.below(100_000);
            self.log(now, service, "INFO", &format!("[{id}] {operation} begun for order {number}"));
        }
        if fails {
            self.log(
                now,
                service,
                "ERROR",
                &format!("[{id}] cannot read the ledger: bad checksum in page {}", now % 97),
            );
            self.span(trace, id, parent, service, operation, at, now - at, "");
            return now;
        }
        for callee in callees {
            now = self.call(trace, id, service, callee, now);
        }
        if !quiet {
            self.log(now, service, "INFO", &format!("[{id}] {operation} done in {} us", now - at));
        }
        self.span(trace, id, parent, service, operation, at, now - at, "");
        now
    }

    #[allow(clippy::too_many_arguments, reason = "the columns of the table")]
    fn span(
        &mut self,
        trace: &str,
        id: &str,
        parent: &str,
        service: &str,
        operation: &str,
        at: i64,
        took: i64,
        peer: &str,
    ) {
        if self.rough.silent == Some(service) {
            return;
        }
        let orphan = self.rough.orphans && !parent.is_empty() && self.spans.len().is_multiple_of(8);
        let parent = if orphan { "00000000deadbeef" } else { parent };
        let peer = if self.rough.silent.is_some() { format!(",{peer}") } else { String::new() };
        let at = at + self.clock(service);
        let row = format!("{trace},{id},{parent},{service},{operation},{},{took},{peer}\n", time(at));
        self.spans.push((at, row));
    }

    /// How far a service's clock is off.
    fn clock(&self, service: &str) -> i64 {
        let place = SERVICES.iter().position(|s| *s == service).unwrap_or(0) as i64;
        if self.rough.clocks { place * 17_000 % 50_000 - 25_000 } else { 0 }
    }

    fn log(&mut self, at: i64, service: &str, level: &str, message: &str) {
        if self.rough.silent == Some(service) {
            return;
        }
        let at = at + self.clock(service);
        self.logs.push((at, format!("{},{service},{level},{message}\n", time(at))));
    }

    fn metrics(&mut self) -> String {
        let mut out = String::new();
        for service in SERVICES {
            for (metric, usual) in [("cpu_percent", 20), ("memory_bytes", 200_000_000), ("latency_avg_s", 5)]
            {
                for quarter in 0..(QUIET + FAULTY) * 4 {
                    let at = quarter * MINUTE / 4;
                    let busy =
                        metric == "cpu_percent" && at >= self.from && self.fault == Fault::Cpu(service);
                    let value = usual as f64 * (1.0 + self.below(100) as f64 / 1000.0)
                        + if busy { 70.0 } else { 0.0 };
                    writeln!(out, "{},{service},{metric},{value}", time(at)).expect("a string");
                }
            }
        }
        out
    }
}
