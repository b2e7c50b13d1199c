//! An anomaly: a signal that we found ourselves in logs or metrics.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Said, Severity};

super::words!(
    /// What kind of deviation a detector saw.
    AnomalyKind {
        LogBurst = "log_burst",
        LogNovelty = "log_novelty",
        LogSilence = "log_silence",
        LogErrors = "log_errors",
        LogValues = "log_values",
        Metric = "metric",
    }
);

/// The onset or the end of an anomaly, as a detector reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyEvent {
    pub kind: AnomalyKind,
    /// Identifies the anomaly while it lasts: the same service, kind and template or series give the same key.
    pub key: String,
    pub service: String,
    pub severity: Severity,
    /// A sentence that says what it compares with: "`connection refused to <*>`: 214 in 60 s, usually 0–3".
    pub title: Said,
    /// Sample line, counts, expected range and so on; shown as evidence, never interpreted.
    pub detail: serde_json::Value,
    pub started_at: Timestamp,
    /// Set when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl From<Anomaly> for AnomalyEvent {
    fn from(a: Anomaly) -> Self {
        Self {
            kind: a.kind,
            key: a.key,
            service: a.service,
            severity: a.severity,
            title: a.title,
            detail: a.detail,
            started_at: a.started_at,
            ended_at: a.ended_at,
        }
    }
}

/// A stored anomaly, with the incident that it belongs to, if any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Anomaly {
    pub id: String,
    pub kind: AnomalyKind,
    pub key: String,
    pub service: String,
    pub severity: Severity,
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub title: Said,
    pub detail: serde_json::Value,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    pub incident_id: Option<String>,
}
