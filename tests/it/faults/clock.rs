//! A wall clock that is set while the program runs.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{PATIENCE, all_have_incidents, send_until_taken};
use crate::{peers, service::Service};

/// Stands between the program and the system, and adds to the time of day what a file says; the monotonic clock runs as it is.
fn wrong_clock(file: &Path) -> [(&'static str, String); 4] {
    let library = ["x86_64", "aarch64"]
        .map(|arch| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime is installed: tests/deps.sh");
    [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

struct Clock {
    service: Service,
    file: std::path::PathBuf,
}

impl Clock {
    async fn start(yaml: &str) -> Self {
        let dir = peers::scratch("clock");
        let file = dir.join("clock");
        fs::write(&file, "+0").expect("writable");
        let env = wrong_clock(&file);
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let service = Service::start_under(&dir, yaml, &[], &env).await;
        Self { service, file }
    }

    /// In one move, so that nobody reads half of it; returns when the program has noticed.
    async fn set(&self, seconds: i64, direction: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).expect("writable");
        fs::rename(&new, &self.file).expect("the same directory");
        let line = format!("aiops_clock_steps_total{{direction=\"{direction}\"}} 1");
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.metrics().await.contains(&line) {
            assert!(std::time::Instant::now() < deadline, "unnoticed\n{}", self.service.child.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn metrics(&self) -> String {
        let answer = peers::http().get(format!("{}/metrics", self.service.url)).send().await;
        answer.expect("it answers").text().await.expect("text")
    }

    async fn alert(&self, name: &str) -> Value {
        let page = self.service.get("/api/v1/alerts?limit=200").await;
        let items = page["items"].as_array().expect("a list").clone();
        items.into_iter().find(|a| a["labels"]["service"] == name).expect("it was taken")
    }

    /// Asks about an incident of this service; the approval, once it is there.
    async fn question(&self, name: &str) -> Value {
        send_until_taken(&self.service, name).await;
        self.service
            .until(PATIENCE, "/api/v1/approvals?state=pending", "a question", |page| {
                let items = page["items"].as_array()?;
                items.iter().find(|a| a["plan"]["params"]["service"] == name).cloned()
            })
            .await
    }

    async fn approve(&self, approval: &Value) -> Option<u16> {
        let path = format!("/api/v1/approvals/{}/approve", approval["id"].as_str().expect("an id"));
        self.service.try_post(&path, &json!({ "plan_hash": approval["plan_hash"] })).await
    }
}

/// A playbook that fits every alert of these tests, and writes down that it ran.
fn playbooks() -> String {
    let dir = peers::scratch("clock-playbooks");
    let text = "\
id: note
title: Note that {{ service }} was down
description: Says its name.
match:
  - labels: {alertname: Down}
params:
  service: {type: string, from: incident service, pattern: '[a-z]{1,40}'}
target: note/{{ service }}
read_only: true
steps:
  - id: note
    run: {command: [echo, '{{ service }}']}
    timeout: 10s
";
    fs::write(dir.join("note.yaml"), text).expect("writable");
    format!("playbooks: {{dir: {}, executables: [/bin/echo]}}\n", dir.display())
}

#[tokio::test]
async fn a_clock_set_forward_expires_questions_and_ends_no_alert_that_is_repeated() {
    let clock = Clock::start(&playbooks()).await;
    let asked = clock.question("checkout").await;
    clock.set(3600, "forward").await;

    assert_eq!(clock.approve(&asked).await, Some(409), "the half hour of the question is over");
    clock
        .service
        .until(PATIENCE, "/api/v1/approvals?state=expired", "the question's end", |page| {
            page["items"].as_array()?.iter().any(|a| a["id"] == asked["id"]).then_some(())
        })
        .await;
    send_until_taken(&clock.service, "payments").await;
    all_have_incidents(&clock.service, &["payments".to_owned()]).await;
    // Five minutes without a repeat would end it, and the sweep comes every five seconds: nobody had five minutes.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(clock.alert("checkout").await["state"], "firing");
    let runs = clock.service.get("/api/v1/runs").await;
    assert_eq!(runs["items"], json!([]), "nothing ran that nobody has approved");
}

#[tokio::test]
async fn a_clock_set_back_delays_neither_jobs_nor_messages_nor_the_end_of_a_question() {
    let clock = Clock::start(&playbooks()).await;
    let asked = clock.question("checkout").await;
    let late = clock.question("search").await;
    clock.set(-3600, "back").await;

    send_until_taken(&clock.service, "payments").await;
    all_have_incidents(&clock.service, &["payments".to_owned()]).await;
    let expires = |a: &Value| a["expires_at"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let approvals = clock.service.get("/api/v1/approvals?state=pending").await;
    let items = approvals["items"].as_array().expect("a list");
    let now_there = items.iter().find(|a| a["id"] == late["id"]).expect("it still waits");
    let (before, after) = (expires(&late).expect("a time"), expires(now_there).expect("a time"));
    let moved = before.duration_since(after).as_secs();
    assert!((3590..=3610).contains(&moved), "it ends when it was meant to: moved by {moved} s");

    assert_eq!(clock.approve(&asked).await, Some(200), "what was asked can be answered");
    clock
        .service
        .until(PATIENCE, "/api/v1/runs", "the approved run", |page| {
            page["items"].as_array()?.iter().any(|r| r["state"] == "succeeded").then_some(())
        })
        .await;
    let status = clock.service.get("/api/v1/status").await;
    assert!(status["queues"]["jobs_overdue_seconds"].as_u64() < Some(30), "{status:#}");
}
