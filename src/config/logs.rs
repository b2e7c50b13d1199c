//! The log lines that the embedded profile keeps for search.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// Log lines that came through intake, kept for search and diagnoses in `logs.db` in the data directory. Only where the store is
/// SQLite.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    pub keep: bool,
    /// The oldest lines make room when they are older than this.
    #[serde(with = "humantime_serde")]
    pub keep_for: Duration,
    /// Bytes of the file, about; the oldest lines make room.
    pub max_bytes: u64,
    /// Lines kept in one second at most; of more a sample is kept, warnings and worse first. The detectors see all of them.
    pub max_rate: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self { keep: true, keep_for: Duration::from_secs(86_400), max_bytes: 200 << 20, max_rate: 2000 }
    }
}

impl Check for Logs {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        check::positive(&format!("{at}.keep_for"), self.keep_for, problems);
        let mut between = |name: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                problems
                    .push(Problem::new(format!("{at}.{name}"), format!("must be between {low} and {high}")));
            }
        };
        between("max_bytes", self.max_bytes, 1 << 20, 1 << 40);
        between("max_rate", self.max_rate, 1, 1_000_000);
    }
}
