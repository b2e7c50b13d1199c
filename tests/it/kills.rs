//! `kill -9` at seeded moments of a small storm: what was acknowledged has its incident and its messages, and no step that
//! must not be repeated is done twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    fakes::telegram::{TOKEN, Telegram},
    peers,
    service::Service,
};

const SEEDS: u64 = 20;
const SERVICES: u64 = 4;
const CHAT: i64 = -100_300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_and_repeats_nothing_on_sqlite() {
    let seeds: Vec<u64> = (0..SEEDS).collect();
    for at_once in seeds.chunks(5) {
        join_all(at_once.iter().map(|seed| storm(*seed, ""))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_and_repeats_nothing_on_postgresql() {
    join_all((100..100 + SEEDS / 4).map(async |seed| {
        let url = peers::Postgres::database().await;
        storm(seed, &format!("store: {{url: '{url}'}}\n")).await;
    }))
    .await;
}

async fn storm(seed: u64, store: &str) {
    let telegram = Telegram::start(&[CHAT]);
    let dir = peers::scratch("kills");
    let done = dir.join("done");
    let mut service = Service::start_in(&dir, &settings(&dir, store, telegram.url())).await;
    let mut random = Random(seed);
    let moment = Duration::from_millis(random.below(1800));

    let begun = Instant::now();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let mut killed = false;
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if !killed && begun.elapsed() >= moment {
            service.child.kill();
            service.child.restart().await;
            killed = true;
        }
        // The sender repeats what was not acknowledged, as Alertmanager does; and, being one of two, also some that were.
        for n in 0..SERVICES {
            if (!acknowledged.contains(&n) || random.below(4) == 0)
                && service.try_post("/api/v1/webhooks/alertmanager", &payload(seed, n)).await == Some(200)
            {
                acknowledged.insert(n);
            }
        }
        approve_all(&service).await;
        if killed && acknowledged.len() as u64 == SERVICES && settled(&service).await {
            break;
        }
        assert!(Instant::now() < deadline, "seed {seed} does not settle\n{}", service.child.log());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    check(seed, &service, &telegram, &done).await;
}

/// Approves whatever is asked.
async fn approve_all(service: &Service) {
    let page = service.get("/api/v1/approvals?state=pending").await;
    for a in page["items"].as_array().expect("a list") {
        let path = format!("/api/v1/approvals/{}/approve", a["id"].as_str().expect("an id"));
        service.try_post(&path, &json!({ "plan_hash": a["plan_hash"] })).await;
    }
}

/// Every incident has a run that is over or waits for a human, and every message is delivered.
async fn settled(service: &Service) -> bool {
    let page = service.get("/api/v1/incidents").await;
    let items = page["items"].as_array().expect("a list").clone();
    let mine: Vec<&Value> = items.iter().filter(|i| i["service"] != "aiops").collect();
    if (mine.len() as u64) < SERVICES {
        return false;
    }
    for i in mine {
        let whole = service.get(&format!("/api/v1/incidents/{}", i["id"].as_str().expect("an id"))).await;
        let run = whole["runs"][0]["state"].as_str().unwrap_or_default();
        let over = ["succeeded", "needs_human", "failed"].contains(&run);
        let told = whole["messages"].as_array().is_some_and(|m| m.iter().all(|m| m["state"] == "delivered"));
        if !over || !told {
            return false;
        }
    }
    true
}

async fn check(seed: u64, service: &Service, telegram: &Telegram, done: &Path) {
    let alerts = service.get("/api/v1/alerts").await;
    let alerts = alerts["items"].as_array().expect("a list");
    let mut incidents = BTreeMap::new();
    for n in 0..SERVICES {
        let name = format!("svc-{seed}-{n}");
        let alert = alerts.iter().find(|a| a["labels"]["service"] == name.as_str());
        let alert = alert.unwrap_or_else(|| panic!("seed {seed}: the acknowledged alert of {name} is gone"));
        let incident = alert["incident_id"].as_str();
        incidents.insert(name, incident.expect("an acknowledged alert has an incident").to_owned());
    }
    let told = telegram.messages();
    for (name, incident) in &incidents {
        let posts = told.iter().filter(|m| m.text.contains(&incident[incident.len() - 6..])).count();
        assert!(
            (1..=2).contains(&posts),
            "seed {seed}: {posts} messages about {name}; one, and at most one twice a kill"
        );
    }
    let duplicates = told.len().saturating_sub(incidents.len());
    assert!(duplicates <= 1, "seed {seed}: {duplicates} duplicates after one kill: {told:#?}");

    let lines = std::fs::read_to_string(done).unwrap_or_default();
    for (name, incident) in &incidents {
        let times = lines.lines().filter(|l| l == name).count();
        let whole = service.get(&format!("/api/v1/incidents/{incident}")).await;
        let run = &whole["runs"][0];
        assert!(times <= 1, "seed {seed}: the step of {name} was done {times} times");
        if run["state"] == "succeeded" {
            assert_eq!(times, 1, "seed {seed}: {name} says succeeded, and nothing was done");
        } else {
            assert_eq!(run["state"], "needs_human", "seed {seed}: {run:#}");
        }
        assert_eq!(whole["runs"].as_array().map(Vec::len), Some(1), "seed {seed}: one approval, one run");
    }
}

fn settings(dir: &Path, store: &str, telegram: &str) -> String {
    let playbooks = dir.join("playbooks");
    std::fs::create_dir(&playbooks).expect("writable");
    let record = dir.join("record");
    std::fs::write(&record, format!("#!/bin/sh\nsleep 0.1\necho \"$1\" >> {}\n", dir.join("done").display()))
        .expect("writable");
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(playbooks.join("record.yaml"), PLAYBOOK).expect("writable");
    format!(
        "{store}playbooks: {{dir: '{}', executables: ['{}']}}\n\
         notify:\n  first_delay: 200ms\n  telegram: {{token: '{TOKEN}', \
         api: '{telegram}', chat_id: {CHAT}, allowed_users: [7], poll: 1s}}\n",
        playbooks.display(),
        record.display()
    )
}

/// Writing a line twice is what must not happen, so the step is not idempotent.
const PLAYBOOK: &str = "\
id: record
title: Record {{ service }}
description: Writes one line for the service.
match:
  - labels: {alertname: Killable}
params:
  service: {type: string, from: incident service, pattern: '[a-z0-9-]{1,40}'}
target: record/{{ service }}
read_only: true
steps:
  - id: write
    run: {command: [record, '{{ service }}']}
    timeout: 10s
";

fn payload(seed: u64, n: u64) -> Value {
    let service = format!("svc-{seed}-{n}");
    let starts_at = format!("2026-01-01T00:00:{n:02}Z");
    json!({
        "receiver": "aiops", "status": "firing", "version": "4", "groupKey": "{}", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
        "alerts": [{
            "status": "firing",
            "labels": { "alertname": "Killable", "service": service, "severity": "critical" },
            "annotations": { "summary": format!("{service} is down") },
            "startsAt": starts_at, "endsAt": "0001-01-01T00:00:00Z", "generatorURL": ""
        }]
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same storm.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
