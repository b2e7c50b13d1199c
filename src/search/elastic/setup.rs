//! What our own indices need on the other side: a template for each kind of record, and a lifecycle policy that deletes old
//! indices (ILM in Elasticsearch, ISM in OpenSearch). Looked at by `aiops check`, installed by `aiops check --fix`.

use std::{collections::BTreeMap, time::Duration};

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Elastic, ElasticError};
use crate::{breaker::CallError, config::Fields, model::sha256_hex, store::exports::Kind};

/// One thing that is installed.
#[derive(Clone, Debug)]
pub struct Part {
    /// `index template aiops-incidents`.
    pub name: String,
    path: String,
    body: Value,
    /// Stands in it, and tells it from an older or somebody else's.
    mark: String,
    is_policy: bool,
}

/// How it stands with a part.
#[derive(Clone, Debug, PartialEq)]
pub enum PartState {
    Right,
    Missing,
    /// There is another one under its name: older, or changed, or somebody else's.
    Other,
    /// The server cannot have it.
    Unsupported,
}

#[derive(Clone, Copy, PartialEq)]
enum Flavor {
    Elasticsearch,
    OpenSearch,
}

/// Who answers.
#[derive(Clone, Debug)]
pub struct Server {
    /// `OpenSearch 2.19.1`.
    pub name: String,
    flavor_is_opensearch: bool,
}

impl Server {
    fn flavor(&self) -> Flavor {
        if self.flavor_is_opensearch { Flavor::OpenSearch } else { Flavor::Elasticsearch }
    }
}

/// A field of the log indices, as `aiops check` looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldState {
    Right,
    Missing,
    /// Its type, which does not do.
    Wrong(String),
}

impl Elastic {
    pub async fn server(&self) -> Result<Server, ElasticError> {
        #[derive(Deserialize)]
        struct Root {
            version: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            number: String,
            distribution: Option<String>,
        }
        let Root { version } = self.get("").await?;
        let flavor_is_opensearch = version.distribution.as_deref() == Some("opensearch");
        let name = if flavor_is_opensearch { "OpenSearch" } else { "Elasticsearch" };
        Ok(Server { name: format!("{name} {}", version.number), flavor_is_opensearch })
    }

