//! What an alert and an anomaly have in common for correlation.

use jiff::Timestamp;

use crate::model::{Labels, Said, Severity};

/// What an alert or an anomaly looks like to an incident.
pub(super) struct Signal {
    pub service: String,
    pub severity: Severity,
    pub title: Said,
    pub started_at: Timestamp,
    pub labels: Labels,
    pub fingerprint: Option<String>,
    /// The incident that it belonged to the last time.
    pub previous_incident: Option<String>,
}
