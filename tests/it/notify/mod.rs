//! What people are told: one message for each incident and channel, whatever the providers do.

mod email;
mod outbox;
mod pagerduty;
mod slack;
mod telegram;

use std::{sync::Arc, time::Duration};

use aiops::{
    clock,
    config::{self, Secret, Settings, SmtpTls, StdoutWhen},
    correlate,
    model::*,
    notify::{self, Deps, deliver_due},
    store::{Store, approvals, decisions, diagnoses, evidence, inbox, incidents, messages, runs, timeline},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    fakes::{self, Answer, pagerduty::PagerDuty, slack::Slack, telegram::Telegram},
    peers,
    stores::{self, on_both_stores},
};

pub const CHAT: i64 = -5000;

pub fn quiet() -> Settings {
    let mut settings = Settings::default();
    settings.notify.stdout.when = StdoutWhen::Never;
    settings.notify.first_delay = Duration::ZERO;
    settings
}

pub fn to_telegram(settings: &mut Settings, fake: &Telegram) {
    settings.notify.telegram = config::Telegram {
        token: Secret::new(fakes::telegram::TOKEN),
        api: fake.url().into(),
        chat_id: CHAT,
        allowed_users: vec![42],
        timeout: Duration::from_secs(2),
        poll: Duration::from_secs(1),
        ..config::Telegram::default()
    };
}

pub fn to_slack(settings: &mut Settings, fake: &Slack) {
    settings.notify.slack = config::Slack {
        token: Secret::new(fakes::slack::TOKEN),
        api: fake.api(),
        channel: fakes::slack::CHANNEL.into(),
        signing_secret: Secret::new("8f742231b10e8888abcd99yyyzzz85a5"),
        allowed_users: vec!["U042".into()],
        timeout: Duration::from_secs(2),
        ..config::Slack::default()
    };
}

fn to_pagerduty(settings: &mut Settings, fake: &PagerDuty) {
    settings.notify.pagerduty = config::PagerDuty {
        routing_key: Secret::new(fakes::pagerduty::ROUTING_KEY),
        api: fake.url().into(),
        timeout: Duration::from_secs(2),
        ..config::PagerDuty::default()
    };
}

pub fn to_email(settings: &mut Settings, port: u16, to: &[&str]) {
    settings.notify.email = config::Email {
        host: "127.0.0.1".into(),
        port,
        tls: SmtpTls::None,
        from: "aiops <aiops@example.org>".into(),
        to: to.iter().map(|a| (*a).to_owned()).collect(),
        timeout: Duration::from_secs(5),
        ..config::Email::default()
    };
}

pub fn deps(store: &Store, settings: &Settings) -> Deps {
    Deps::new(store.clone(), settings).expect("the settings are right")
}

/// An open incident, owed to every channel.
pub async fn open(store: &Store, settings: &Settings, title: &str) -> Incident {
    let now = clock::now();
    let incident = Incident {
        id: aiops::ids::new(),
        state: IncidentState::Open,
        severity: Severity::Critical,
        title: title.into(),
        service: "checkout".into(),
        started_at: now,
        opened_at: now,
        updated_at: now,
        last_signal_at: now,
        resolved_at: None,
        alert_count: 1,
        firing_count: 1,
        version: 1,
        episode: 1,
        flapping: false,
        suppressed: None,
        acknowledged_by: None,
        resolved_by: None,
    };
    let mut tx = store.write().await.expect("a transaction");
    incidents::save_held(&mut tx, &[&incident.clone().into()]).await.expect("inserted");
    messages::owe(&mut tx, &[&incident.id], &notify::channel_names(settings), now).await.expect("owed");
    tx.commit().await.expect("committed");
    incident
}

/// A clock of the test's own: the limits of the channels need seconds that nobody wants to wait for.
#[derive(Debug)]
pub struct Clock(Timestamp);

impl Clock {
    pub fn new() -> Self {
        Self(clock::now())
    }
    /// Some seconds later, everything due is delivered.
    pub async fn deliver(&mut self, deps: &Deps, seconds: u64) -> usize {
        self.0 = clock::after(self.0.max(clock::now()), Duration::from_secs(seconds));
        deliver_due(deps, self.0).await.expect("the store works")
    }
}

fn plan() -> Plan {
    Plan {
        playbook: "restart-service".into(),
        title: "Restart checkout".into(),
        params: Default::default(),
        target: "checkout-1".into(),
        steps: vec![PlanStep {
            id: "restart".into(),
            action: Action::Command {
                argv: vec!["systemctl".into(), "restart".into(), "checkout <1>".into()],
            },
            timeout: Duration::from_secs(10),
            idempotent: true,
            retries: 0,
        }],
        verify: None,
        rollback: Vec::new(),
        guards: Guards::default(),
        on_failure: "Call the database team.".into(),
    }
}

