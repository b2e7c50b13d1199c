//! The one place that reads the wall clock.

use std::sync::{
    OnceLock,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use jiff::Timestamp;

static STARTED: OnceLock<std::time::Instant> = OnceLock::new();

/// Now, in UTC, cut to microseconds (what the store keeps).
pub fn now() -> Timestamp {
    match SET.load(Ordering::Relaxed) {
        WALL => from_micros(Timestamp::now().as_microsecond()),
        set => from_micros(set),
    }
}

/// What a [`SetClock`] says, in microseconds; [`WALL`] while there is none.
static SET: AtomicI64 = AtomicI64::new(WALL);
const WALL: i64 = i64::MIN;
static ASKED: AtomicU64 = AtomicU64::new(0);

/// A clock that stands where it was set: while it lives, it is the time of the whole process, and ids are numbered instead of
/// random. For replays, which must come out the same each time; nothing else may run beside one.
pub struct SetClock(());

impl SetClock {
    /// # Panics
    /// If there is one already.
    pub fn at(at: Timestamp) -> Self {
        let before = SET.swap(at.as_microsecond(), Ordering::Relaxed);
        assert_eq!(before, WALL, "a process has one time");
        ASKED.store(0, Ordering::Relaxed);
        Self(())
    }

    pub fn set(&mut self, at: Timestamp) {
        SET.store(at.as_microsecond(), Ordering::Relaxed);
    }
}

impl Drop for SetClock {
    fn drop(&mut self) {
        SET.store(WALL, Ordering::Relaxed);
    }
}

/// While a [`SetClock`] lives: its time, and how often this was asked before.
pub fn numbered() -> Option<(Timestamp, u64)> {
    let set = SET.load(Ordering::Relaxed);
    (set != WALL).then(|| (from_micros(set), ASKED.fetch_add(1, Ordering::Relaxed)))
}

/// Microseconds since the epoch to a time; what is out of range (only a damaged row can be) becomes the epoch.
pub fn from_micros(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `at` plus a duration, saturating at the end of time.
pub fn after(at: Timestamp, d: Duration) -> Timestamp {
    at.checked_add(d).unwrap_or(Timestamp::MAX)
}

/// `at` minus a duration, saturating at the beginning of time.
pub fn before(at: Timestamp, d: Duration) -> Timestamp {
    at.checked_sub(d).unwrap_or(Timestamp::MIN)
}

/// How long from `from` to `to`; zero if `to` is earlier.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

/// Marks the start of the process; the first call counts.
pub fn mark_start() {
    STARTED.get_or_init(std::time::Instant::now);
}

/// Time since [`mark_start`].
pub fn uptime() -> Duration {
    STARTED.get_or_init(std::time::Instant::now).elapsed()
}

/// Notices that the wall clock was set: it is compared with one that nobody sets. A machine that slept looks as if its clock was
/// set forward.
pub struct Steps {
    wall: Timestamp,
    steady: Instant,
}

/// How far the wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Forward(Duration),
    Back(Duration),
}

/// What is slewed, or measured badly, is no step.
const LEAST_STEP: Duration = Duration::from_secs(5);

impl Default for Steps {
    fn default() -> Self {
        Self { wall: now(), steady: Instant::now() }
    }
}

impl Steps {
    /// Whether it was set since the last look.
    pub fn look(&mut self) -> Option<Step> {
        self.at(now(), Instant::now())
    }

    fn at(&mut self, wall: Timestamp, steady: Instant) -> Option<Step> {
        let expected = after(self.wall, steady.saturating_duration_since(self.steady));
        (self.wall, self.steady) = (wall, steady);
        let (ahead, behind) = (between(expected, wall), between(wall, expected));
        match ahead.max(behind) {
            small if small < LEAST_STEP => None,
            by if ahead > behind => Some(Step::Forward(by)),
            by => Some(Step::Back(by)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_runs() {
        let mut steps = Steps::default();
        let (mut wall, mut steady) = (steps.wall, steps.steady);
        let mut pass = |wall_seconds: i64, seconds: u64| {
            wall = from_micros(wall.as_microsecond() + wall_seconds * 1_000_000);
            steady += Duration::from_secs(seconds);
            steps.at(wall, steady)
        };
        assert_eq!(pass(60, 60), None);
        assert_eq!(pass(61, 60), None, "slewed");
        assert_eq!(pass(3660, 60), Some(Step::Forward(Duration::from_secs(3600))));
        assert_eq!(pass(60, 60), None, "told once");
        assert_eq!(pass(-3540, 60), Some(Step::Back(Duration::from_secs(3600))));
    }
}
