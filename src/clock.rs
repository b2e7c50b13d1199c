//! The one place that reads the wall clock.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;

static STARTED: OnceLock<std::time::Instant> = OnceLock::new();

/// Now, in UTC, cut to microseconds (what the store keeps).
pub fn now() -> Timestamp {
    from_micros(Timestamp::now().as_microsecond())
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
