//! Where state is kept, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// The state store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `postgres://…`; empty: SQLite in the data directory. A secret, because it may carry a password.
    pub url: Secret,
    /// at_start, or explicit: then a program whose schema is not there yet refuses to start until `aiops migrate` has run.
    pub migrate: MigrateWhen,
    pub retention: Retention,
}

/// When the schema of the store is brought up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrateWhen {
    #[default]
    AtStart,
    Explicit,
}

/// How long finished things are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Resolved incidents with all that belongs to them, and resolved alerts.
    #[serde(with = "humantime_serde")]
    pub incidents: Duration,
    /// Decisions about alerts that belong to no incident, anomalies without one, and changes.
    #[serde(with = "humantime_serde")]
    pub signals: Duration,
    /// The audit trail.
    #[serde(with = "humantime_serde")]
    pub audit: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Retention {
    fn default() -> Self {
        Self { incidents: 365 * DAY, signals: 30 * DAY, audit: 730 * DAY }
    }
}

impl Check for StoreSettings {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let url = self.url.expose();
        if !url.is_empty() && !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            problems.push(Problem::new(
                format!("{at}.url"),
                "must begin with postgres:// or be empty for SQLite in the data directory",
            ));
        }
        let r = &self.retention;
        for (name, value) in [("incidents", r.incidents), ("signals", r.signals), ("audit", r.audit)] {
            check::positive(&format!("{at}.retention.{name}"), value, problems);
        }
    }
}
