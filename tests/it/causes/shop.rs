//! A small shop of real services: each is a thread that serves HTTP, calls others over HTTP, works, logs, and reports spans, CPU
//! and memory as an OpenTelemetry SDK and an agent would. One thing in it can be broken.
//!
//! Requests are really made, one after the other, but not in the order of the times that they carry: the test's clock is set
//! forward or back for each request, so that half an hour passes in seconds, and what else this machine does meanwhile falls on
//! healthy and on faulty minutes alike.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use serde_json::{Value, json};

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Every second request fails, with an error in its log; callers fail in turn.
    Exception(&'static str),
    /// It waits before it works.
    Delay(&'static str),
    /// It computes far more.
    Cpu(&'static str),
    /// It keeps what each request needed.
    Memory(&'static str),
    /// What is sent to it and by it is long on the way.
    Network(&'static str),
    /// It writes no log any more.
    LostLogs(&'static str),
    /// It has one connection to what it calls, and each call holds it too long: others queue.
    Pool(&'static str),
}

/// Whom each service calls for an operation. `ledger` is a database: it answers and says nothing of itself.
fn callees(service: &str, operation: &str) -> &'static [(&'static str, &'static str)] {
    match (service, operation) {
        ("front", "/buy") => &[("orders", "/orders")],
        ("front", _) => &[("stock", "/items")],
        ("orders", _) => &[("stock", "/reserve"), ("payments", "/pay")],
        ("payments", _) => &[("bank", "/transfer")],
        ("bank", _) => &[("ledger", "/insert")],
        _ => &[],
    }
}

pub const SERVICES: [&str; 6] = ["front", "orders", "stock", "payments", "bank", "ledger"];
const SILENT: &str = "ledger";

/// Minutes before the fault, and with it.
const QUIET: i64 = 14;
const FAULTY: i64 = 3;
/// Requests a minute.
const RATE: i64 = 20;
const MINUTE: i64 = 60_000_000;
/// The agent reports so often.
const REPORT: i64 = 15_000_000;

const WORK: Duration = Duration::from_micros(500);
const LONGER: Duration = Duration::from_millis(25);
const LEAK: usize = 2 << 20;

/// What came of it all, in the order of time.
#[derive(Default)]
pub struct Told {
    /// Service, and a span of OTLP.
    pub spans: Vec<(i64, &'static str, Value)>,
    pub logs: Vec<(i64, Value)>,
    pub metrics: Vec<(i64, Value)>,
    /// Service and time: microseconds on a CPU; bytes that are kept.
    used: Vec<(&'static str, i64, i64, usize)>,
    next: u64,
}

/// The running shop.
struct Shop {
    fault: Fault,
    /// When the fault begins, in microseconds.
    from: i64,
    told: Mutex<Told>,
    doors: BTreeMap<&'static str, SocketAddr>,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// A request on its way: the trace, the caller's span, and what to add to the clock.
#[derive(Clone, Copy)]
struct Way {
    trace: u64,
    parent: u64,
    shift: i64,
}

/// Opens the shop, lets customers in for some minutes, of which the last ones from `from` on are faulty, and closes it.
/// `buys`: of ten customers, how many buy before and then.
pub fn run(fault: Fault, from: Timestamp, buys: [i64; 2]) -> Told {
    let from = from.as_microsecond();
    let listeners: Vec<_> =
        SERVICES.map(|s| (s, TcpListener::bind("127.0.0.1:0").expect("a free port"))).into();
    let doors = listeners.iter().map(|(s, l)| (*s, l.local_addr().expect("bound"))).collect();
    let (told, kept) = Default::default();
    let shop = Arc::new(Shop { fault, from, told, doors, kept });
    for (service, listener) in listeners {
        let shop = shop.clone();
        thread::spawn(move || shop.serve(service, &listener));
    }
    let count = (QUIET + FAULTY) * RATE;
    // All requests, in an order that has nothing to do with their times (a prime step visits each once).
    for i in (0..count).map(|i| i * 89 % count) {
        let at = from - QUIET * MINUTE + i * (MINUTE / RATE) + i * 7919 % 500_000;
        let faulty = at >= from;
        let operation = if i * 7 % 10 < buys[usize::from(faulty)] { "/buy" } else { "/items" };
        let way = Way { trace: i as u64 + 1, parent: 0, shift: at - now() };
        // A customer sees the answer and nothing else.
        let _ = shop.ask("front", operation, way);
    }
    for service in SERVICES {
        let _ = shop.ask(service, "/close", Way { trace: 0, parent: 0, shift: 0 });
    }
    let mut told = std::mem::take(&mut *shop.told.lock().expect("no panic"));
    told.report(from);
    told.spans.sort_by_key(|s| s.0);
    told.logs.sort_by_key(|s| s.0);
    told
}

impl Told {
    /// What an agent on each host reports: CPU in the ticks of the kernel, and memory in use.
    fn report(&mut self, from: i64) {
        let start = from - QUIET * MINUTE;
        for service in SERVICES {
            let mut memory = 50 << 20;
            for i in 0..(QUIET + FAULTY) * MINUTE / REPORT {
                let (begin, end) = (start + i * REPORT, start + (i + 1) * REPORT);
                let here = || self.used.iter().filter(|u| u.0 == service && (begin..end).contains(&u.1));
                let cpu: i64 = here().map(|u| u.2).sum();
                memory += here().map(|u| u.3).sum::<usize>();
                for (name, value) in
                    [("cpu_seconds", (cpu / 10_000) as f64 / 100.0), ("memory_bytes", memory as f64)]
                {
                    let sample =
                        json!({"name": name, "service": service, "value": value, "time": time(end - 1)});
                    self.metrics.push((end, sample));
                }
            }
        }
        self.metrics.sort_by_key(|m| m.0);
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as i64
}

fn time(at: i64) -> String {
    Timestamp::from_microsecond(at).expect("in range").to_string()
}

/// Microseconds that this thread was on a CPU.
fn on_cpu() -> i64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = text.split(' ').next().and_then(|n| n.parse::<i64>().ok()).expect("a number");
    nanos / 1000
}

impl Shop {
    fn serve(&self, service: &'static str, listener: &TcpListener) {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let mut line = || lines.next().and_then(Result::ok).unwrap_or_default();
            let first = line();
            let operation = first.split(' ').nth(1).unwrap_or("/").to_owned();
            let mut headers: BTreeMap<String, String> = BTreeMap::new();
            loop {
                let header = line();
                let Some((name, value)) = header.split_once(": ") else { break };
                headers.insert(name.to_owned(), value.to_owned());
            }
            if operation == "/close" {
                return;
            }
            let context: Vec<&str> = headers["traceparent"].split('-').collect();
            let id = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
            let way = Way {
                trace: id(context[1]),
                parent: id(context[2]),
                shift: headers["x-clock"].parse().expect("a number"),
            };
            let ok = self.handle(service, &operation, way);
            let status = if ok { "200 OK" } else { "500 Internal Server Error" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    }

    /// Asks a service; whether it could answer.
    fn ask(&self, service: &str, operation: &str, way: Way) -> bool {
        let mut stream = TcpStream::connect(self.doors[service]).expect("it listens");
        let Way { trace, parent, shift } = way;
        write!(
            stream,
            "POST {operation} HTTP/1.1\r\nhost: {service}\r\ntraceparent: 00-{trace:032x}-{parent:016x}-01\r\n\
             x-clock: {shift}\r\ncontent-length: 0\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        answer.contains(" 200 ")
    }

    fn handle(&self, service: &'static str, operation: &str, way: Way) -> bool {
        let (begun, cpu) = (now(), on_cpu());
        let at = begun + way.shift;
        let has = |fault: Fault| at >= self.from && self.fault == fault;
        let me = self.id();
        let inner = Way { parent: me, ..way };
        let log = |level: &str, message: String| {
            if service != SILENT && !has(Fault::LostLogs(service)) {
                self.log(service, level, &message, way);
            }
        };
        log("info", format!("{operation} begun for order {}", way.trace * 7919 % 100_000));
        thread::sleep(WORK);
        if has(Fault::Delay(service)) {
            thread::sleep(LONGER);
        }
        while has(Fault::Cpu(service)) && on_cpu() - cpu < 12_000 {
            std::hint::black_box((0..1000).sum::<u64>());
        }
        let mut leaked = 0;
        if has(Fault::Memory(service)) {
            self.kept.lock().expect("no panic").push(vec![1; LEAK]);
            leaked = LEAK;
        }
        let mut ok = true;
        if has(Fault::Exception(service)) && way.trace.is_multiple_of(2) {
            log("error", format!("cannot read the book: bad checksum in page {}", way.trace % 97));
            ok = false;
        }
        for (callee, operation) in callees(service, operation) {
            if !ok {
                break;
            }
            if has(Fault::Pool(service)) {
                // The one connection is held by those before.
                thread::sleep(LONGER);
            }
            ok = self.call(service, callee, operation, inner);
            if !ok {
                log("error", format!("{callee} answered 500 to {operation}"));
            }
        }
        if ok {
            log("info", format!("{operation} done in {} us", now() - begun));
        }
        if service != SILENT {
            self.span(service, operation, 2, me, way, begun, ok, json!([]));
        }
        self.told.lock().expect("no panic").used.push((service, at, on_cpu() - cpu, leaked));
        ok
    }

    /// Calls another service, over a network that may be slow.
    fn call(&self, service: &'static str, callee: &'static str, operation: &str, way: Way) -> bool {
        let (begun, me) = (now(), self.id());
        let slow = begun + way.shift >= self.from && self.fault == Fault::Network(callee);
        let pause = || {
            if slow {
                thread::sleep(LONGER / 2)
            }
        };
        pause();
        let ok = self.ask(callee, operation, Way { parent: me, ..way });
        pause();
        let peer = json!([{"key": "server.address", "value": {"stringValue": format!("{callee}.shop.svc")}}]);
        self.span(service, &format!("POST {operation}"), 3, me, way, begun, ok, peer);
        ok
    }

    fn id(&self) -> u64 {
        let mut told = self.told.lock().expect("no panic");
        told.next += 1;
        told.next.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a span")]
    fn span(
        &self,
        service: &'static str,
        name: &str,
        kind: u8,
        id: u64,
        way: Way,
        begun: i64,
        ok: bool,
        attributes: Value,
    ) {
        let parent = if way.parent == 0 { String::new() } else { format!("{:016x}", way.parent) };
        let (start, end) = (begun + way.shift, now() + way.shift);
        let span = json!({
            "traceId": format!("{:032x}", way.trace), "spanId": format!("{id:016x}"), "parentSpanId": parent,
            "name": name, "kind": kind, "attributes": attributes,
            "startTimeUnixNano": (start * 1000).to_string(), "endTimeUnixNano": (end * 1000).to_string(),
            "status": {"code": if ok { 0 } else { 2 }},
        });
        self.told.lock().expect("no panic").spans.push((start, service, span));
    }

    fn log(&self, service: &str, level: &str, message: &str, way: Way) {
        let at = now() + way.shift;
        let line = json!({"time": time(at), "service": service, "level": level, "message": message,
            "trace_id": format!("{:032x}", way.trace)});
        self.told.lock().expect("no panic").logs.push((at, line));
    }
}

/// Runs of the shop are long by the number of their requests: one at a time, so that tests beside each other do not starve
/// each other's services.
pub fn one_at_a_time() -> &'static tokio::sync::Mutex<()> {
    static ONE: OnceLock<tokio::sync::Mutex<()>> = OnceLock::new();
    ONE.get_or_init(Default::default)
}
