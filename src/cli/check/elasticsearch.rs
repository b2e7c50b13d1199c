//! The Elasticsearch or OpenSearch of the settings: whether it answers, holds log lines under the names that the settings give
//! their fields, and is ready for our own records. Installs what those need, if asked to.

use std::time::Instant;

use serde_json::{Value, json};

use super::finding::Findings;
use crate::{
    breaker::Breakers,
    cli::{
        Context,
        client::{Client, ServerArgs},
    },
    config::Settings,
    search::elastic::{Elastic, FieldState, PartState, keyword_of},
};

const FIX: &str = "run `aiops check --fix`";

/// Looks; with `fix` installs what is missing or not ours. True if something was installed or nothing is missing.
pub async fn check(settings: &Settings, fix: bool, findings: &mut Findings) -> bool {
    let set = &settings.elasticsearch;
    if !set.is_on() {
        if !settings.store.url.is_empty() {
            findings.advice(
                "elasticsearch.urls",
                "is not set: with PostgreSQL there are no logs to search, and no log lines around an onset as evidence",
            );
        }
        return false;
    }
    let elastic = match Elastic::new(set, &Breakers::new(&settings.breaker)) {
        Ok(elastic) => elastic,
        Err(e) => {
            findings.error("elasticsearch", format!("{e:#}"));
            return false;
        }
    };
    let started = Instant::now();
    let server = match elastic.server().await {
        Ok(server) => server,
        Err(e) => {
            findings.error("elasticsearch.urls", e.to_string());
            return false;
        }
    };
    let took = started.elapsed().as_millis();
    findings.ok("elasticsearch.urls", format!("{} answers in {took} ms", server.name));
    log_fields(settings, &elastic, findings).await;
    if !set.exports() {
        findings.advice("elasticsearch.export.prefix", "is not set: our own records are not copied there");
        return false;
    }
    let mut ready = true;
    for part in elastic.parts(&server) {
        let at = format!("elasticsearch {}", part.name);
        let state = match elastic.look(&part).await {
            Ok(state) => state,
            Err(e) => {
                ready = false;
                findings.error(at, e.to_string());
                continue;
            }
        };
        match state {
            PartState::Right => findings.ok(at, "is installed"),
            PartState::Unsupported => findings.advice(
                at,
                "this server has no index lifecycles: delete old indices yourself, or install its plugin (Index State Management)",
            ),
            PartState::Missing | PartState::Other if fix => match elastic.install(&part).await {
                Ok(()) => findings.ok(at, "was installed"),
                Err(e) => {
                    ready = false;
                    findings.error(at, format!("could not be installed: {e}"));
                }
            },
            PartState::Missing => {
                ready = false;
                findings.error(at, format!("is missing; {FIX}"));
            }
            PartState::Other => {
                ready = false;
                findings.error(at, format!("is another one: older, or somebody else's; {FIX} to replace it"));
            }
        }
    }
    ready
}

async fn log_fields(settings: &Settings, elastic: &Elastic, findings: &mut Findings) {
    let logs = &settings.elasticsearch.logs;
    let (indices, fields) = match elastic.log_fields().await {
        Ok(found) => found,
        Err(e) => return findings.error("elasticsearch.logs.index", e.to_string()),
    };
    if indices == 0 {
        let what = format!(
            "no index is called {}: ship your logs there, or name the index that has them",
            logs.index
        );
        // A pattern finds nothing until the first line has come; a name is of something that is there.
        return match logs.index.contains('*') {
            true => findings.advice("elasticsearch.logs.index", what),
            false => findings.error("elasticsearch.logs.index", what),
        };
    }
    findings.ok("elasticsearch.logs.index", format!("{} is {indices} indices", logs.index));
    for (setting, field, state) in fields {
        let at = format!("elasticsearch.logs.fields.{setting}");
        match state {
            FieldState::Right => findings.ok(at, field),
            FieldState::Missing if matches!(setting, "time" | "message" | "service") => {
                findings.error(at, format!("no index has a field {field}: name the one that holds it"));
            }
            FieldState::Missing => findings.advice(at, format!("no index has a field {field}")),
            FieldState::Wrong(kind) => {
                let keyword = keyword_of(&field, &logs.fields);
                let right = keyword.map_or(String::new(), |k| format!("; try {k}"));
                findings
                    .error(at, format!("{field} is of type {kind}, which cannot be asked for that{right}"));
            }
        }
    }
}

/// Tells a running server to try what was refused again.
pub async fn retry(args: &ServerArgs, context: &Context, findings: &mut Findings) {
    let told: Result<Value, _> = match Client::new(args, context) {
        Ok(client) => client.post("/export/retry", &json!({})).await,
        Err(e) => Err(e),
    };
    match told {
        Ok(answer) => {
            let tried = answer["tried_again"].as_u64().unwrap_or(0);
            findings.ok("export", format!("{tried} refused changes are tried again"));
        }
        Err(_) => findings.ok("export", "what was refused is tried again at the next start of the server"),
    }
}
