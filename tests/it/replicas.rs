//! Three equal replicas of the service on one PostgreSQL: any of them takes alerts, what must have one owner has one, and what
//! a dead or frozen replica owned goes on elsewhere. A frozen one that wakes up writes nothing that is another's by then.

use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    time::{Duration, Instant},
};

use aiops::{
    clock,
    store::{Store, inbox},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    fakes::{
        slack::{self, Slack},
        telegram::{TOKEN, Telegram},
    },
    peers,
    service::Service,
};

const CHAT: i64 = -100_400;
const ANN: i64 = 7;
/// Generous: the machine may be busy. What it really took is printed.
const WITHIN: Duration = Duration::from_secs(120);

struct House {
    telegram: Telegram,
    slack: Slack,
    replicas: Vec<Service>,
    dir: PathBuf,
    url: String,
}

impl House {
    async fn of(count: usize) -> Self {
        let (telegram, slack) = (Telegram::start(&[CHAT]), Slack::start());
        let (dir, url) = (peers::scratch("replicas"), peers::Postgres::database().await);
        let settings = settings(&dir, &url, &telegram, &slack);
        let place = |n: usize| {
            let place = dir.join(format!("replica-{n}"));
            std::fs::DirBuilder::new().mode(0o700).create(&place).expect("the name is new");
            place
        };
        let first = Service::start_in(&place(0), &settings).await;
        let token = first.dir.join("data/admin.token");
        let others = (1..count).map(|n| {
            let place = place(n);
            // One token for all, as a secret that is mounted everywhere.
            std::fs::DirBuilder::new().mode(0o700).create(place.join("data")).expect("it is new");
            std::fs::copy(&token, place.join("data/admin.token")).expect("copied");
            let settings = settings.clone();
            async move { Service::start_in(&place, &settings).await }
        });
        let mut replicas = vec![first];
        replicas.extend(join_all(others.collect::<Vec<_>>()).await);
        Self { telegram, slack, replicas, dir, url }
    }

    async fn query(&self, query: &'static str) -> String {
        let mut c = PgConnection::connect(&self.url).await.expect("connects");
        let found: Option<String> = sqlx::query_scalar(query).fetch_optional(&mut c).await.expect("answers");
        found.unwrap_or_default()
    }

    /// The replica that calls itself so; its log says.
    fn called(&self, name: &str) -> usize {
        let found = self.replicas.iter().position(|r| !name.is_empty() && r.child.log().contains(name));
        found.unwrap_or_else(|| panic!("no replica is called {name:?}"))
    }

