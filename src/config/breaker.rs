//! When we stop asking a service that fails.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// Circuit breakers; the same numbers for every dependency.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// So many failures on end open it.
    pub failures: u32,
    /// It also opens when half of the calls within this time fail (at least 10 of them).
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long it stays open the first time; each further time twice as long.
    #[serde(with = "humantime_serde")]
    pub open: Duration,
    /// It never stays open longer than this.
    #[serde(with = "humantime_serde")]
    pub open_max: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 3,
            window: Duration::from_secs(60),
            open: Duration::from_secs(10),
            open_max: Duration::from_secs(300),
        }
    }
}

impl Check for Breaker {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if self.failures == 0 {
            problems.push(Problem::new(format!("{at}.failures"), "must be at least 1"));
        }
        if self.window < Duration::from_secs(1) {
            problems.push(Problem::new(format!("{at}.window"), "must be at least 1s"));
        }
        check::positive(&format!("{at}.open"), self.open, problems);
        if self.open_max < self.open {
            problems.push(Problem::new(format!("{at}.open_max"), "must not be shorter than open"));
        }
    }
}