    /// How many indices the pattern of the log lines names, and how it stands with each of the fields, by the name of its setting.
    pub async fn log_fields(&self) -> Result<(usize, Vec<(&'static str, String, FieldState)>), ElasticError> {
        #[derive(Deserialize)]
        struct Caps {
            indices: Vec<String>,
            fields: BTreeMap<String, BTreeMap<String, Value>>,
        }
        let logs = &self.settings.logs;
        let names: Vec<&str> = logs.fields.all().iter().map(|(_, field)| *field).collect();
        let wanted = names.join(",");
        let query =
            [("fields", wanted.as_str()), ("ignore_unavailable", "true"), ("allow_no_indices", "true")];
        let path = format!("{}/_field_caps", super::encoded(&logs.index));
        let caps: Caps = self.call(Method::Get, &path, &query, None).await?;
        let state = |setting: &str, field: &str| match caps.fields.get(field) {
            None => FieldState::Missing,
            Some(types) => {
                let fit = |kind: &String| fits(setting, kind);
                types
                    .keys()
                    .find(|kind| !fit(kind))
                    .map_or(FieldState::Right, |k| FieldState::Wrong(k.clone()))
            }
        };
        let fields = logs.fields.all().into_iter().map(|(s, field)| (s, field.to_owned(), state(s, field)));
        Ok((caps.indices.len(), fields.collect()))
    }

    /// What the export needs; the policy first, for the templates name it.
    pub fn parts(&self, server: &Server) -> Vec<Part> {
        let prefix = &self.settings.export.prefix;
        let policy = policy(server.flavor(), prefix, self.settings.export.retention);
        let templates = Kind::ALL.iter().map(|kind| template(server.flavor(), prefix, *kind));
        std::iter::once(policy).chain(templates).collect()
    }

    pub async fn look(&self, part: &Part) -> Result<PartState, ElasticError> {
        match self.get::<Value>(&part.path).await {
            Ok(found) if found.to_string().contains(&part.mark) => Ok(PartState::Right),
            Ok(_) => Ok(PartState::Other),
            Err(e) if e.is_not_found() => Ok(PartState::Missing),
            // A server without the plugin knows no such path.
            Err(ElasticError::Status(400 | 405, _)) if part.is_policy => Ok(PartState::Unsupported),
            Err(e) => Err(e),
        }
    }

    /// Installs or replaces it.
    pub async fn install(&self, part: &Part) -> Result<(), ElasticError> {
        let mut path = part.path.clone();
        if part.is_policy
            && let Ok(found) = self.get::<Value>(&part.path).await
            && let (Some(seq), Some(term)) = (found["_seq_no"].as_i64(), found["_primary_term"].as_i64())
        {
            // OpenSearch replaces a policy only for those who have seen it.
            path = format!("{path}?if_seq_no={seq}&if_primary_term={term}");
        }
        let _: Value = self.json(Method::Put, &path, &part.body).await?;
        Ok(())
    }

    /// Whether documents would find the templates that they need.
    pub async fn is_set_up(&self) -> Result<bool, CallError<ElasticError>> {
        let looking = async {
            let server = self.server().await?;
            for part in self.parts(&server).iter().filter(|p| !p.is_policy) {
                if self.look(part).await? != PartState::Right {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.guarded(looking).await
    }
}

fn fits(setting: &str, kind: &str) -> bool {
    match setting {
        "time" => matches!(kind, "date" | "date_nanos"),
        "message" => matches!(kind, "text" | "match_only_text" | "wildcard" | "keyword"),
        _ => matches!(kind, "keyword" | "constant_keyword" | "wildcard" | "unmapped"),
    }
}

/// A part with the mark of its contents written into it by `mark_it`.
fn part(
    name: String,
    path: String,
    is_policy: bool,
    mut body: Value,
    mark_it: impl FnOnce(&mut Value, &str),
) -> Part {
    let mark = format!("aiops:{}", &sha256_hex(body.to_string().as_bytes())[..16]);
    mark_it(&mut body, &mark);
    Part { name, path, body, mark, is_policy }
}

fn policy(flavor: Flavor, prefix: &str, retention: Duration) -> Part {
    // Both take whole hours.
    let age = format!("{}h", retention.as_secs() / 3600);
    match flavor {
        Flavor::Elasticsearch => {
            let phases = json!({ "hot": { "actions": {} }, "delete": { "min_age": age, "actions": { "delete": {} } } });
            let body = json!({ "policy": { "phases": phases } });
            part(
                format!("lifecycle policy {prefix}"),
                format!("_ilm/policy/{prefix}"),
                true,
                body,
                |body, mark| {
                    body["policy"]["_meta"] = json!({ "mark": mark });
                },
            )
        }
        Flavor::OpenSearch => {
            let patterns: Vec<String> = Kind::ALL.iter().map(|kind| format!("{prefix}-{kind}-*")).collect();
            let body = json!({ "policy": {
                "default_state": "kept",
                "states": [
                    { "name": "kept", "actions": [],
                      "transitions": [{ "state_name": "deleted", "conditions": { "min_index_age": age } }] },
                    { "name": "deleted", "actions": [{ "delete": {} }], "transitions": [] },
                ],
                "ism_template": [{ "index_patterns": patterns, "priority": 100 }],
            }});
            let path = format!("_plugins/_ism/policies/{prefix}");
            part(format!("lifecycle policy {prefix}"), path, true, body, |body, mark| {
                body["policy"]["description"] = format!("Deletes old records of aiops ({mark})").into();
            })
        }
    }
}

fn template(flavor: Flavor, prefix: &str, kind: Kind) -> Part {
    let mut settings = json!({ "number_of_shards": 1, "auto_expand_replicas": "0-1" });
    if flavor == Flavor::Elasticsearch {
        settings["index.lifecycle.name"] = prefix.into();
    }
    let name = format!("{prefix}-{kind}");
    let body = json!({
        "index_patterns": [format!("{name}-*")],
        "priority": 500,
        "template": { "settings": settings, "mappings": { "dynamic": false, "properties": properties(kind) } },
    });
    part(format!("index template {name}"), format!("_index_template/{name}"), false, body, |body, mark| {
        body["_meta"] = json!({ "mark": mark });
    })
}

/// What can be searched for; the rest is kept and shown.
fn properties(kind: Kind) -> Value {
    let typed = |kind: &str, names: &[&str]| -> Vec<(String, Value)> {
        names.iter().map(|n| ((*n).to_owned(), json!({ "type": kind }))).collect()
    };
    let (dates, words, texts, numbers): (&[&str], &[&str], &[&str], &[&str]) = match kind {
        Kind::Incident => (
            &["started_at", "opened_at", "updated_at", "last_signal_at", "resolved_at"],
            &["id", "state", "severity", "service", "suppressed"],
            &["title", "resolved_by"],
            &["alert_count", "firing_count", "version", "episode"],
        ),
        Kind::Diagnosis => (
            &["created_at"],
            &["id", "incident_id", "tier", "model"],
            &["summary"],
            &["latency_ms", "tokens_in", "tokens_out"],
        ),
        Kind::Audit => (&["at"], &["action", "object", "previous", "hash"], &[], &["seq"]),
    };
    let mut all: serde_json::Map<String, Value> = typed("date", &[&["@timestamp"][..], dates].concat())
        .into_iter()
        .chain(typed("keyword", words))
        .chain(typed("text", texts))
        .chain(typed("long", numbers))
        .collect();
    let object = |fields: Vec<(String, Value)>| json!({ "properties": fields.into_iter().collect::<serde_json::Map<_, _>>() });
    match kind {
        Kind::Incident => {
            all.insert("flapping".into(), json!({ "type": "boolean" }));
            all.insert("acknowledged_by".into(), object(typed("keyword", &["via", "id", "name"])));
        }
        Kind::Diagnosis => {
            all.insert("cost_usd".into(), json!({ "type": "double" }));
            let claims = typed("text", &["text"]).into_iter().chain(typed("keyword", &["evidence"]));
            all.insert("claims".into(), object(claims.collect()));
            let missing = typed("text", &["reason"]).into_iter().chain(typed("keyword", &["source"]));
            all.insert("missing".into(), object(missing.collect()));
        }
        Kind::Audit => {
            all.insert("actor".into(), object(typed("keyword", &["via", "id", "name"])));
        }
    }
    Value::Object(all)
}

/// For the message about a field that is text: most have a keyword beside it.
pub fn keyword_of(field: &str, fields: &Fields) -> Option<String> {
    let is_message = field == fields.message || field == fields.time;
    (!is_message && !field.ends_with(".keyword")).then(|| format!("{field}.keyword"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flavor_gets_its_own_lifecycle() {
        let day = Duration::from_secs(86_400);
        let ilm = policy(Flavor::Elasticsearch, "ops", 90 * day);
        assert_eq!(ilm.path, "_ilm/policy/ops");
        assert_eq!(ilm.body["policy"]["phases"]["delete"]["min_age"], "2160h");
        assert_eq!(ilm.body["policy"]["_meta"]["mark"], ilm.mark);
        let ism = policy(Flavor::OpenSearch, "ops", 90 * day);
        assert_eq!(ism.path, "_plugins/_ism/policies/ops");
        assert_eq!(ism.body["policy"]["states"][0]["transitions"][0]["conditions"]["min_index_age"], "2160h");
        assert_eq!(ism.body["policy"]["ism_template"][0]["index_patterns"][0], "ops-incidents-*");
        let template = |flavor| template(flavor, "ops", Kind::Audit).body;
        let settings = |flavor| template(flavor)["template"]["settings"]["index.lifecycle.name"].clone();
        assert_eq!(
            (settings(Flavor::Elasticsearch), settings(Flavor::OpenSearch)),
            (json!("ops"), Value::Null)
        );
        let other = policy(Flavor::OpenSearch, "ops", 91 * day);
        assert_ne!(other.mark, ism.mark, "a change of the settings shows");
    }
}
