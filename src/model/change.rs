//! A change: somebody deployed or configured something; the first suspect.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A deploy, a configuration change, a flag flip, as `POST /api/v1/changes` takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    #[serde(default)]
    pub id: String,
    /// `deploy`, `config`, `flag`, `infra` …: free, shown.
    pub kind: String,
    pub service: String,
    /// One line: "checkout 1.4.2 → 1.5.0".
    pub summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it took effect.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}
