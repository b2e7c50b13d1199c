//! Three equal replicas of the service on one PostgreSQL: any of them takes alerts, what must have one owner has one, and what
//! a dead or frozen replica owned goes on elsewhere. A frozen one that wakes up writes nothing that is another's by then.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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
        pagerduty::{self, PagerDuty},
        slack::{self, Slack},
        telegram::{TOKEN, Telegram},
    },
    peers::{self, Smtp},
    service::Service,
};

const CHAT: i64 = -100_400;
const ANN: i64 = 7;
/// Generous: the machine may be busy.
const WITHIN: Duration = Duration::from_secs(120);
/// What a lost replica owned goes on elsewhere after so long at most.
const PROMISED: Duration = Duration::from_secs(15);

struct House {
    telegram: Telegram,
    slack: Slack,
    pagerduty: PagerDuty,
    smtp: Smtp,
    replicas: Vec<Service>,
    dir: PathBuf,
    url: String,
}

impl House {
    async fn of(count: usize) -> Self {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let (smtp, url) = tokio::join!(Smtp::start(), peers::Postgres::database());
        let dir = peers::scratch("replicas");
        let settings = format!(
            "{}  telegram: {{token: '{TOKEN}', api: '{}', chat_id: {CHAT}, allowed_users: [{ANN}], poll: 1s}}\n  \
             slack: {{token: '{}', api: '{}', channel: {}}}\n  \
             pagerduty: {{routing_key: '{}', api: '{}', min_severity: info}}\n  \
             email: {{host: 127.0.0.1, port: {}, tls: none, from: 'aiops <aiops@example.org>', to: [oncall@example.org]}}\n",
            settings(&dir, &url),
            telegram.url(),
            slack::TOKEN,
            slack.api(),
            slack::CHANNEL,
            pagerduty::ROUTING_KEY,
            pagerduty.url(),
            smtp.port,
        );
        let place = |n: usize| dir.join(format!("replica-{n}"));
        std::fs::create_dir(place(0)).expect("the name is new");
        let first = Service::start_in(&place(0), &settings).await;
        let places: Vec<PathBuf> = (1..count).map(place).collect();
        let others = join_all(places.iter().map(|place| first.another_in(place, &settings))).await;
        let replicas: Vec<Service> = std::iter::once(first).chain(others).collect();
        Self { telegram, slack, pagerduty, smtp, replicas, dir, url }
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

    /// Messages in each channel: an edited one, or an event with the same key, is no other.
    fn told(&self) -> [usize; 4] {
        let (pages, mails) = (self.pagerduty.alerts().len(), self.smtp.mails().len());
        [self.telegram.messages().len(), self.slack.messages().len(), pages, mails]
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

/// How long this machine keeps those waiting whose time has come: it may be busy with other things.
struct Stalls {
    micros: Arc<AtomicU64>,
}

impl Stalls {
    fn measured() -> Self {
        let micros = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&micros);
        std::thread::spawn(move || {
            const NAP: Duration = Duration::from_millis(10);
            while let Some(micros) = seen.upgrade() {
                let begun = Instant::now();
                std::thread::sleep(NAP);
                let late = begun.elapsed().saturating_sub(NAP);
                micros.fetch_add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { micros }
    }

    /// All since it began. Everything that is waited for here is a row of some processes' turns.
    fn so_far(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

/// Since a replica was lost.
struct Lost {
    at: Instant,
    stalls: Stalls,
}

impl Lost {
    fn now() -> Self {
        Self { at: Instant::now(), stalls: Stalls::measured() }
    }

    fn goes_on(&self, loss: Loss, what: &str) {
        let (took, stalled) = (self.at.elapsed(), self.stalls.so_far());
        println!("{loss:?}: {what} after {took:?}, of which the machine stalled {stalled:?}");
        assert!(took <= PROMISED + 3 * stalled, "{loss:?}: {what} after {took:?}");
    }
}

/// How a replica is lost, and how it comes back.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Frozen,
}

impl Loss {
    fn befalls(self, replica: &mut Service) -> Lost {
        match self {
            Self::Killed => replica.child.kill(),
            Self::Frozen => replica.child.signal(Signal::STOP),
        }
        Lost::now()
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
    // All at once: no two of them know of each other.
    let repeats = (0..3).flat_map(|sender| (0..5).map(move |n| (sender + n) % 3));
    join_all(repeats.map(|to| house.replicas[to].post("/api/v1/webhooks/alertmanager", &payload))).await;
    until("all channels were told", async || house.told().iter().all(|times| *times > 0)).await;
    until("the inbox is empty", async || house.query("SELECT COUNT(*)::text FROM inbox").await == "0").await;
    // What a late one could still double, it would have doubled by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(house.query("SELECT COUNT(*)::text FROM incidents").await, "1");
    assert_eq!(house.told(), [1; 4], "Telegram, Slack, PagerDuty, e-mail");
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

    let victim = house
        .owner(
            "SELECT owner FROM leases WHERE name = 'telegram.poll' AND until > \
             (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
        )
        .await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    house.telegram.write(ANN, CHAT, "/status", json!({}));
    until("somebody answers in Telegram", async || {
        house.telegram.calls("sendMessage").iter().any(|call| call["reply_parameters"]["message_id"] == 1)
    })
    .await;
    lost.goes_on(loss, "Telegram was polled by another");
    loss.is_over(&mut house.replicas[victim]).await;

    let victim = house
        .owner(
            "SELECT owner FROM leases WHERE name = 'expire' AND until > \
             (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
        )
        .await;
    let ends = clock::after(clock::now(), Duration::from_secs(10));
    let alert = json!([{"labels": {"alertname": "Short", "service": "db"}, "endsAt": ends.to_string()}]);
    house.another_than(victim).post("/api/v2/alerts", &alert).await;
    let short = "SELECT state FROM alerts WHERE labels LIKE '%Short%'";
    until("it is known", async || !house.query(short).await.is_empty()).await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    until("it is over", async || house.query(short).await == "resolved").await;
    lost.goes_on(loss, "an alert was ended by another");
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
    let victim = house
        .owner(
            "SELECT owner FROM jobs WHERE kind = 'run' AND lease_until > \
             (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT",
        )
        .await;
    let lost = loss.befalls(&mut house.replicas[victim]);
    let run = "SELECT state FROM runs";
    until("a person is asked: nobody can know", async || house.query(run).await == "needs_human").await;
    lost.goes_on(loss, "a run was taken over by another");
    loss.is_over(&mut house.replicas[victim]).await;
    // Longer than the step takes, and than a job's lease: whoever woke up has found out.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(house.query(run).await, "needs_human");
    assert!(house.done() <= 1, "a step that is not idempotent runs once at most");
    let posts = house.telegram.messages().iter().filter(|m| m.text.contains("checkout")).count();
    assert!((1..=2).contains(&posts), "one message, and at most one more for the loss: {posts}");
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

/// Up to the channels.
fn settings(dir: &std::path::Path, url: &str) -> String {
    let playbooks = dir.join("playbooks");
    std::fs::create_dir(&playbooks).expect("writable");
    let record = dir.join("record");
    let script = format!("#!/bin/sh\ntouch {0}/begun\nsleep 4\necho \"$1\" >> {0}/done\n", dir.display());
    std::fs::write(&record, script).expect("writable");
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(playbooks.join("record.yaml"), PLAYBOOK).expect("writable");
    format!(
        "store: {{url: '{url}'}}\nplaybooks: {{dir: '{}', executables: ['{}']}}\nintake: {{expire_every: 1s}}\n\
         notify:\n  first_delay: 200ms\n",
        playbooks.display(),
        record.display(),
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
