//! What `aiops check --fix` installs in servers that have index lifecycles: Elasticsearch, and OpenSearch with its plugin. The
//! OpenSearch of the tests comes without it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    fakes::{self, Answer, Request, Server},
    peers,
};

/// Keeps what is put there, and gives it back as the real one does.
#[derive(Clone)]
struct Keeping {
    opensearch: bool,
    kept: Arc<Mutex<BTreeMap<String, Value>>>,
    puts: Arc<Mutex<Vec<String>>>,
}

impl Keeping {
    fn start(opensearch: bool) -> (Self, Server) {
        let it = Self { opensearch, kept: Arc::default(), puts: Arc::default() };
        let server = fakes::serve({
            let it = it.clone();
            move |request| std::future::ready(it.answer(&request))
        });
        (it, server)
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut kept = self.kept.lock().expect("nothing panics under it");
        let here = |kept: &BTreeMap<String, Value>| kept.get(&request.path).cloned();
        let policies = if self.opensearch { "/_plugins/_ism/policies/" } else { "/_ilm/policy/" };
        let is_policy = request.path.starts_with(policies);
        match request.method.as_str() {
            "GET" if request.path == "/" => Answer::json(200, self.root()),
            "GET" if request.path.ends_with("/_field_caps") => {
                Answer::json(200, json!({ "indices": [], "fields": {} }))
            }
            "GET" => match here(&kept) {
                Some(body) => Answer::json(200, self.given_back(&request.path, is_policy, body)),
                None => Answer::json(404, json!({ "error": { "reason": "not found" }, "status": 404 })),
            },
            "PUT" if is_policy || request.path.starts_with("/_index_template/") => {
                let body = request.json().expect("JSON, and said to be");
                // OpenSearch replaces a policy only for those who name the version that they saw.
                if self.opensearch
                    && is_policy
                    && kept.contains_key(&request.path)
                    && !request.query.contains("if_seq_no=7&if_primary_term=1")
                {
                    return Answer::json(
                        409,
                        json!({ "error": { "reason": "version conflict" }, "status": 409 }),
                    );
                }
                kept.insert(request.path.clone(), body);
                self.puts.lock().expect("nothing panics under it").push(request.path.clone());
                Answer::json(200, json!({ "acknowledged": true }))
            }
            _ => {
                Answer::json(400, json!({ "error": format!("no handler found for uri [{}]", request.path) }))
            }
        }
    }

    fn root(&self) -> Value {
        match self.opensearch {
            true => json!({ "version": { "number": "2.19.1", "distribution": "opensearch" } }),
            false => json!({ "version": { "number": "9.1.0", "build_flavor": "default" } }),
        }
    }

    fn given_back(&self, path: &str, is_policy: bool, body: Value) -> Value {
        let name = path.rsplit('/').next().expect("a name").to_owned();
        match (is_policy, self.opensearch) {
            (true, true) => {
                json!({ "_id": name, "_version": 1, "_seq_no": 7, "_primary_term": 1, "policy": body["policy"] })
            }
            (true, false) => json!({ (name): { "version": 1, "policy": body["policy"] } }),
            (false, _) => json!({ "index_templates": [{ "name": name, "index_template": body }] }),
        }
    }

    fn put(&self) -> Vec<String> {
        std::mem::take(&mut *self.puts.lock().expect("nothing panics under it"))
    }

    fn kept(&self, path: &str) -> Value {
        self.kept.lock().expect("nothing panics under it")[path].clone()
    }
}

/// Runs `aiops check --fix` with our records kept for so long; what it says.
async fn fix(url: &str, retention: &str) -> String {
    let dir = peers::scratch("lifecycle");
    let yaml = format!(
        "data_dir: {}\nlisten: 127.0.0.1:{}\nelasticsearch: {{urls: ['{url}'], export: {{prefix: ops, retention: {retention}}}}}\n",
        dir.join("data").display(),
        peers::free_port(),
    );
    let config = dir.join("aiops.yaml");
    std::fs::write(&config, yaml).expect("writable");
    let run =
        move || crate::cli::run(&dir, &["check", "--fix", "--config", config.to_str().expect("UTF-8")]).1;
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

async fn installs(opensearch: bool, policy: &str) -> Keeping {
    let (it, server) = Keeping::start(opensearch);
    let templates = ["ops-incidents", "ops-diagnoses", "ops-audit"].map(|t| format!("/_index_template/{t}"));
    let said = fix(&server.url, "90d").await;
    assert_eq!(said.matches("was installed").count(), 4, "{said}");
    let all = [&[policy.to_owned()][..], &templates].concat();
    assert_eq!(it.put(), all, "the policy first, for templates name it");
    let said = fix(&server.url, "90d").await;
    assert_eq!((it.put(), said.matches("is installed").count()), (Vec::<String>::new(), 4), "{said}");
    let said = fix(&server.url, "30d").await;
    assert_eq!(it.put(), [policy], "what the settings changed is replaced, and nothing else: {said}");
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_gets_a_lifecycle_policy_that_its_templates_name() {
    let it = installs(false, "/_ilm/policy/ops").await;
    let policy = it.kept("/_ilm/policy/ops");
    assert_eq!(policy["policy"]["phases"]["delete"]["min_age"], "720h", "{policy}");
    let template = it.kept("/_index_template/ops-audit");
    assert_eq!(template["template"]["settings"]["index.lifecycle.name"], "ops", "{template}");
}

#[tokio::test(flavor = "multi_thread")]
async fn opensearch_gets_a_policy_of_its_own_kind_for_the_same_indices() {
    let it = installs(true, "/_plugins/_ism/policies/ops").await;
    let policy = it.kept("/_plugins/_ism/policies/ops");
    let conditions = &policy["policy"]["states"][0]["transitions"][0]["conditions"];
    assert_eq!(conditions["min_index_age"], "720h", "{policy}");
    let patterns = &policy["policy"]["ism_template"][0]["index_patterns"];
    assert_eq!(*patterns, json!(["ops-incidents-*", "ops-diagnoses-*", "ops-audit-*"]));
    let template = it.kept("/_index_template/ops-audit");
    assert_eq!(template["template"]["settings"]["index.lifecycle.name"], Value::Null, "{template}");
}