    async fn owner(&self, query: &'static str) -> usize {
        let begun = Instant::now();
        loop {
            let name = self.query(query).await;
            if !name.is_empty() {
                return self.called(&name);
            }
            assert!(begun.elapsed() < WITHIN, "nobody owns it: {query}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn another_than(&self, victim: usize) -> &Service {
        &self.replicas[(victim + 1) % self.replicas.len()]
    }

    fn done(&self) -> usize {
        std::fs::read_to_string(self.dir.join("done")).unwrap_or_default().lines().count()
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How a replica is lost, and how it comes back.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Frozen,
}

impl Loss {
    fn befalls(self, replica: &mut Service) -> Instant {
        match self {
            Self::Killed => replica.child.kill(),
            Self::Frozen => replica.child.signal(Signal::STOP),
        }
        Instant::now()
    }
    async fn is_over(self, replica: &mut Service) {
        match self {
            Self::Killed => replica.child.restart().await,
            Self::Frozen => {
                replica.child.signal(Signal::CONT);
                peers::wait_ready(&format!("{}/readyz", replica.url)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_senders_five_times_each_give_one_incident_and_one_message_for_each_channel() {
    let house = House::of(3).await;
    let payload = alertmanager("Down", "checkout");
    let senders = (0..3).map(|sender| {
        let (replicas, payload) = (&house.replicas, &payload);
        async move {
            for n in 0..5 {
                let to = &replicas[(sender + n) % replicas.len()];
                to.post("/api/v1/webhooks/alertmanager", payload).await;
            }
        }
    });
    join_all(senders).await;
    until("both channels were told", async || {
        house.telegram.messages().len() == 1 && house.slack.messages().len() == 1
    })
    .await;
    until("the inbox is empty", async || house.query("SELECT COUNT(*)::text FROM inbox").await == "0").await;
    // What a late one could still double, it would have doubled by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(house.query("SELECT COUNT(*)::text FROM incidents").await, "1");
    assert_eq!((house.telegram.messages().len(), house.slack.messages().len()), (1, 1));
    for replica in &house.replicas {
        let page = replica.get("/api/v1/incidents").await;
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "every replica shows it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_owned_goes_on_elsewhere() {
    goes_on_elsewhere(Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_replica_owned_goes_on_elsewhere_and_it_doubles_nothing_when_it_wakes_up() {
    goes_on_elsewhere(Loss::Frozen).await;
}

async fn goes_on_elsewhere(loss: Loss) {
    let mut house = House::of(3).await;

    let victim = house.owner("SELECT owner FROM leases WHERE name = 'telegram.poll' AND until > 0").await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    house.telegram.write(ANN, CHAT, "/status", json!({}));
    until("somebody answers in Telegram", async || !house.telegram.calls("sendMessage").is_empty()).await;
    println!("{loss:?}: Telegram was polled by another after {:?}", lost.elapsed());
    loss.is_over(&mut house.replicas[victim]).await;

    let victim = house.owner("SELECT owner FROM leases WHERE name = 'expire' AND until > 0").await;
    let ends = clock::after(clock::now(), Duration::from_secs(3));
    let alert = json!([{"labels": {"alertname": "Short", "service": "db"}, "endsAt": ends.to_string()}]);
    house.another_than(victim).post("/api/v2/alerts", &alert).await;
    let short = "SELECT state FROM alerts WHERE labels LIKE '%Short%'";
    until("it fires", async || house.query(short).await == "firing").await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    until("it is over", async || house.query(short).await == "resolved").await;
    println!("{loss:?}: an alert expired by another after {:?}", lost.elapsed());
    loss.is_over(&mut house.replicas[victim]).await;

    house.replicas[0].post("/api/v1/webhooks/alertmanager", &alertmanager("Slow", "checkout")).await;
    until("it asks", async || {
        let page = house.replicas[0].get("/api/v1/approvals?state=pending").await;
        let Some(a) = page["items"].get(0) else { return false };
        let path = format!("/api/v1/approvals/{}/approve", a["id"].as_str().expect("an id"));
        house.replicas[0].post(&path, &json!({ "plan_hash": a["plan_hash"] })).await;
        true
    })
    .await;
    until("the step is under way", async || house.dir.join("begun").exists()).await;
    let victim = house.owner("SELECT owner FROM jobs WHERE kind = 'run' AND lease_until > 0").await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    let run = "SELECT state FROM runs";
    until("a person is asked: nobody can know", async || house.query(run).await == "needs_human").await;
    println!("{loss:?}: a run was taken over by another after {:?}", lost.elapsed());
    loss.is_over(&mut house.replicas[victim]).await;
    // Longer than the step takes, and than a job's lease: whoever woke up has found out.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(house.query(run).await, "needs_human");
    assert!(house.done() <= 1, "a step that is not idempotent runs once at most");
    let about = |text: &str, service: &str| text.contains(service);
    for service in ["checkout"] {
        let posts = house.telegram.messages().iter().filter(|m| about(&m.text, service)).count();
        assert!((1..=2).contains(&posts), "one message, and at most one more for the loss: {posts}");
    }
    assert_eq!(house.query("SELECT COUNT(*)::text FROM incidents WHERE service = 'checkout'").await, "1");
}

/// It holds the lock that orders correlation. PostgreSQL ends such a session by the limit that we set.
#[tokio::test]
async fn a_replica_frozen_within_a_transaction_does_not_stop_the_others() {
    let (url, dir) = (peers::Postgres::database().await, peers::scratch("frozen"));
    let frozen = Store::open(&url, &dir).await.expect("opens");
    let living = Store::open(&url, &dir).await.expect("opens");
    let one = inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()));
    inbox::append(&frozen, &[one]).await.expect("appended");
    let (held, _) = inbox::take(&frozen, 10).await.expect("takes").expect("one waits");
    let begun = Instant::now();
    loop {
        match inbox::take(&living, 10).await {
            Ok(Some((tx, taken))) => {
                assert_eq!(taken.len(), 1);
                tx.commit().await.expect("commits");
                break;
            }
            Ok(None) | Err(_) => assert!(begun.elapsed() < WITHIN, "the inbox stands still"),
        }
    }
    println!("the others went on after {:?}", begun.elapsed());
    held.commit().await.expect_err("it woke up too late");
    frozen.write().await.expect("with a fresh connection").commit().await.expect("it works again");
}

fn settings(dir: &std::path::Path, url: &str, telegram: &Telegram, slack: &Slack) -> String {
    let playbooks = dir.join("playbooks");
    std::fs::create_dir(&playbooks).expect("writable");
    let record = dir.join("record");
    let script = format!("#!/bin/sh\ntouch {0}/begun\nsleep 4\necho \"$1\" >> {0}/done\n", dir.display());
    std::fs::write(&record, script).expect("writable");
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(playbooks.join("record.yaml"), PLAYBOOK).expect("writable");
    format!(
        "store: {{url: '{url}'}}\nplaybooks: {{dir: '{}', executables: ['{}']}}\nintake: {{expire_every: 1s}}\n\
         notify:\n  first_delay: 200ms\n  telegram: {{token: '{TOKEN}', api: '{}', chat_id: {CHAT}, \
         allowed_users: [{ANN}], poll: 1s}}\n  slack: {{token: '{}', api: '{}', channel: {}}}\n",
        playbooks.display(),
        record.display(),
        telegram.url(),
        slack::TOKEN,
        slack.api(),
        slack::CHANNEL,
    )
}

/// Writing a line twice is what must not happen, so the step is not idempotent.
const PLAYBOOK: &str = "\
id: record
title: Record {{ service }}
description: Writes one line for the service, slowly.
match:
  - labels: {alertname: Slow}
params:
  service: {type: string, from: incident service, pattern: '[a-z0-9-]{1,40}'}
target: record/{{ service }}
read_only: true
steps:
  - id: write
    run: {command: [record, '{{ service }}']}
    timeout: 10s
";

fn alertmanager(name: &str, service: &str) -> Value {
    json!({
        "receiver": "aiops", "status": "firing", "version": "4", "groupKey": "{}", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
        "alerts": [{
            "status": "firing",
            "labels": { "alertname": name, "service": service, "severity": "critical" },
            "annotations": { "summary": format!("{service} is down") },
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": ""
        }]
    })
}
