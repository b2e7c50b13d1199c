//! An Elasticsearch (here OpenSearch) that is down, slow, or red: alerts become incidents and are diagnosed all the same, the
//! diagnosis names what it could not see, and what can be asked again is asked again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};

use super::{PATIENCE, send_until_taken};
use crate::{
    peers::{self, OpenSearch, http},
    search::unique,
    service::Service,
};

/// A service that looks for logs there.
struct Looking {
    service: Service,
    alerts: usize,
}

impl Looking {
    async fn at(url: &str, index: &str) -> Self {
        // The breaker tries again soon, and a machine with other work gets what time there may be.
        let yaml = format!(
            "log: {{filter: warn}}\nnotify: {{stdout: {{when: never}}}}\nbreaker: {{open: 1s, open_max: 1s}}\n\
             diagnose: {{evidence_timeout: 1700ms}}\nelasticsearch: {{urls: ['{url}'], logs: {{index: '{index}'}}}}\n"
        );
        let service = Service::start_in(&peers::scratch("elasticsearch"), &yaml).await;
        Self { service, alerts: 0 }
    }

    /// An alert of another service becomes an incident with a diagnosis; what that says it could not see of the logs.
    async fn gaps(&mut self) -> Vec<String> {
        self.alerts += 1;
        let name = format!("service{}", self.alerts);
        send_until_taken(&self.service, &name).await;
        let id = |page: &Value| {
            let incident = page["items"].as_array()?.iter().find(|i| i["service"] == name.as_str())?;
            incident["id"].as_str().map(str::to_owned)
        };
        let id = self.service.until(PATIENCE, "/api/v1/incidents?limit=1000", "an incident", id).await;
        let reasons = |incident: &Value| -> Option<Vec<String>> {
            let missing = incident["diagnoses"][0]["missing"].as_array()?.iter();
            let reason = |m: &Value| m["reason"].as_str().expect("a reason").to_owned();
            Some(missing.filter(|m| m["source"] == "logs").map(reason).collect())
        };
        self.service.until(PATIENCE, &format!("/api/v1/incidents/{id}"), "a diagnosis", reasons).await
    }

    /// Alert after alert, until a diagnosis names this gap; all of them name one.
    async fn gap(&mut self, beginning: &str) {
        let begun = Instant::now();
        loop {
            let gaps = self.gaps().await;
            assert!(!gaps.is_empty(), "nobody can have answered");
            if gaps.iter().any(|g| g.starts_with(beginning)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "instead of {beginning}: {gaps:?}");
        }
    }

    /// Alert after alert, until a diagnosis could see all.
    async fn sees_all(&mut self) {
        let begun = Instant::now();
        loop {
            let gaps = self.gaps().await;
            if gaps.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "still {gaps:?}");
        }
    }

    /// What a person who searches is told.
    async fn search(&self) -> (u16, String) {
        let request = http().get(format!("{}/api/v1/logs?text=x", self.service.url));
        let answer = request.bearer_auth(self.service.token()).send().await.expect("the service answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_down_is_a_gap_of_the_diagnosis_until_it_is_back() {
    let mut server = OpenSearch::start(&[]).await;
    server.log_index("logs-shop").await;
    let mut looking = Looking::at(&server.url, "logs-*").await;
    looking.sees_all().await;
    server.child.kill();
    looking.gap("cannot be reached: ").await;
    let (status, said) = looking.search().await;
    assert_eq!(status, 503, "{said}");
    server.child.restart().await;
    looking.sees_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_slow_delays_no_diagnosis_and_is_left_alone_for_a_while() {
    let server = OpenSearch::shared().await;
    let index = unique("logs");
    server.log_index(&index).await;
    let (slow, url) = slow_proxy(&server.url).await;
    let mut looking = Looking::at(&url, &index).await;
    looking.sees_all().await;
    slow.store(true, Ordering::Release);
    looking.gap("timed out after ").await;
    looking.gap("circuit open").await;
    slow.store(false, Ordering::Release);
    looking.sees_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_red_is_a_gap_of_the_diagnosis_until_its_parts_are_back() {
    let server = OpenSearch::shared().await;
    let index = unique("logs");
    server.log_index(&index).await;
    let nobody = |name: Value| json!({ "index.routing.allocation.require._name": name });
    let red = format!("{index}-red");
    let apart = json!({ "settings": { "number_of_shards": 1, "number_of_replicas": 0 } });
    server.put(&red, apart).await;
    let mut looking = Looking::at(&server.url, &format!("{index}*")).await;
    looking.sees_all().await;
    // Closed, bound to a node that is not there, opened again: it is found nowhere.
    server.post(&format!("{red}/_close")).await;
    server.put(&format!("{red}/_settings"), nobody("nobody".into())).await;
    server.post(&format!("{red}/_open?wait_for_active_shards=0")).await;
    looking.gap("1 of 3 parts of the index did not answer").await;
    server.put(&format!("{red}/_settings"), nobody(Value::Null)).await;
    looking.sees_all().await;
}

/// Passes on what is asked; answers are held back while it is slow.
async fn slow_proxy(url: &str) -> (Arc<AtomicBool>, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (slow, to) = (Arc::new(AtomicBool::new(false)), url.trim_start_matches("http://").to_owned());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = format!("http://{}", listener.local_addr().expect("bound"));
    let switch = slow.clone();
    tokio::spawn(async move {
        while let Ok((asking, _)) = listener.accept().await {
            let (to, slow) = (to.clone(), switch.clone());
            tokio::spawn(async move {
                let answering = tokio::net::TcpStream::connect(to).await.expect("it runs");
                let (mut asked, mut back) = asking.into_split();
                let (mut answers, mut on) = answering.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut asked, &mut on).await });
                let mut buffer = vec![0; 65536];
                while let Ok(n @ 1..) = answers.read(&mut buffer).await {
                    while slow.load(Ordering::Acquire) {
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    if back.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (slow, at)
}
