//! Alerts as a Prometheus sends them (`POST /api/v2/alerts`): seven labels, two annotations, about 430 bytes each. Rendered
//! once; what differs from one alert to the next is written over it.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    load::Requests,
    target::Target,
    wall::{self, MILLIS, Wall},
};

/// Which alerts one connection sends.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Every alert is a new one.
    Distinct { services: u64 },
    /// So many alerts, again and again: most of it repeats, one in fifty resolves what fires or fires anew.
    Repeats { alerts: u64, services: u64 },
}

/// Firing alerts that are not repeated for so long count as resolved.
const EXPIRES: Duration = Duration::from_secs(3600);
/// One in so many repeats is none.
const TURNS: u64 = 50;

/// The requests of one connection.
pub struct Alerts {
    request: Vec<u8>,
    places: Vec<Places>,
    stream: Stream,
    wall: Wall,
    /// The number of the first service.
    services_from: u64,
    /// This connection's alerts are those with this remainder.
    offset: u64,
    step: u64,
    next: u64,
    /// Since when each alert of `Repeats` fires; none: it is resolved.
    firing: Vec<Option<Duration>>,
    dice: u64,
    /// Every alert that fires resolves now.
    ending: bool,
    log: Option<DueLog>,
}

/// Numbers of alerts, and when each was due.
pub type DueLog = Arc<Mutex<Vec<(u64, Instant)>>>;

/// Where in the request one alert's own values stand.
#[derive(Clone)]
struct Places {
    services: [Range<usize>; 4],
    serial: Range<usize>,
    starts: Range<usize>,
    ends: Range<usize>,
}

const SERVICE: &str = "SSSSS";
const SERIAL: &str = "NNNNNNNNNN";
const STARTS: &str = "2001-01-01T00:00:00.000Z";
const ENDS: &str = "2002-02-02T00:00:00.000Z";
const ALERT: &str = r#"{"labels":{"alertname":"HighErrorRate","service":"svc-SSSSS","severity":"warning","namespace":"prod","pod":"svc-SSSSS-RRRRRR-NNNNNNNNNN","instance":"10.1.7.12:9100","job":"node"},"annotations":{"summary":"svc-SSSSS answers with errors","description":"more than 5% of requests failed for 5m; see the runbook"},"startsAt":"2001-01-01T00:00:00.000Z","endsAt":"2002-02-02T00:00:00.000Z","generatorURL":"http://prom:9090/graph?g0.expr=err_SSSSS"}"#;

impl Alerts {
    /// `run` (six characters) makes its alerts other ones than those of an earlier run; `connection` of `connections`.
    pub fn new(
        target: &Target,
        run: &str,
        batch: usize,
        stream: Stream,
        connection: usize,
        connections: usize,
    ) -> Self {
        Self::of(ALERT, target, run, batch, stream, (connection, connections))
    }

    /// The same, but critical.
    pub fn critical(
        target: &Target,
        run: &str,
        batch: usize,
        stream: Stream,
        connection: usize,
        connections: usize,
    ) -> Self {
        let alert = ALERT.replace("\"warning\"", "\"critical\"");
        Self::of(&alert, target, run, batch, stream, (connection, connections))
    }

    fn of(
        alert: &str,
        target: &Target,
        run: &str,
        batch: usize,
        stream: Stream,
        (connection, connections): (usize, usize),
    ) -> Self {
        let alert = alert.replace("RRRRRR", run);
        let body = format!("[{}]", vec![alert.as_str(); batch].join(","));
        let head = format!(
            "POST {}/api/v2/alerts HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            target.prefix,
            target.host,
            body.len()
        );
        let places = (0..batch).map(|i| Places::of(&alert, head.len() + 1 + i * (alert.len() + 1)));
        let (offset, step) = (connection as u64, connections as u64);
        let kept = match stream {
            Stream::Distinct { .. } => 0,
            Stream::Repeats { alerts, .. } => (alerts.saturating_sub(offset)).div_ceil(step).max(1),
        };
        Self {
            places: places.collect(),
            request: [head, body].concat().into_bytes(),
            stream,
            wall: Wall::default(),
            services_from: 0,
            offset,
            step,
            next: 0,
            firing: vec![None; kept as usize],
            dice: 0x9e37_79b9_7f4a_7c15 ^ (offset + 1),
            ending: false,
            log: None,
        }
    }

    /// Of services with other numbers.
    pub fn of_services_from(self, first: u64) -> Self {
        Self { services_from: first, ..self }
    }

    /// Notes when each alert is due.
    pub fn logging(self, log: DueLog) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The request that resolves what fires, of a `Repeats` stream whose alerts fit into one request.
    pub fn resolving(&mut self) -> &[u8] {
        self.ending = true;
        self.next(Instant::now()).0
    }

    /// Bytes of one alert.
    pub fn size() -> usize {
        ALERT.len()
    }

