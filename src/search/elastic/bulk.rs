//! Documents into indices by `_bulk`, each judged by itself. A document has an id and a growing version of its own, so that
//! sending it again changes nothing and an older one never replaces a newer.

use std::collections::HashMap;

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Elastic, ElasticError, brief};
use crate::breaker::CallError;

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub index: String,
    pub id: String,
    pub version: i64,
    pub body: Value,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Put {
    /// It is there, or a newer one is.
    Done,
    /// Later it may work: too busy, a shard is missing, a block.
    Later(String),
    /// The index cannot take it as it is; it would be refused again.
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    items: Vec<HashMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Item {
    fn judged(self) -> Put {
        let text = |key: &str| self.error[key].as_str().unwrap_or_default();
        let caused = self.error["caused_by"]["reason"].as_str().map_or(String::new(), |c| format!(": {c}"));
        let said = || brief(&format!("{} {}: {}{caused}", self.status, text("type"), text("reason")));
        match self.status {
            // 409: that version or a newer one is there.
            200..300 | 409 => Put::Done,
            400 => Put::Refused(said()),
            _ => Put::Later(said()),
        }
    }
}

impl Elastic {
    /// Sends them in one request; one outcome for each. The error is about the request as a whole: nothing is known to be there.
    pub async fn put(&self, documents: &[Document]) -> Result<Vec<Put>, CallError<ElasticError>> {
        let mut body = Vec::new();
        for d in documents {
            let action = json!({ "index": { "_index": d.index, "_id": d.id, "version": d.version, "version_type": "external" } });
            for line in [&action, &d.body] {
                serde_json::to_writer(&mut body, line).expect("JSON serialises");
                body.push(b'\n');
            }
        }
        let wanted = [("filter_path", "items.*.status,items.*.error")];
        let body = Some(("application/x-ndjson", body.into()));
        let answer: Answer = self.guarded(self.call(Method::Post, "_bulk", &wanted, body)).await?;
        let items = answer.items.into_iter().filter_map(|item| item.into_values().next());
        let outcomes: Vec<Put> = items.map(Item::judged).collect();
        if outcomes.len() != documents.len() {
            let why = format!("{} outcomes for {} documents", outcomes.len(), documents.len());
            return Err(CallError::Inner(ElasticError::Answer(why)));
        }
        Ok(outcomes)
    }
}
