//! Log lines and metric samples as shippers send them: bodies of a thousand, rendered once; times and ids are written over them.

use std::{
    io::Write as _,
    ops::Range,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{load::Requests, target::Target, wall};

/// One connection's part of the telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub connection: usize,
    pub connections: usize,
    /// Lines or samples of one body.
    pub batch: usize,
    pub services: usize,
    pub gzip: bool,
}

/// Statements of the made-up services: twenty verbs of ten things. Each service says a fifth of them.
const VERBS: [&str; 20] = [
    "accepted",
    "rejected",
    "queued",
    "shipped",
    "cancelled",
    "refunded",
    "packed",
    "returned",
    "opened",
    "closed",
    "loaded",
    "stored",
    "expired",
    "renewed",
    "checked",
    "signed",
    "merged",
    "moved",
    "counted",
    "printed",
];
const THINGS: [&str; 10] =
    ["order", "payment", "session", "cart", "invoice", "parcel", "coupon", "message", "report", "upload"];
pub const TEMPLATES: usize = VERBS.len() * THINGS.len();
const GROUPS: usize = 5;

/// A compressed body is made anew this often, so that its times stay true at little cost.
const REPACK: Duration = Duration::from_millis(500);
/// Different bodies of one connection.
const POOL: usize = 4;

/// Where the values of one record stand.
struct Places {
    time: Range<usize>,
    number: Range<usize>,
    /// Hexadecimal, of a trace id.
    trace: Option<Range<usize>>,
}

struct Body {
    text: Vec<u8>,
    places: Vec<Places>,
    /// The whole request.
    request: Vec<u8>,
    packed_at: Option<Instant>,
}

/// The requests of one connection.
pub struct Telemetry {
    head: String,
    share: Share,
    bodies: Vec<Body>,
    next: usize,
    number: u64,
    wall: wall::Wall,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Logs,
    /// So many series over all services.
    Metrics {
        series: usize,
    },
}

impl Telemetry {
    pub fn new(target: &Target, kind: Kind, share: Share) -> Self {
        let path = if kind == Kind::Logs { "logs" } else { "metrics" };
        let encoding = if share.gzip { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "POST {}/api/v1/{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-ndjson\r\n{encoding}Content-Length: ",
            target.prefix, target.host
        );
        let bodies: Vec<Body> = match kind {
            Kind::Logs => {
                // Every service is named, however many there are.
                let bodies = share.services.div_ceil(share.batch).max(POOL);
                let first = share.connection * 31;
                (0..bodies)
                    .map(|i| body((0..share.batch).map(|k| log_line(share, first + i * share.batch + k))))
                    .collect()
            }
            Kind::Metrics { series } => {
                // Each series belongs to one connection, or its samples would overtake each other.
                let mut own: Vec<usize> = (share.connection..series).step_by(share.connections).collect();
                if own.is_empty() {
                    own.push(series + share.connection);
                }
                own.chunks(share.batch)
                    .map(|part| body(part.iter().map(|n| metric_line(share, *n))))
                    .collect()
            }
        };
        let number = share.connection as u64 * 100_000_000;
        Self { head, share, bodies, next: 0, number, wall: wall::Wall::default(), kind }
    }
}

