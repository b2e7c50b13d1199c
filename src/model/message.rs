//! A message: what we owe one channel about one incident (an obligation), and what has become of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

super::words!(
    /// Where the obligation stands.
    MessageState {
        /// There is a newer version to deliver.
        Due = "due",
        /// The provider has the newest version.
        Delivered = "delivered",
        /// A recorded reason (maintenance, severity, flapping) holds it back.
        Suppressed = "suppressed",
        /// The provider refuses for good, or the deadline passed: counted, alarmed, shown.
        Dead = "dead",
    }
);

/// One row per incident and channel; edited as the incident changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Message {
    pub incident_id: String,
    /// The channel's name in the settings.
    pub channel: String,
    pub state: MessageState,
    /// The incident version that people should see.
    pub wanted_version: i64,
    /// The incident version that the provider has.
    pub sent_version: i64,
    /// The incident's episode that `reference` belongs to; 0 before the first post. A later episode is posted anew.
    pub episode: i64,
    /// What the provider calls it: Telegram's message id, Slack's channel and ts; an object of the channel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<serde_json::Value>,
    pub attempts: i64,
    #[schema(value_type = String, format = DateTime)]
    pub next_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The last try ended for good without success; a newer version of the incident gets a new one.
    #[serde(default)]
    pub unreached: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<Timestamp>,
}
