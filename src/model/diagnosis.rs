//! A diagnosis: claims that cite evidence, by one tier of the chain.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Said;

super::words!(
    /// Who made the diagnosis. Ordered: a later tier improves on an earlier one.
    Tier {
        Rules = "rules",
        Local = "local",
        Cloud = "cloud",
    }
);

/// One statement with the evidence that carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    #[schemars(with = "String")]
    pub text: Said,
    /// Ids of evidence of this incident; checked in code, never empty.
    pub evidence: Vec<String>,
}

/// An evidence source that could not be asked: the diagnosis says so instead of passing for complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Missing {
    pub source: String,
    /// `circuit open`, `timed out after 3 s`, `telemetry incomplete since …`.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub reason: Said,
}

/// A playbook that a tier would run; only ids and parameters that were offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Suggestion {
    pub playbook: String,
    pub params: BTreeMap<String, serde_json::Value>,
    pub why: String,
}

/// What became of one tier's try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attempt {
    pub tier: Tier,
    /// The provider: `openai`, `ollama`.
    pub provider: String,
    /// `answered`, or why not: `circuit open`, `timed out`, `answer cites E99, which was not sent`.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub outcome: Said,
    pub latency_ms: u64,
}

/// The newest one of an incident is what people see; older ones stay readable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Diagnosis {
    pub id: String,
    pub incident_id: String,
    pub tier: Tier,
    /// The model that answered; empty for rules.
    pub model: String,
    /// One or two sentences.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub summary: Said,
    pub claims: Vec<Claim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Suggestion>,
    pub missing: Vec<Missing>,
    /// The tiers that were tried for it, in order.
    pub attempts: Vec<Attempt>,
    pub latency_ms: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// By the prices in the settings; 0 for rules and local models.
    pub cost_usd: f64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl Diagnosis {
    /// Every sentence in it, in one order.
    pub fn sentences(&mut self) -> impl Iterator<Item = &mut Said> {
        let claims = self.claims.iter_mut().map(|c| &mut c.text);
        let missing = self.missing.iter_mut().map(|m| &mut m.reason);
        std::iter::once(&mut self.summary).chain(claims).chain(missing)
    }
}
