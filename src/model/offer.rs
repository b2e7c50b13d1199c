//! An offer: a playbook that fits an incident, with the parameters that are already known. A diagnosis may choose one; what
//! was not offered does not exist for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One playbook, offered for one incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Offer {
    /// The playbook's id.
    pub playbook: String,
    /// What it does, in a line; known parameters filled in.
    pub title: String,
    /// When it helps, for people and prompts.
    pub description: String,
    pub params: BTreeMap<String, OfferedParam>,
    /// What it would act on, as far as the parameters are known.
    pub target: String,
    /// It only looks; it mends nothing.
    pub read_only: bool,
}

/// A typed parameter of an offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OfferedParam {
    /// JSON Schema of one value: type, pattern, enum, minimum, maximum.
    pub schema: serde_json::Value,
    /// Taken from the incident or the settings: not to be chosen. None: free to choose within the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<serde_json::Value>,
    /// What is taken if nothing is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
}
