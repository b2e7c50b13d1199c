//! Evidence: a stored fact with an id that a diagnosis can cite.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Said;

super::words!(
    /// Where a fact comes from; one evidence source may give several kinds.
    EvidenceKind {
        Alert = "alert",
        LogAnomaly = "log_anomaly",
        LogLine = "log_line",
        LogRate = "log_rate",
        MetricAnomaly = "metric_anomaly",
        MetricRange = "metric_range",
        Change = "change",
        PastIncident = "past_incident",
        Ranking = "ranking",
    }
);

/// One fact about one incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evidence {
    /// `E1`, `E2` … within the incident; what claims cite.
    pub id: String,
    pub kind: EvidenceKind,
    /// The evidence source that gave it: `alerts`, `telemetry`, `logs`, `prometheus`, `changes`, `past_incidents`,
    /// `ranking`.
    pub source: String,
    pub service: String,
    /// One line for people and prompts, secrets masked.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub summary: Said,
    /// The numbers or lines behind it, bounded.
    pub data: serde_json::Value,
    /// When the fact held, not when we fetched it.
    #[schema(value_type = String, format = DateTime)]
    pub observed_at: Timestamp,
}
