//! What the storm falls on: the service once or several times, four channels, a playbook whose step must not be repeated.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions,
};

use super::{Plan, sender::Doors};
use crate::{
    fakes::{
        pagerduty::{self, PagerDuty},
        slack::{self, Slack},
        telegram::{TOKEN, Telegram},
    },
    peers::{self, Smtp},
    service::Service,
};

/// A person's own chat: a group may be written to too seldom for a storm.
const CHAT: i64 = 300_300;
/// Generous: the machine may be busy, and some channels take one message a second.
const SOMETHING_HAPPENS_WITHIN: Duration = Duration::from_secs(300);

pub struct House {
    pub telegram: Telegram,
    pub slack: Slack,
    pub pagerduty: PagerDuty,
    pub smtp: Smtp,
    pub replicas: Vec<Service>,
    pub dir: PathBuf,
    /// Of PostgreSQL.
    pub url: Option<String>,
}

impl House {
    pub async fn build(plan: &Plan, replicas: usize, url: Option<String>) -> Self {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let (smtp, dir) = (Smtp::start().await, peers::scratch("kills"));
        // Patient: a provider whose answer comes too late is told again, too, and no kill would explain that.
        let settings = format!(
            "{}{}notify:\n  first_delay: 200ms\n  \
             telegram: {{token: '{TOKEN}', api: '{}', chat_id: {CHAT}, allowed_users: [7], poll: 1s, timeout: 20s, min_severity: critical}}\n  \
             slack: {{token: '{}', api: '{}', channel: {}, timeout: 20s, min_severity: critical}}\n  \
             pagerduty: {{routing_key: '{}', api: '{}', timeout: 20s, min_severity: info}}\n  \
             email: {{host: 127.0.0.1, port: {}, timeout: 20s, tls: none, from: 'aiops <aiops@example.org>', \
             to: [oncall@example.org]}}\n",
            url.as_ref().map_or_else(String::new, |url| format!("store: {{url: '{url}'}}\n")),
            playbooks(&dir),
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
        let mut all = vec![Service::start_in(&place(0), &settings).await];
        for n in 1..replicas {
            let another = all[0].another_in(&place(n), &settings).await;
            all.push(another);
        }
        println!("{} services, {} alerts, {} kills", plan.services, plan.alerts, plan.kills);
        Self { telegram, slack, pagerduty, smtp, replicas: all, dir, url }
    }

    pub fn doors(&self) -> Doors {
        Doors {
            urls: self.replicas.iter().map(|r| r.url.clone()).collect(),
            token: self.replicas[0].token(),
            http: peers::http(),
        }
    }

    /// Until every incident's story is over as far as nobody does anything more, and everybody was told.
    pub async fn settles(&self, plan: &Plan) {
        let recover = (0..plan.services).filter(|s| Plan::recovers(*s)).count();
        let (mut waits_for, mut changed) = (BTreeMap::new(), Instant::now());
        while changed.elapsed() < SOMETHING_HAPPENS_WITHIN {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self
                .counts(&[
                    ("alerts", "SELECT COUNT(*) FROM alerts WHERE incident_id IS NOT NULL AND labels LIKE '%Killable%'"),
                    ("recovered", "SELECT COUNT(*) FROM incidents WHERE state = 'resolved' AND service LIKE 'svc-%'"),
                    (
                        "without a run",
                        "SELECT COUNT(*) FROM incidents i WHERE i.state <> 'resolved' AND i.service LIKE 'svc-%' AND NOT EXISTS \
                         (SELECT 1 FROM runs r WHERE r.incident_id = i.id)",
                    ),
                    ("running", "SELECT COUNT(*) FROM runs WHERE state NOT IN ('succeeded', 'failed', 'needs_human')"),
                    (
                        "untold",
                        "SELECT COUNT(*) FROM messages m JOIN incidents i ON i.id = m.incident_id \
                         WHERE m.state = 'due' AND i.service LIKE 'svc-%'",
                    ),
                ])
                .await;
            if now != waits_for {
                (waits_for, changed) = (now, Instant::now());
            }
            let wanted = [
                ("alerts", plan.alerts),
                ("recovered", recover),
                ("without a run", 0),
                ("running", 0),
                ("untold", 0),
            ];
            if wanted.iter().all(|(name, count)| waits_for[name] == *count as i64) {
                return;
            }
        }
        let logs: Vec<String> = self.replicas.iter().map(|r| last(&r.child.log())).collect();
        panic!("{plan:?} does not settle: {waits_for:?}, {recover} are to recover\n{}", logs.join("\n"));
    }

    async fn counts(&self, queries: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::new();
        for (name, query) in queries {
            let found: Vec<(i64,)> = self.rows(query).await;
            counts.insert(*name, found[0].0);
        }
        counts
    }

    /// What the store holds, as anybody could read it.
    pub async fn rows<T>(&self, query: &str) -> Vec<T>
    where
        T: Send + Unpin,
        for<'r> T: sqlx::FromRow<'r, sqlx::postgres::PgRow> + sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>,
    {
        let query = AssertSqlSafe(query.to_owned());
        match &self.url {
            Some(url) => {
                let mut c = PgConnection::connect(url).await.expect("connects");
                sqlx::query_as(query).fetch_all(&mut c).await.expect("answers")
            }
            None => {
                let file = SqliteConnectOptions::new().filename(self.replicas[0].data.join("aiops.db"));
                let mut c: SqliteConnection = file.read_only(true).connect().await.expect("opens");
                sqlx::query_as(query).fetch_all(&mut c).await.expect("answers")
            }
        }
    }

    /// How often the step of each service was done.
    pub fn steps(&self) -> BTreeMap<String, usize> {
        let mut steps = BTreeMap::new();
        for line in std::fs::read_to_string(self.dir.join("done")).unwrap_or_default().lines() {
            *steps.entry(line.to_owned()).or_default() += 1;
        }
        steps
    }
}

fn last(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The settings for them.
fn playbooks(dir: &Path) -> String {
    let playbooks = dir.join("playbooks");
    std::fs::create_dir(&playbooks).expect("writable");
    let record = dir.join("record");
    std::fs::write(&record, format!("#!/bin/sh\nsleep 0.1\necho \"$1\" >> {}\n", dir.join("done").display()))
        .expect("writable");
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(playbooks.join("record.yaml"), PLAYBOOK).expect("writable");
    format!("playbooks: {{dir: '{}', executables: ['{}']}}\n", playbooks.display(), record.display())
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
