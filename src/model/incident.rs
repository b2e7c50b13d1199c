//! An incident: signals that belong together, and what happened to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Actor, Said, Severity};

super::words!(
    /// Where an incident stands with people.
    IncidentState {
        Open = "open",
        Acknowledged = "acknowledged",
        Resolved = "resolved",
    }
);

/// The incident itself; its parts (alerts, evidence, runs …) refer to it by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Incident {
    /// UUID v7: sorts by the time of opening.
    pub id: String,
    pub state: IncidentState,
    pub severity: Severity,
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub title: Said,
    pub service: String,
    /// When the earliest of its signals began; before `opened_at`.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When the newest signal that joined it began; the window for joining is measured from here.
    #[schema(value_type = String, format = DateTime)]
    pub last_signal_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resolved_at: Option<Timestamp>,
    /// Distinct alerts that ever belonged to it.
    pub alert_count: i64,
    /// Of these, firing now.
    pub firing_count: i64,
    /// Grows with every change that people should see; messages carry the version that they show.
    pub version: i64,
    /// How often it was opened: 1, and one more for each time that it reopened. A new one deserves a new message, because an
    /// edit rings no phone.
    pub episode: i64,
    /// Its alerts come and go too often to be told of each time.
    pub flapping: bool,
    /// A silence or maintenance window holds its messages back; its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<Actor>,
    /// `alerts resolved`, or who did it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "Said::as_text_opt")]
    #[schema(value_type = Option<String>)]
    pub resolved_by: Option<Said>,
}

impl Incident {
    /// The last six digits of the id: enough to tell incidents apart in a chat, and the random part of a UUID v7.
    pub fn short_id(&self) -> &str {
        short_id(&self.id)
    }
    /// The clause and the reason for which its messages are held back, if they are.
    pub fn held_back(&self) -> Option<(&'static str, &str)> {
        let reason = self.suppressed.as_deref()?;
        let clause = if reason.starts_with("silence: ") { "silence" } else { "correlate.maintenance" };
        Some((clause, reason))
    }
    pub fn is_open(&self) -> bool {
        self.state != IncidentState::Resolved
    }
}

/// See [`Incident::short_id`].
pub fn short_id(id: &str) -> &str {
    id.get(id.len().saturating_sub(6)..).unwrap_or(id)
}

super::words!(
    /// What a timeline entry tells.
    TimelineKind {
        Opened = "opened",
        AlertFiring = "alert_firing",
        AlertResolved = "alert_resolved",
        AnomalyFound = "anomaly_found",
        AnomalyEnded = "anomaly_ended",
        Evidence = "evidence",
        Diagnosed = "diagnosed",
        Proposed = "proposed",
        Refused = "refused",
        Approved = "approved",
        Rejected = "rejected",
        Expired = "expired",
        RunStarted = "run_started",
        /// Somebody wants it to stop; that it has is another line.
        RunCancelled = "run_cancelled",
        StepStarted = "step_started",
        StepFinished = "step_finished",
        RunFinished = "run_finished",
        Verified = "verified",
        VerifyFailed = "verify_failed",
        RolledBack = "rolled_back",
        NeedsHuman = "needs_human",
        Notified = "notified",
        NotifyFailed = "notify_failed",
        Acknowledged = "acknowledged",
        Flapping = "flapping",
        Resolved = "resolved",
        Reopened = "reopened",
    }
);

/// One line of an incident's story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TimelineEntry {
    /// Grows over all incidents: the position in the live stream.
    pub seq: i64,
    pub incident_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub kind: TimelineKind,
    /// A sentence for people, secrets masked.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub text: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
}
