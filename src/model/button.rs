//! A button under a message: what pressing it means is kept here, not in the chat.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Actor;

super::words!(
    /// What a person can do from a message.
    Verb {
        Approve = "approve",
        Reject = "reject",
        Ack = "ack",
        Resolve = "resolve",
    }
);

/// One button; the chat only ever holds its id. Works once, in the place that it was posted to, until it expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Button {
    /// Random, at most 64 bytes: what Telegram and Slack hand back when it is pressed.
    pub id: String,
    pub verb: Verb,
    pub incident_id: String,
    /// The question that `approve` and `reject` answer.
    pub approval_id: Option<String>,
    /// Of the plan that was shown beside it: approving runs that one or nothing.
    pub plan_hash: Option<String>,
    /// The channel's name in the settings.
    pub channel: String,
    /// The chat or Slack channel that shows it; empty until the message is posted.
    pub place: String,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    pub used_by: Option<Actor>,
}
