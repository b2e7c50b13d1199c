//! What replicas share beside the database, all of it real: Redis for the telemetry, OpenSearch for the logs, and a shipper that
//! sends each line to both, to whichever replica comes next.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fakes::{self, Answer, Request},
    peers::{self, OpenSearch, Redis},
    search::{eventually, unique},
    service::Service,
};

const LONG: Duration = Duration::from_secs(30);

pub struct Shared {
    redis: Redis,
    search: &'static OpenSearch,
    /// Where the shipper puts the lines.
    index: String,
    /// Of the indices with our own records.
    prefix: String,
}

impl Shared {
    pub async fn start() -> Self {
        let (redis, search) = tokio::join!(Redis::start(), OpenSearch::shared());
        let (index, prefix) = (unique("shop"), unique("aiops"));
        search.log_index(&index).await;
        Self { redis, search, index, prefix }
    }

    /// The sections of the settings that name them.
    pub fn settings(&self) -> String {
        format!(
            "redis: {{url: '{}'}}\n\
             elasticsearch: {{urls: ['{}'], logs: {{index: '{}'}}, export: {{prefix: '{}'}}}}\n",
            self.redis.url, self.search.url, self.index, self.prefix
        )
    }

    /// Makes OpenSearch ready for our records, as the manual says.
    pub fn make_ready(&self, dir: &Path) {
        let config = dir.join("aiops.yaml");
        let (_, out, error) =
            crate::cli::run(dir, &["check", "--fix", "--config", config.to_str().expect("UTF-8")]);
        for kind in ["incidents", "diagnoses", "audit"] {
            let template = format!("index template {}-{kind}", self.prefix);
            let line = out.lines().find(|l| l.contains(&template));
            assert!(line.is_some_and(|l| l.contains("was installed")), "{template}\n{out}\n{error}");
        }
    }

    /// A log shipper with two outputs, in front of these replicas.
    pub fn shipper(&self, replicas: Vec<String>) -> fakes::Server {
        let (http, turn) = (peers::http(), Arc::new(AtomicUsize::new(0)));
        let bulk = format!("{}/{}/_bulk?refresh=true", self.search.url, self.index);
        fakes::serve(move |request: Request| {
            let (http, bulk) = (http.clone(), bulk.clone());
            let next = turn.fetch_add(1, Ordering::Relaxed) % replicas.len();
            let to = format!("{}{}", replicas[next], request.path);
            async move {
                if request.path == "/api/v1/logs" {
                    let lines =
                        request.json().and_then(|v| v.as_array().cloned()).expect("an array of lines");
                    let body: String =
                        lines.iter().map(|line| format!("{}\n{line}\n", json!({ "index": {} }))).collect();
                    let sent = http.post(bulk).header("content-type", "application/x-ndjson").body(body);
                    let answer = sent.timeout(LONG).send().await.expect("OpenSearch answers");
                    let answer: Value = answer.json().await.expect("JSON");
                    assert_eq!(answer["errors"], false, "{answer}");
                }
                let sent = http
                    .post(to)
                    .header("authorization", request.authorization)
                    .header("content-type", request.content_type)
                    .body(request.body)
                    .timeout(LONG);
                match sent.send().await {
                    Ok(answer) => Answer::text(answer.status().as_u16(), ""),
                    Err(e) => Answer::text(502, &e.to_string()),
                }
            }
        })
    }

    /// The telemetry went through Redis, every partition has one owner, and nothing was lost on the way.
    pub async fn telemetry_went_through_redis(&self, replicas: &[&Service]) {
        for replica in replicas {
            let bus = &replica.get("/api/v1/status").await["bus"];
            assert_eq!((&bus["kind"], &bus["dead_letters"]), (&"redis".into(), &0.into()), "{bus:#}");
            for partition in bus["partitions"].as_array().expect("a list") {
                assert!(partition["owner"].is_string() && partition["gaps"] == 0, "{bus:#}");
            }
        }
    }

    /// Every replica finds the shop's lines where the shipper put them.
    pub async fn lines_are_found(&self, replicas: &[&Service]) {
        for replica in replicas {
            let page = replica.get("/api/v1/logs?service=checkout&level=error&text=pool+exhausted").await;
            let first = &page["items"][0]["message"];
            assert!(first.as_str().is_some_and(|m| m.contains("connection pool exhausted")), "{page:#}");
        }
    }

    /// The incident with its end, its diagnoses and the approval are in indices of ours.
    pub async fn records_are_exported(&self, incident: &str) {
        eventually("the resolved incident in its index", async || {
            let found = self.records("incidents", &json!({ "term": { "id": incident } })).await;
            found.iter().any(|r| r["state"] == "resolved").then_some(())
        })
        .await;
        eventually("its diagnoses", async || {
            let found = self.records("diagnoses", &json!({ "term": { "incident_id": incident } })).await;
            (!found.is_empty()).then_some(())
        })
        .await;
        eventually("the approval in the audit trail", async || {
            let found = self.records("audit", &json!({ "term": { "action": "approve" } })).await;
            (!found.is_empty()).then_some(())
        })
        .await;
    }

    async fn records(&self, kind: &str, query: &Value) -> Vec<Value> {
        let index = format!("{}-{kind}-*", self.prefix);
        self.search.send(Method::POST, &format!("{index}/_refresh"), None).await;
        let path = format!("{index}/_search?ignore_unavailable=true&allow_no_indices=true");
        let (_, found) = self.search.send(Method::POST, &path, Some(&json!({ "query": query }))).await;
        let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
        hits.into_iter().map(|hit| hit["_source"].clone()).collect()
    }
}
