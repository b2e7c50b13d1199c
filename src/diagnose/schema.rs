//! The form of a model's answer, as JSON Schema for the server's grammar and as types for our own check. Ids of evidence and
//! playbooks are enumerated, so that a server that keeps to the schema cannot even spell another.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::offers;
use crate::model::{Claim, Offer};

/// What a model answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// One or two sentences: the most likely cause.
    pub summary: String,
    /// Each with the ids of the facts that carry it.
    pub claims: Vec<Claim>,
    /// Null if none of the offered ones would help.
    pub playbook: Option<Choice>,
}

/// One of the offered playbooks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub id: String,
    pub params: Map<String, Value>,
    /// Why it would help.
    pub why: String,
}

pub const MAX_CLAIMS: usize = 6;

/// The schema of an answer that may cite `ids` and choose among `offered`. Strict in OpenAI's sense: every property is
/// required, none may be added.
pub fn answer(ids: &[&str], offered: &[Offer]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Reply>().to_value();
    schema["required"] = json!(["summary", "claims", "playbook"]);
    let claims = &mut schema["properties"]["claims"];
    claims["minItems"] = json!(1);
    claims["maxItems"] = json!(MAX_CLAIMS);
    let cited = &mut claims["items"]["properties"]["evidence"];
    cited["items"]["enum"] = json!(ids);
    cited["minItems"] = json!(1);
    cited["maxItems"] = json!(4);
    let mut choices = vec![json!({"type": "null"})];
    choices.extend(offered.iter().map(choice));
    schema["properties"]["playbook"] = json!({ "anyOf": choices });
    schema
}

fn choice(offer: &Offer) -> Value {
    let free = || offer.params.iter().filter(|(_, p)| offers::is_choosable(p));
    let properties: Map<String, Value> = free().map(|(name, p)| (name.clone(), p.schema.clone())).collect();
    let names: Vec<&String> = free().map(|(name, _)| name).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["id", "params", "why"],
        "properties": {
            "id": {"type": "string", "enum": [offer.playbook]},
            "params": {
                "type": "object", "additionalProperties": false, "required": names, "properties": properties,
            },
            "why": {"type": "string"},
        },
    })
}
