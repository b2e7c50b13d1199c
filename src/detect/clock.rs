//! Event time of one log source: says which seconds are complete, by what has arrived and, when nothing arrives, by the wall
//! clock.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{clock, config::Detect};

/// Several hosts and shippers write one source; how far apart they are is learned, so that a shipper that sends every five
/// seconds is late only when it is later than usual.
#[derive(Serialize, Deserialize)]
pub struct SourceClock {
    lateness: i64,
    window: Duration,
    /// The newest time of a record.
    latest: Timestamp,
    /// Every second up to and including this one is complete.
    closed: i64,
    /// Complete as far as is known, not yet handed out.
    due: i64,
    /// Nothing before this second is known: the source was away, or new.
    known_since: i64,
    /// The last time that the source was away: from its last record to the next.
    hole: Option<(Timestamp, Timestamp)>,
    last_arrival: Timestamp,
    /// Between arrivals, fading.
    longest_gap: Duration,
    disorder: FadingMax,
    lag: FadingMax,
}

/// What one arrival means.
pub struct Arrived {
    pub second: i64,
    pub late: bool,
    /// The source comes back after a while of which nothing is known.
    pub resumed: Option<i64>,
}

/// A source that is away longer leaves a hole instead of seconds without lines.
const HOLE: i64 = 120;
/// Disorder and lag beyond this are not waited for.
const MAX_WAIT: i64 = 30;

impl SourceClock {
    pub fn new(at: Timestamp, settings: &Detect) -> Self {
        let second = at.as_second();
        Self {
            lateness: settings.lateness.as_secs() as i64,
            window: settings.window,
            latest: at,
            closed: second - 1,
            due: second - 1,
            known_since: second,
            hole: None,
            last_arrival: at,
            longest_gap: Duration::ZERO,
            disorder: FadingMax::default(),
            lag: FadingMax::default(),
        }
    }

    /// Notes a record. One that claims to come from the future comes from a host whose clock is wrong: it counts as now, or
    /// everybody else's records would be late.
    pub fn arrived(&mut self, at: Timestamp, arrival: Timestamp) -> Arrived {
        let at = at.min(arrival);
        let second = at.as_second();
        let resumed = (second - self.closed > HOLE).then_some(second);
        if resumed.is_some() {
            self.hole = Some((self.latest, at));
            (self.closed, self.due, self.known_since) = (second - 1, second - 1, second);
        } else {
            let gap = clock::between(self.last_arrival, arrival);
            self.longest_gap = gap.max(self.longest_gap.mul_f64(0.9999));
        }
        self.last_arrival = self.last_arrival.max(arrival);
        let now = arrival.as_second();
        self.lag.note(now - second, now);
        self.disorder.note(self.latest.as_second() - second, now);
        self.latest = self.latest.max(at);
        let late = second <= self.closed;
        self.due = self.due.max(self.latest.as_second() - 1 - self.wait(&self.disorder));
        Arrived { second, late, resumed }
    }

    /// Lets the wall clock complete seconds, as long as the silence of the source is no longer than usual.
    pub fn tick(&mut self, now: Timestamp) {
        let known_until = clock::after(self.latest, self.silence_limit()).as_second();
        let due = now.as_second() - 1 - self.wait(&self.lag);
        self.due = self.due.max(due.min(known_until));
    }

    /// The next second that is complete.
    pub fn next_closed(&mut self) -> Option<i64> {
        if self.closed >= self.due {
            return None;
        }
        self.closed += 1;
        Some(self.closed)
    }

    pub fn last_arrival(&self) -> Timestamp {
        self.last_arrival
    }

    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// The last hole, if it reaches into the window.
    pub fn hole(&self, from: Timestamp, to: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.hole.filter(|(away, back)| *away < to && *back > from)
    }

    pub fn known_since(&self) -> i64 {
        self.known_since
    }

    pub fn silent_for(&self, now: Timestamp) -> Duration {
        clock::between(self.last_arrival, now)
    }

    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    /// A longer silence of the whole source is unknown, not quiet: one and a half windows, or five times the longest gap.
    pub fn silence_limit(&self) -> Duration {
        (self.window * 3 / 2).max(self.longest_gap * 5)
    }

    fn wait(&self, spread: &FadingMax) -> i64 {
        spread.max().clamp(self.lateness, MAX_WAIT.max(self.lateness))
    }
}

/// The maximum over the last one to two minutes.
#[derive(Default, Serialize, Deserialize)]
struct FadingMax {
    minute: i64,
    current: i64,
    previous: i64,
}

impl FadingMax {
    fn note(&mut self, value: i64, now: i64) {
        let minute = now.div_euclid(60);
        if minute > self.minute {
            self.previous = if minute == self.minute + 1 { self.current } else { 0 };
            (self.minute, self.current) = (minute, 0);
        }
        self.current = self.current.max(value);
    }

    fn max(&self) -> i64 {
        self.current.max(self.previous)
    }
}

/// The beginning of a second of event time.
pub fn at_second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_255_200 + second).expect("in range")
    }
    fn closed(clock: &mut SourceClock) -> Vec<i64> {
        std::iter::from_fn(|| clock.next_closed()).map(|s| s - 1_795_255_200).collect()
    }

    #[test]
    fn seconds_close_behind_the_newest_record() {
        let mut clock = SourceClock::new(at(0), &Detect::default());
        for second in 0..=4 {
            clock.arrived(at(second), at(second));
        }
        assert_eq!(closed(&mut clock), [0, 1, 2]);
        assert!(clock.arrived(at(2), at(4)).late);
        assert!(!clock.arrived(at(3), at(4)).late);
    }

    #[test]
    fn the_wall_clock_closes_until_silence_is_unusual() {
        let mut clock = SourceClock::new(at(0), &Detect::default());
        clock.arrived(at(0), at(0));
        clock.tick(at(5));
        assert_eq!(closed(&mut clock), [0, 1, 2, 3]);
        clock.tick(at(500));
        assert_eq!(closed(&mut clock).last(), Some(&15), "then nobody knows");
        assert_eq!(clock.arrived(at(600), at(600)).resumed, Some(at(600).as_second()));
        assert_eq!(closed(&mut clock), [0; 0]);
    }

    #[test]
    fn a_slow_shipper_is_waited_for_and_a_wrong_clock_is_not_believed() {
        let mut clock = SourceClock::new(at(0), &Detect::default());
        for second in (5..60).step_by(5) {
            for sent in second - 5..second {
                assert!(!clock.arrived(at(sent), at(second)).late);
            }
            clock.tick(at(second + 4));
            let _ = closed(&mut clock);
        }
        clock.arrived(at(400), at(60));
        assert_eq!(clock.latest(), at(60));
    }
}
