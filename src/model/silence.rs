//! A silence: somebody asked not to be told of certain alerts for a while.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Actor, Labels, Matchers, matcher::all_match, short_id};

/// Incidents whose alerts it covers open without a message until it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Silence {
    /// UUID v7: sorts by the time of creation.
    pub id: String,
    /// All must fit; `{label: value}` or `{label: "~regex"}` (anchored).
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub matches: Matchers,
    pub reason: String,
    pub by: Actor,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// It does not hold any more from then on.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

impl Silence {
    /// The end of the id: enough to tell silences apart.
    pub fn short_id(&self) -> &str {
        short_id(&self.id)
    }
    /// True if it covers these labels at this time.
    pub fn covers(&self, labels: &Labels, at: Timestamp) -> bool {
        at < self.until && all_match(&self.matches, labels)
    }
}

impl std::fmt::Display for Silence {
    /// `silence: reboot (by token:ann, until 2026-11-21 14:00 UTC)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let until = self.until.strftime("%Y-%m-%d %H:%M UTC");
        write!(f, "silence: {} (by {}, until {until})", self.reason, self.by)
    }
}
