//! How much is too much.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// When less is taken and done: models and far evidence first, then telemetry, then alerts that are not critical.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// An acknowledged delivery should not wait longer for correlation. Twice as long sheds telemetry, five times as long
    /// all but critical alerts, ten times as long everything.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Bytes of resident memory at which only critical alerts are taken; less is done from four fifths on. 0: no limit.
    pub max_memory: usize,
}

impl Default for Overload {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(3), max_memory: 512 << 20 }
    }
}

impl Check for Overload {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        check::positive(&format!("{at}.max_age"), self.max_age, problems);
        if self.max_memory != 0 && self.max_memory < 64 << 20 {
            let message = "must be at least 67108864 (64 MB), or 0 for no limit";
            problems.push(Problem::new(format!("{at}.max_memory"), message));
        }
    }
}