    /// The next alert's number, and its times.
    fn draw(&mut self, now: Duration) -> (u64, Duration, Duration) {
        let turn = self.next;
        self.next += 1;
        if self.firing.is_empty() {
            return (self.offset + turn * self.step, now, now + EXPIRES);
        }
        let kept = (turn % self.firing.len() as u64) as usize;
        let serial = self.offset + kept as u64 * self.step;
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let turns = self.ending || self.dice.is_multiple_of(TURNS);
        match self.firing[kept] {
            Some(since) if turns => {
                self.firing[kept] = None;
                (serial, since, now)
            }
            Some(since) => (serial, since, now + EXPIRES),
            None => {
                self.firing[kept] = Some(now);
                (serial, now, now + EXPIRES)
            }
        }
    }
}

impl Requests for Alerts {
    fn next(&mut self, due: Instant) -> (&[u8], u64) {
        let now = wall::now();
        let services = match self.stream {
            Stream::Distinct { services } | Stream::Repeats { services, .. } => services,
        };
        for i in 0..self.places.len() {
            let (serial, starts, ends) = self.draw(now);
            if let Some(log) = &self.log {
                log.lock().unwrap_or_else(PoisonError::into_inner).push((serial, due));
            }
            let (request, places) = (&mut self.request, &self.places[i]);
            for place in &places.services {
                wall::digits(self.services_from + serial % services, &mut request[place.clone()]);
            }
            wall::digits(serial, &mut request[places.serial.clone()]);
            self.wall.write(starts, &mut request[places.starts.clone()]);
            self.wall.write(ends, &mut request[places.ends.clone()]);
        }
        (&self.request, self.places.len() as u64)
    }
}

impl Places {
    fn of(alert: &str, at: usize) -> Self {
        let place = |(from, text): (usize, &str)| at + from..at + from + text.len();
        let mut services = alert.match_indices(SERVICE).map(place);
        let one = |text| alert.match_indices(text).map(place).next().expect("the template has it");
        Self {
            services: std::array::from_fn(|_| services.next().expect("the template names it four times")),
            serial: one(SERIAL),
            starts: one(STARTS),
            ends: one(ENDS),
        }
    }
}

const _: () = assert!(STARTS.len() == MILLIS && ENDS.len() == MILLIS);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{intake::prometheus, model::AlertState};

    fn source(stream: Stream, batch: usize, connection: usize) -> Alerts {
        let target = Target::own("http://127.0.0.1:9093").expect("a URL");
        Alerts::new(&target, "abcdef", batch, stream, connection, 2)
    }

    fn sent(alerts: &mut Alerts) -> Vec<crate::model::AlertEvent> {
        let (request, items) = alerts.next(Instant::now());
        let text = std::str::from_utf8(request).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let events = prometheus::parse(body, crate::clock::now(), Duration::from_secs(300)).expect("alerts");
        assert_eq!(events.len() as u64, items);
        events
    }

    #[test]
    fn every_distinct_alert_is_a_new_one_of_realistic_size() {
        assert!((400..470).contains(&Alerts::size()), "{}", Alerts::size());
        let mut seen = BTreeSet::new();
        for connection in 0..2 {
            let mut alerts = source(Stream::Distinct { services: 50 }, 10, connection);
            for _ in 0..20 {
                for event in sent(&mut alerts) {
                    assert_eq!((event.labels.len(), event.annotations.len()), (7, 2));
                    assert_eq!(event.state, AlertState::Firing);
                    assert!(seen.insert(event.fingerprint), "sent before");
                }
            }
        }
        assert_eq!(seen.len(), 400);
    }

    #[test]
    fn critical_ones_are_the_same_but_for_that() {
        let target = Target::own("http://127.0.0.1:9093").expect("a URL");
        let stream = Stream::Distinct { services: 50 };
        let events = sent(&mut Alerts::critical(&target, "abcdef", 3, stream, 0, 1));
        assert!(events.iter().all(|e| e.labels["severity"] == "critical" && e.labels.len() == 7));
    }

    #[test]
    fn repeats_are_of_so_many_alerts_and_some_resolve() {
        let mut alerts = source(Stream::Repeats { alerts: 20, services: 5 }, 10, 0);
        let events: Vec<_> = (0..200).flat_map(|_| sent(&mut alerts)).collect();
        let distinct: BTreeSet<_> = events.iter().map(|e| &e.fingerprint).collect();
        let services: BTreeSet<_> = events.iter().map(|e| &e.labels["service"]).collect();
        let resolved = events.iter().filter(|e| e.state == AlertState::Resolved).count();
        assert_eq!((distinct.len(), services.len()), (10, 5), "half of them, for one of two connections");
        assert!((10..120).contains(&resolved), "{resolved} of {}", events.len());
        let mut alerts = source(Stream::Repeats { alerts: 20, services: 5 }, 10, 0);
        assert!(sent(&mut alerts).iter().all(|e| e.state == AlertState::Firing));
        let text = String::from_utf8(alerts.resolving().to_vec()).expect("UTF-8");
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        let events = prometheus::parse(body, crate::clock::now(), Duration::from_secs(300)).expect("alerts");
        assert!(events.iter().all(|e| e.state == AlertState::Resolved));
    }
}