fn body(lines: impl Iterator<Item = (String, [&'static str; 3])>) -> Body {
    let mut body = Body { text: Vec::new(), places: Vec::new(), request: Vec::new(), packed_at: None };
    for (line, [time, number, trace]) in lines {
        let at = body.text.len();
        let place = |what: &str| line.find(what).map(|from| at + from..at + from + what.len());
        body.places.push(Places {
            time: place(time).expect("every record has a time"),
            number: place(number).expect("every record has a number"),
            trace: place(trace),
        });
        body.text.extend_from_slice(line.as_bytes());
        body.text.push(b'\n');
    }
    body
}

const TIME: &str = "2001-01-01T00:00:00.000000Z";
const MICROS: &str = "1000000000000000";
const NUMBER: &str = "0000000000";
const TRACE: &str = "00000000000000000000000000000000";

/// The record `n`, and what in it is the time, the number and the trace id.
fn log_line(share: Share, n: usize) -> (String, [&'static str; 3]) {
    // A prime walks through all services, and the next round through other statements of each.
    let service = n * 7919 % share.services.max(1);
    let round = n / share.services.max(1);
    let statement = (round * 11 + service) % (TEMPLATES / GROUPS) * GROUPS + service % GROUPS;
    let (verb, thing) = (VERBS[statement % VERBS.len()], THINGS[statement / VERBS.len()]);
    let level = match n % 100 {
        0..90 => "info",
        90..98 => "warn",
        _ => "error",
    };
    let line = format!(
        r#"{{"@timestamp":"{TIME}","log.level":"{level}","service.name":"svc-{service:05}","host.name":"node-{:02}","message":"{thing} {NUMBER} {verb} for customer u{} in {}ms","trace.id":"{TRACE}"}}"#,
        n % 20,
        n % 9973,
        n % 97
    );
    (line, [TIME, NUMBER, TRACE])
}

fn metric_line(share: Share, series: usize) -> (String, [&'static str; 3]) {
    let service = series % share.services.max(1);
    let line = format!(
        r#"{{"name":"request_seconds","service":"svc-{service:05}","labels":{{"instance":"10.1.{}.{}:9100","route":"/api/{series}"}},"value":{:.3}{NUMBER}1,"timestamp":{MICROS}}}"#,
        service / 250,
        service % 250,
        0.2 + (series % 89) as f64 / 1000.0
    );
    (line, [MICROS, NUMBER, "no trace"])
}

impl Requests for Telemetry {
    fn next(&mut self, _due: Instant) -> (&[u8], u64) {
        let index = self.next % self.bodies.len();
        self.next += 1;
        let body = &mut self.bodies[index];
        let is_fresh = |at: Instant| at.elapsed() < REPACK && self.kind == Kind::Logs;
        if self.share.gzip && body.packed_at.is_some_and(is_fresh) {
            return (&body.request, body.places.len() as u64);
        }
        let now = wall::now();
        for places in &body.places {
            self.number += 1;
            match self.kind {
                Kind::Logs => {
                    self.wall.write(now, &mut body.text[places.time.clone()]);
                    wall::digits(self.number, &mut body.text[places.number.clone()]);
                }
                Kind::Metrics { .. } => {
                    wall::digits(now.as_micros() as u64, &mut body.text[places.time.clone()]);
                    // The last digits of the value: noise that no two samples share.
                    let noise = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    wall::digits(noise, &mut body.text[places.number.clone()]);
                }
            }
            if let Some(trace) = &places.trace {
                hex(self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15), &mut body.text[trace.clone()]);
            }
        }
        body.packed_at = Some(Instant::now());
        pack(body, &self.head, self.share.gzip);
        (&body.request, body.places.len() as u64)
    }
}

fn pack(body: &mut Body, head: &str, gzip: bool) {
    let packed;
    let content = match gzip {
        false => &body.text,
        true => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(body.text.len() / 4), Compression::fast());
            packed = encoder.write_all(&body.text).and_then(|()| encoder.finish()).expect("memory takes all");
            &packed
        }
    };
    body.request.clear();
    body.request.extend_from_slice(head.as_bytes());
    body.request.extend_from_slice(content.len().to_string().as_bytes());
    body.request.extend_from_slice(b"\r\n\r\n");
    body.request.extend_from_slice(content);
}

fn hex(number: u64, out: &mut [u8]) {
    for (i, place) in out.iter_mut().enumerate() {
        *place = b"0123456789abcdef"[(number >> (i % 16 * 4) & 15) as usize];
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Read};

    use super::*;
    use crate::{
        config::Detect,
        intake::{logs, metrics, telemetry::Limits},
    };

    fn source(kind: Kind, gzip: bool) -> Telemetry {
        let target = Target::own("http://127.0.0.1:9093").expect("a URL");
        Telemetry::new(
            &target,
            kind,
            Share { connection: 1, connections: 2, batch: 1000, services: 50, gzip },
        )
    }

    fn sent(source: &mut Telemetry) -> Vec<u8> {
        let gzip = source.share.gzip;
        let (request, items) = source.next(Instant::now());
        assert_eq!(items, 1000);
        let end = request.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        let (head, body) = request.split_at(end);
        assert!(String::from_utf8_lossy(head).contains(&format!("Content-Length: {}\r\n", body.len())));
        if !gzip {
            return body.to_vec();
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
        plain
    }

    #[test]
    fn lines_are_read_as_they_are_meant_packed_or_not() {
        for gzip in [false, true] {
            let mut source = source(Kind::Logs, gzip);
            let body = sent(&mut source);
            assert!((200.0..300.0).contains(&(body.len() as f64 / 1000.0)), "{} bytes", body.len());
            let limits = Limits::new(&Detect::default(), crate::clock::now());
            let parsed = logs::parse(&body, "application/x-ndjson", &limits).expect("lines");
            assert_eq!((parsed.records.len(), parsed.rejected), (1000, 0));
            let services: BTreeSet<_> = parsed.records.iter().map(|r| &r.service).collect();
            let traces: BTreeSet<_> = parsed.records.iter().map(|r| &r.trace_id).collect();
            assert_eq!((services.len(), traces.len()), (50, 1000));
            let age = crate::clock::between(parsed.records[0].at, limits.now);
            assert!(age < Duration::from_secs(30), "{age:?}");
        }
    }

    #[test]
    fn every_series_is_named_once_a_round() {
        let mut source = source(Kind::Metrics { series: 4000 }, false);
        let limits = Limits::new(&Detect::default(), crate::clock::now());
        let mut names = BTreeSet::new();
        for _ in 0..2 {
            let parsed = metrics::parse(&sent(&mut source), "application/x-ndjson", &limits).expect("lines");
            assert_eq!((parsed.records.len(), parsed.rejected), (1000, 0));
            names.extend(parsed.records.into_iter().map(|s| (s.service, s.labels)));
        }
        assert_eq!(names.len(), 2000, "half of them, for one of two connections");
    }
}