fn run(incident_id: &str, state: RunState) -> Run {
    let plan = plan();
    Run {
        id: aiops::ids::new(),
        incident_id: Some(incident_id.into()),
        state,
        plan_hash: plan.hash(),
        plan,
        allowed_by: Actor { via: "telegram".into(), id: "42".into(), name: Some("@ann".into()) },
        started_at: clock::now(),
        finished_at: None,
        outcome: "step restart was under way when the service ended".into(),
        steps: Vec::new(),
    }
}

pub async fn propose(store: &Store, id: &str) -> Approval {
    propose_for(store, id, Duration::from_secs(900)).await
}

/// A question that may be answered for so long.
pub async fn propose_for(store: &Store, id: &str, time: Duration) -> Approval {
    let plan = plan();
    let approval = Approval {
        id: aiops::ids::new(),
        incident_id: id.into(),
        state: ApprovalState::Pending,
        plan_hash: plan.hash(),
        plan,
        requested_at: clock::now(),
        expires_at: clock::after(clock::now(), time),
        decided_by: None,
        decided_at: None,
        reason: None,
    };
    let mut tx = store.write().await.expect("a transaction");
    approvals::insert(&mut tx, &approval).await.expect("inserted");
    incidents::touch(&mut tx, id).await.expect("touched");
    tx.commit().await.expect("committed");
    approval
}

/// The outbox of a store with the channels of its settings, and the time of the test.
pub struct Outbox {
    pub store: Store,
    pub settings: Settings,
    deps: Deps,
    pub clock: Clock,
    _kept: Option<stores::Kept>,
}

impl Outbox {
    /// Over a new SQLite store; `set` turns channels on.
    pub async fn sqlite(set: impl FnOnce(&mut Settings)) -> Self {
        let kept = stores::sqlite().await;
        let outbox = Self::over(&kept.store, set);
        Self { _kept: Some(kept), ..outbox }
    }

    fn over(store: &Store, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = quiet();
        set(&mut settings);
        let deps = deps(store, &settings);
        Self { store: store.clone(), settings, deps, clock: Clock::new(), _kept: None }
    }

    /// Some seconds later, everything due is delivered.
    pub async fn deliver(&mut self, seconds: u64) -> usize {
        self.clock.deliver(&self.deps, seconds).await
    }
    pub async fn open(&self, title: &str) -> Incident {
        open(&self.store, &self.settings, title).await
    }
    async fn propose(&self, id: &str) -> Approval {
        propose(&self.store, id).await
    }
    /// Changes the incident so that people should see it.
    async fn change(&self, id: &str, how: impl FnOnce(&mut Incident)) {
        let mut tx = self.store.write().await.expect("a transaction");
        let mut held = incidents::hold(&mut tx, &[id]).await.expect("read").remove(0);
        how(&mut held.incident);
        incidents::save_held(&mut tx, &[&held]).await.expect("saved");
        incidents::touch(&mut tx, id).await.expect("touched");
        tx.commit().await.expect("committed");
    }
    async fn resolve(&self, id: &str) {
        self.change(id, |i| {
            i.state = IncidentState::Resolved;
            i.resolved_at = Some(clock::now());
            i.resolved_by = Some("alerts resolved".into());
            i.firing_count = 0;
        })
        .await;
    }
    pub async fn message(&self, id: &str, channel: &str) -> Message {
        let mut tx = self.store.read().await.expect("a transaction");
        let all = messages::of(&mut tx, id).await.expect("read");
        all.into_iter().find(|m| m.channel == channel).expect("it is owed")
    }
    async fn diagnose(&self, id: &str) {
        let fact = Evidence {
            id: "E1".into(),
            kind: EvidenceKind::LogAnomaly,
            source: "telemetry".into(),
            service: "checkout".into(),
            summary: "`connection refused to <*>`: 214 in 60 s, usually 0–3".into(),
            data: json!({}),
            observed_at: clock::now(),
        };
        let diagnosis = Diagnosis {
            id: aiops::ids::new(),
            incident_id: id.into(),
            tier: Tier::Rules,
            model: String::new(),
            summary: "The database refuses connections.".into(),
            claims: vec![Claim {
                text: "checkout cannot reach its database".into(),
                evidence: vec!["E1".into()],
            }],
            suggestion: None,
            missing: vec![Missing { source: "prometheus".into(), reason: "circuit open".into() }],
            attempts: Vec::new(),
            latency_ms: 300,
            tokens_in: 0,
            tokens_out: 0,
            cost_usd: 0.0,
            created_at: clock::now(),
        };
        let mut tx = self.store.write().await.expect("a transaction");
        evidence::save(&mut tx, id, &fact).await.expect("saved");
        diagnoses::save(&mut tx, &diagnosis).await.expect("saved");
        incidents::touch(&mut tx, id).await.expect("touched");
        tx.commit().await.expect("committed");
    }
    async fn status(&self, now: Timestamp) -> Vec<notify::ChannelStatus> {
        let mut tx = self.store.read().await.expect("a transaction");
        notify::status(&self.deps, &mut tx, now).await.expect("read")
    }
}
