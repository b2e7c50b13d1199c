//! What people are told: one message for each incident and channel, whatever the providers do.

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
    fakes::{
        Answer,
        pagerduty::{self, PagerDuty},
        slack::{self, Slack},
        telegram::{self, Telegram},
    },
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
        token: Secret::new(telegram::TOKEN),
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
        token: Secret::new(slack::TOKEN),
        api: fake.api(),
        channel: slack::CHANNEL.into(),
        signing_secret: Secret::new("8f742231b10e8888abcd99yyyzzz85a5"),
        allowed_users: vec!["U042".into()],
        timeout: Duration::from_secs(2),
        ..config::Slack::default()
    };
}

fn to_pagerduty(settings: &mut Settings, fake: &PagerDuty) {
    settings.notify.pagerduty = config::PagerDuty {
        routing_key: Secret::new(pagerduty::ROUTING_KEY),
        api: fake.url().into(),
        timeout: Duration::from_secs(2),
        ..config::PagerDuty::default()
    };
}

fn to_email(settings: &mut Settings, port: u16, to: &[&str]) {
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

/// Changes the incident so that people should see it.
async fn change(store: &Store, id: &str, how: impl FnOnce(&mut Incident)) {
    let mut tx = store.write().await.expect("a transaction");
    let mut held = incidents::hold(&mut tx, &[id]).await.expect("read").remove(0);
    how(&mut held.incident);
    incidents::save_held(&mut tx, &[&held]).await.expect("saved");
    incidents::touch(&mut tx, id).await.expect("touched");
    tx.commit().await.expect("committed");
}

async fn resolve(store: &Store, id: &str) {
    change(store, id, |i| {
        i.state = IncidentState::Resolved;
        i.resolved_at = Some(clock::now());
        i.resolved_by = Some("alerts resolved".into());
        i.firing_count = 0;
    })
    .await;
}

async fn message(store: &Store, id: &str, channel: &str) -> Message {
    let mut tx = store.read().await.expect("a transaction");
    let all = messages::of(&mut tx, id).await.expect("read");
    all.into_iter().find(|m| m.channel == channel).expect("it is owed")
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

async fn diagnose(store: &Store, id: &str) {
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
    let mut tx = store.write().await.expect("a transaction");
    evidence::save(&mut tx, id, &fact).await.expect("saved");
    diagnoses::save(&mut tx, &diagnosis).await.expect("saved");
    incidents::touch(&mut tx, id).await.expect("touched");
    tx.commit().await.expect("committed");
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

on_both_stores! {
    async fn one_message_is_edited_from_the_opening_to_the_end(store: Store) {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        to_slack(&mut settings, &slack);
        to_pagerduty(&mut settings, &pagerduty);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let incident = open(&store, &settings, "5xx & <b>timeouts</b>").await;
        assert_eq!(clock.deliver(&deps, 0).await, 3);
        let first = telegram.messages();
        assert!(first[0].text.contains("🔴 CRITICAL 5xx & <b>timeouts</b>"), "{}", first[0].text);
        assert!(first[0].text.contains("No diagnosis yet."));
        assert!(slack.messages()[0].text.contains("5xx &amp; &lt;b&gt;timeouts&lt;/b&gt;"));

        diagnose(&store, &incident.id).await;
        let approval = propose(&store, &incident.id).await;
        clock.deliver(&deps, 2).await;
        clock.deliver(&deps, 2).await;
        let rung = &telegram.rings()[0].text;
        assert!(rung.starts_with("🔔 approval needed: 5xx & <b>timeouts</b>\ncheckout · #"), "{rung}");
        assert!(rung.ends_with("Restart checkout\nThe exact plan, and how to answer, stand in the message above."));
        assert!(slack.rings()[0].text.contains("🔔 approval needed:"));
        let text = telegram.messages()[0].text.clone();
        for part in [
            "The database refuses connections.",
            "• checkout cannot reach its database\n   E1 `connection refused to <*>`: 214 in 60 s, usually 0–3",
            "Not known\n• prometheus: circuit open",
            "Restart checkout\nrestart-service on checkout-1 · plan ",
            &approval.plan_hash[..12],
            "• 1. systemctl restart \"checkout <1>\"",
            "Press Approve to run exactly this plan, once; or Reject.",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(telegram.messages()[0].button("Approve").is_some());
        assert!(slack.messages()[0].button("approve").is_some());

        resolve(&store, &incident.id).await;
        clock.deliver(&deps, 2).await;
        clock.deliver(&deps, 2).await;
        assert_eq!((telegram.rings().len(), slack.rings().len()), (1, 1), "one ring for one question");
        let (t, s) = (telegram.messages(), slack.messages());
        assert_eq!((t.len(), t[0].edits, s.len(), s[0].edits), (1, 2, 1, 2));
        assert!(t[0].text.starts_with("✅ RESOLVED"), "{}", t[0].text);
        assert_eq!(t[0].button("Approve"), None);
        let said: Vec<_> = pagerduty.events().iter().map(|e| e["event_action"].clone()).collect();
        assert_eq!(said, ["trigger", "trigger", "resolve"]);
        assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"resolved"]);
        let m = message(&store, &incident.id, "telegram").await;
        assert_eq!((m.state, m.sent_version), (MessageState::Delivered, m.wanted_version));
    }

    async fn many_changes_become_one_edit_of_the_newest(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let incident = open(&store, &settings, "slow").await;
        clock.deliver(&deps, 0).await;
        for n in 0..20 {
            change(&store, &incident.id, |i| i.title = format!("slow {n}")).await;
        }
        clock.deliver(&deps, 2).await;
        clock.deliver(&deps, 2).await;
        let m = telegram.messages();
        assert_eq!((m.len(), m[0].edits), (1, 1));
        assert!(m[0].text.contains("slow 19"));
    }

    async fn every_moment_of_need_rings_once(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let incident = open(&store, &settings, "slow").await;
        clock.deliver(&deps, 2).await;
        let run = run(&incident.id, RunState::Verifying);
        let mut tx = store.write().await.expect("a transaction");
        runs::insert(&mut tx, &run).await.expect("inserted");
        tx.commit().await.expect("committed");
        // What the run comes to, and how many times the phone has rung by then.
        let states = [
            (RunState::Verifying, 0),
            (RunState::RollingBack, 1),
            (RunState::RolledBack, 1),
            (RunState::NeedsHuman, 2),
            (RunState::NeedsHuman, 2),
        ];
        for (state, rings) in states {
            let mut tx = store.write().await.expect("a transaction");
            runs::set_state(&mut tx, &run.id, state, "as it went").await.expect("saved");
            incidents::touch(&mut tx, &incident.id).await.expect("touched");
            tx.commit().await.expect("committed");
            for _ in 0..3 {
                clock.deliver(&deps, 2).await;
            }
            assert_eq!(telegram.rings().len(), rings, "{state}");
        }
        assert!(telegram.rings()[0].text.starts_with("🔔 the fix failed: slow"), "{:?}", telegram.rings());
        assert!(telegram.rings()[1].text.starts_with("🔔 needs a human: slow"), "{:?}", telegram.rings());
        assert_eq!(telegram.messages().len(), 1);
        assert_eq!(message(&store, &incident.id, "telegram").await.state, MessageState::Delivered);
    }

    async fn a_need_that_the_first_message_tells_or_that_is_over_rings_nobody(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let asked = open(&store, &settings, "asked at once").await;
        propose(&store, &asked.id).await;
        clock.deliver(&deps, 2).await;
        change(&store, &asked.id, |i| i.title = "asked at once, and worse".into()).await;
        let flapping = open(&store, &settings, "flapping").await;
        clock.deliver(&deps, 2).await;
        clock.deliver(&deps, 2).await;
        change(&store, &flapping.id, |i| i.flapping = true).await;
        propose(&store, &flapping.id).await;
        let over = open(&store, &settings, "over").await;
        for _ in 0..4 {
            clock.deliver(&deps, 2).await;
        }
        propose(&store, &over.id).await;
        clock.deliver(&deps, 2).await;
        resolve(&store, &over.id).await;
        for _ in 0..4 {
            clock.deliver(&deps, 2).await;
        }
        assert_eq!(telegram.rings(), []);
        change(&store, &flapping.id, |i| i.flapping = false).await;
        for _ in 0..4 {
            clock.deliver(&deps, 2).await;
        }
        assert_eq!(telegram.rings().len(), 1, "it has calmed down, and still needs an answer");
    }

    async fn a_kill_while_ringing_gives_at_most_one_more_ring(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let incident = open(&store, &settings, "slow").await;
        clock.deliver(&deps, 2).await;
        propose(&store, &incident.id).await;
        clock.deliver(&deps, 2).await;
        // What the killed one had done: shown the question, claimed the ring, said that it posts, and perhaps rung.
        let mut tx = store.write().await.expect("a transaction");
        let lease = Duration::from_secs(120);
        let claimed = messages::claim(&mut tx, "telegram", clock.0, lease, 1).await.expect("claimed").pop();
        let claimed = claimed.expect("the ring is due");
        messages::posting(&mut tx, &claimed, claimed.message.sent_version).await.expect("written");
        tx.commit().await.expect("committed");
        clock.deliver(&deps, 121).await;
        for _ in 0..3 {
            clock.deliver(&deps, 2).await;
        }
        assert_eq!(telegram.rings().len(), 1, "one, and perhaps one by the killed process");
        let mut tx = store.read().await.expect("a transaction");
        let why = decisions::of(&mut tx, decisions::About::incident(&incident.id)).await.expect("read");
        assert_eq!(why[0].outcome, "posted again");
    }

    async fn status_says_how_each_channel_stands(store: Store) {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        to_slack(&mut settings, &slack);
        to_pagerduty(&mut settings, &pagerduty);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let stand = async |now| {
            let mut tx = store.read().await.expect("a transaction");
            notify::status(&deps, &mut tx, now).await.expect("read")
        };
        let fresh = stand(clock.0).await;
        assert!(fresh.iter().all(|c| c.last_delivered_at.is_none() && c.waiting == 0 && c.last_error.is_none()));
        telegram.fail_next("sendMessage", 500, "Internal: password=hunter2hunter2", json!({}));
        slack.answer_next("chat.postMessage", Answer::text(429, "").with("retry-after", 40));
        pagerduty.answer_next(Answer::text(400, "invalid event"));
        let incident = open(&store, &settings, "slow").await;
        clock.deliver(&deps, 1).await;
        let now = clock::after(clock.0, Duration::from_secs(20));
        let [t, s, p] = stand(now).await.try_into().expect("three channels");
        let names = [t.channel, s.channel, p.channel].map(|c| c.as_str());
        assert_eq!(names, ["telegram", "slack", "pagerduty"]);
        assert_eq!((t.waiting, t.dead_letters, t.paused_until, t.last_delivered_at), (1, 0, None, None));
        assert!((20..60).contains(&t.oldest_waiting_seconds), "{t:?}");
        assert_eq!(t.last_error.as_deref(), Some("Telegram answered 500: Internal: password=***"));
        assert_eq!((s.waiting, s.paused_until), (1, Some(clock::after(clock.0, Duration::from_secs(40)))));
        assert_eq!((p.waiting, p.dead_letters, p.oldest_waiting_seconds), (0, 1, 0));
        assert!(p.last_error.expect("an error").contains("invalid event"));

        change(&store, &incident.id, |i| i.title = "slower".into()).await;
        for _ in 0..3 {
            clock.deliver(&deps, 45).await;
        }
        for c in stand(clock.0).await {
            let seen = (c.waiting, c.oldest_waiting_seconds, c.dead_letters, c.paused_until, c.last_error.as_deref());
            assert_eq!(seen, (0, 0, 0, None, None), "{}", c.channel);
            assert!(c.last_delivered_at.is_some(), "{}", c.channel);
        }
        // What is held back keeps its reason there, which is no error.
        change(&store, &incident.id, |i| i.flapping = true).await;
        clock.deliver(&deps, 2).await;
        change(&store, &incident.id, |i| i.title = "on and off".into()).await;
        clock.deliver(&deps, 2).await;
        assert_eq!(message(&store, &incident.id, "telegram").await.state, MessageState::Suppressed);
        assert!(stand(clock.0).await.iter().all(|c| (c.waiting, c.dead_letters, c.last_error.as_deref()) == (0, 0, None)));
    }

    // The process ends after Telegram took the message and before its reference is stored.
    async fn a_kill_while_posting_gives_at_most_one_duplicate(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, mut clock) = (deps(&store, &settings), Clock::new());
        let incident = open(&store, &settings, "slow").await;
        // What the killed one had done: claimed, said that it posts, and posted.
        let mut tx = store.write().await.expect("a transaction");
        let lease = Duration::from_secs(120);
        let claimed = messages::claim(&mut tx, "telegram", clock::now(), lease, 1).await.expect("claimed").pop();
        let claimed = claimed.expect("one is due");
        messages::posting(&mut tx, &claimed, 1).await.expect("written");
        tx.commit().await.expect("committed");

        assert_eq!(clock.deliver(&deps, 5).await, 0, "it is leased still");
        assert_eq!(clock.deliver(&deps, 121).await, 1);
        change(&store, &incident.id, |i| i.title = "slower".into()).await;
        clock.deliver(&deps, 2).await;
        assert_eq!(telegram.calls("sendMessage").len(), 1, "one, and one by the killed process");
        assert_eq!(telegram.messages()[0].edits, 1);
        let mut tx = store.read().await.expect("a transaction");
        let why = decisions::of(&mut tx, decisions::About::incident(&incident.id)).await.expect("read");
        assert_eq!(why[0].outcome, "posted again");
        drop(tx);
        // The killed one was only slow and comes back: the fence keeps it from writing.
        let mut tx = store.write().await.expect("a transaction");
        let late = messages::failed(&mut tx, claimed, "late", clock.0).await;
        assert!(matches!(late, Err(aiops::store::Error::LeaseLost)));
    }
}

#[tokio::test]
async fn telegram_an_edit_that_changes_nothing_is_a_success() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 0).await;
    change(&kept.store, &incident.id, |_| {}).await;
    clock.deliver(&deps, 2).await;
    let m = message(&kept.store, &incident.id, "telegram").await;
    assert_eq!((m.state, m.last_error), (MessageState::Delivered, None));
    assert_eq!(telegram.messages()[0].edits, 0);
}

#[tokio::test]
async fn telegram_a_deleted_message_is_posted_anew() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 0).await;
    telegram.delete(CHAT, telegram.messages()[0].id);
    change(&kept.store, &incident.id, |i| i.title = "slower".into()).await;
    clock.deliver(&deps, 2).await;
    change(&kept.store, &incident.id, |i| i.title = "slowest".into()).await;
    clock.deliver(&deps, 2).await;
    let m = telegram.messages();
    assert_eq!((m.len(), m[0].edits), (1, 1));
    assert!(m[0].text.contains("slowest"));
}

#[tokio::test]
async fn telegram_a_group_that_moves_is_followed() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let before = open(&kept.store, &settings, "before").await;
    clock.deliver(&deps, 0).await;
    telegram.migrate(CHAT, -100_777);
    open(&kept.store, &settings, "after").await;
    clock.deliver(&deps, 2).await;
    change(&kept.store, &before.id, |i| i.title = "before, changed".into()).await;
    clock.deliver(&deps, 2).await;
    let new: Vec<_> = telegram.messages().into_iter().filter(|m| m.chat == -100_777).collect();
    assert_eq!(new.len(), 2, "the new incident, and the old one posted anew");
}

#[tokio::test]
async fn telegram_markup_that_it_cannot_read_is_sent_as_text() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    telegram.fail_next(
        "sendMessage",
        400,
        "Bad Request: can't parse entities: Unsupported start tag",
        json!({}),
    );
    open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 0).await;
    assert_eq!(telegram.calls("sendMessage")[1].get("parse_mode"), None);
    assert!(telegram.messages()[0].text.contains("slow"));
}

#[tokio::test]
async fn too_fast_for_one_channel_pauses_that_one_only() {
    let kept = stores::sqlite().await;
    let (telegram, slack) = (Telegram::start(&[CHAT]), Slack::start());
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    to_slack(&mut settings, &slack);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    telegram.fail_next("sendMessage", 429, "Too Many Requests: retry after 30", json!({ "retry_after": 30 }));
    open(&kept.store, &settings, "one").await;
    open(&kept.store, &settings, "two").await;
    for _ in 0..4 {
        clock.deliver(&deps, 3).await;
    }
    assert_eq!((telegram.calls("sendMessage").len(), slack.messages().len()), (1, 2));
    for _ in 0..4 {
        clock.deliver(&deps, 10).await;
    }
    assert_eq!(telegram.messages().len(), 2, "after the pause both came");
}

#[tokio::test]
async fn what_is_refused_for_good_is_a_dead_letter_and_the_others_say_so() {
    let kept = stores::sqlite().await;
    let (telegram, slack) = (Telegram::start(&[CHAT]), Slack::start());
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    to_slack(&mut settings, &slack);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    for _ in 0..2 {
        telegram.fail_next("sendMessage", 403, "Forbidden: bot was kicked from the group chat", json!({}));
    }
    let incident = open(&kept.store, &settings, "slow").await;
    for _ in 0..3 {
        clock.deliver(&deps, 2).await;
    }
    let dead = message(&kept.store, &incident.id, "telegram").await;
    assert_eq!(dead.state, MessageState::Dead);
    assert_eq!(
        dead.last_error.as_deref(),
        Some("Telegram answered 403: Forbidden: bot was kicked from the group chat")
    );
    assert!(
        slack.messages()[0].text.contains("⚠️ Could not reach: telegram"),
        "{}",
        slack.messages()[0].text
    );
    let mut tx = kept.store.read().await.expect("a transaction");
    let story = timeline::of(&mut tx, &incident.id).await.expect("read");
    drop(tx);
    let failed: Vec<_> = story.iter().filter(|e| e.kind == TimelineKind::NotifyFailed).collect();
    assert_eq!(failed.len(), 1, "told once: {failed:?}");
    assert!(aiops::alarm::active().iter().any(|a| a.alarm == aiops::alarm::Alarm::MessageDead));

    // A newer version gets a new chance, and the same refusal makes no new noise.
    change(&kept.store, &incident.id, |i| i.title = "slower".into()).await;
    clock.deliver(&deps, 2).await;
    assert_eq!(message(&kept.store, &incident.id, "telegram").await.state, MessageState::Dead);
    change(&kept.store, &incident.id, |i| i.title = "slowest".into()).await;
    clock.deliver(&deps, 2).await;
    assert_eq!(message(&kept.store, &incident.id, "telegram").await.state, MessageState::Delivered);
    assert!(telegram.messages()[0].text.contains("slowest"));
    let mut tx = kept.store.read().await.expect("a transaction");
    let story = timeline::of(&mut tx, &incident.id).await.expect("read");
    assert_eq!(story.iter().filter(|e| e.kind == TimelineKind::NotifyFailed).count(), 1);
}

#[tokio::test]
async fn what_may_work_later_is_tried_until_the_deadline() {
    let kept = stores::sqlite().await;
    let slack = Slack::start();
    let mut settings = quiet();
    to_slack(&mut settings, &slack);
    settings.notify.deadline = Duration::from_secs(60);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    slack.fail_next("chat.postMessage", "internal_error");
    slack.answer_next("chat.postMessage", Answer::text(502, "<html>bad gateway</html>"));
    let incident = open(&kept.store, &settings, "slow").await;
    for _ in 0..3 {
        clock.deliver(&deps, 5).await;
    }
    let m = message(&kept.store, &incident.id, "slack").await;
    assert_eq!((m.state, m.attempts), (MessageState::Delivered, 0));

    let late = open(&kept.store, &settings, "late").await;
    for _ in 0..30 {
        slack.fail_next("chat.postMessage", "fatal_error");
    }
    for _ in 0..8 {
        clock.deliver(&deps, 20).await;
    }
    let m = message(&kept.store, &late.id, "slack").await;
    assert_eq!(m.state, MessageState::Dead);
    assert_eq!(
        m.last_error.as_deref(),
        Some("not delivered before the deadline of 60 s: Slack answered fatal_error")
    );
}

#[tokio::test]
async fn slack_is_obeyed_and_its_refusals_are_told_apart() {
    let kept = stores::sqlite().await;
    let slack = Slack::start();
    let mut settings = quiet();
    to_slack(&mut settings, &slack);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    slack.answer_next("chat.postMessage", Answer::text(429, "").with("retry-after", 20));
    let incident = open(&kept.store, &settings, "slow").await;
    for _ in 0..3 {
        clock.deliver(&deps, 5).await;
    }
    assert_eq!(slack.calls("chat.postMessage").len(), 1, "Retry-After is honoured");
    clock.deliver(&deps, 10).await;
    assert_eq!(slack.messages().len(), 1);

    slack.fail_next("chat.update", "edit_window_closed");
    change(&kept.store, &incident.id, |i| i.title = "slower".into()).await;
    clock.deliver(&deps, 2).await;
    assert_eq!(slack.messages().len(), 2, "what cannot be edited is posted anew");
    change(&kept.store, &incident.id, |i| i.title = "slowest".into()).await;
    clock.deliver(&deps, 2).await;
    assert!(slack.messages()[1].text.contains("slowest"));

    slack.fail_next("chat.update", "is_archived");
    change(&kept.store, &incident.id, |i| i.title = "over".into()).await;
    clock.deliver(&deps, 2).await;
    let m = message(&kept.store, &incident.id, "slack").await;
    assert_eq!((m.state, m.last_error.as_deref()), (MessageState::Dead, Some("Slack answered is_archived")));
}

#[tokio::test]
async fn a_slack_webhook_is_told_the_milestones() {
    let kept = stores::sqlite().await;
    let slack = Slack::start();
    let mut settings = quiet();
    settings.notify.slack =
        config::Slack { webhook: Secret::new(slack.webhook()), ..config::Slack::default() };
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 2).await;
    diagnose(&kept.store, &incident.id).await;
    clock.deliver(&deps, 2).await;
    propose(&kept.store, &incident.id).await;
    clock.deliver(&deps, 2).await;
    resolve(&kept.store, &incident.id).await;
    clock.deliver(&deps, 2).await;
    let texts: Vec<String> = slack.calls("webhook").iter().map(|c| c["text"].to_string()).collect();
    assert_eq!(
        texts,
        [
            "\"[CRITICAL] checkout: slow\"",
            "\"[CRITICAL] approval needed: checkout: slow\"",
            "\"[RESOLVED] checkout: slow\""
        ]
    );
}

#[tokio::test]
async fn pagerduty_refusals_are_told_apart() {
    let kept = stores::sqlite().await;
    let pagerduty = PagerDuty::start();
    let mut settings = quiet();
    to_pagerduty(&mut settings, &pagerduty);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    pagerduty.answer_next(Answer::text(429, "slow down"));
    pagerduty.answer_next(Answer::text(500, "oops"));
    let incident = open(&kept.store, &settings, "slow").await;
    for _ in 0..4 {
        clock.deliver(&deps, 11).await;
    }
    assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"triggered"]);
    change(&kept.store, &incident.id, |i| i.state = IncidentState::Acknowledged).await;
    clock.deliver(&deps, 1).await;
    assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"acknowledged"]);
    pagerduty.answer_next(Answer::text(400, "{\"status\":\"invalid event\"}"));
    resolve(&kept.store, &incident.id).await;
    clock.deliver(&deps, 1).await;
    let m = message(&kept.store, &incident.id, "pagerduty").await;
    assert_eq!(m.state, MessageState::Dead);
    assert!(m.last_error.expect("a reason").contains("invalid event"));
}

#[tokio::test]
async fn what_is_held_back_says_why() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    settings.notify.telegram.min_severity = Severity::Critical;
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let mild = open(&kept.store, &settings, "mild").await;
    change(&kept.store, &mild.id, |i| i.severity = Severity::Warning).await;
    let planned = open(&kept.store, &settings, "planned").await;
    change(&kept.store, &planned.id, |i| i.suppressed = Some("database upgrade".into())).await;
    clock.deliver(&deps, 2).await;
    clock.deliver(&deps, 2).await;
    assert_eq!(telegram.calls("sendMessage").len(), 0);
    let m = message(&kept.store, &planned.id, "telegram").await;
    assert_eq!((m.state, m.last_error.as_deref()), (MessageState::Suppressed, Some("database upgrade")));
    let mut tx = kept.store.read().await.expect("a transaction");
    let why = decisions::of(&mut tx, decisions::About::incident(&mild.id)).await.expect("read");
    assert_eq!((why[0].outcome.as_str(), why[0].clause.as_str()), ("suppressed", "notify.min_severity"));
    drop(tx);

    change(&kept.store, &mild.id, |i| i.severity = Severity::Critical).await;
    clock.deliver(&deps, 2).await;
    assert_eq!(telegram.messages().len(), 1, "it got worse, so it is told");
}

#[tokio::test]
async fn a_flapping_incident_is_told_at_most_three_times() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 2).await;
    for n in 0..100 {
        change(&kept.store, &incident.id, |i| {
            i.flapping = n >= 3;
            if n % 2 == 0 {
                (i.state, i.resolved_at) = (IncidentState::Resolved, Some(clock::now()));
            } else {
                (i.state, i.resolved_at) = (IncidentState::Open, None);
                i.episode += 1;
            }
        })
        .await;
        clock.deliver(&deps, 6).await;
    }
    assert!(telegram.calls("sendMessage").len() <= 3, "{}", telegram.calls("sendMessage").len());
    let last = telegram.messages().pop().expect("one was sent");
    assert!(last.text.contains("Its alerts come and go too often"), "{}", last.text);
    assert_eq!(message(&kept.store, &incident.id, "telegram").await.state, MessageState::Suppressed);

    change(&kept.store, &incident.id, |i| i.flapping = false).await;
    clock.deliver(&deps, 2).await;
    assert!(!telegram.messages().pop().expect("still there").text.contains("come and go"));
}

/// A fingerprint's alert fires and resolves a hundred times, through correlation and the outbox as in life.
#[tokio::test]
async fn a_hundred_flips_give_three_messages_and_the_final_state() {
    let kept = stores::sqlite().await;
    let store = &kept.store;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    settings.correlate.flap_quiet = Duration::from_millis(300);
    let (deps, mut clock) = (deps(store, &settings), Clock::new());
    let correlate = correlate::Deps {
        store: store.clone(),
        settings: Arc::new(config::Live::new(settings.correlate.clone())),
        channels: notify::channel_names(&settings).into(),
    };
    let labels: Labels = [("alertname", "Slow"), ("service", "checkout"), ("severity", "critical")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let mut settle = None;
    for n in 0..101 {
        let is_firing = n % 2 == 0;
        let event = AlertEvent {
            source: "alertmanager".into(),
            fingerprint: fingerprint(&labels),
            state: if is_firing { AlertState::Firing } else { AlertState::Resolved },
            labels: labels.clone(),
            annotations: [("summary".to_owned(), "checkout is slow".to_owned())].into(),
            starts_at: clock::now(),
            ends_at: (!is_firing).then(clock::now),
            expires_at: None,
            generator_url: String::new(),
        };
        let prepared = inbox::Prepared::new(&inbox::Delivery::Alerts(vec![event]));
        inbox::append(store, &[prepared]).await.expect("appended");
        let (tx, out) = correlate::drain(&correlate, 100).await.expect("drains").expect("one waits");
        tx.commit().await.expect("committed");
        settle = out.settle.into_iter().next_back().or(settle);
        clock.deliver(&deps, 5).await;
    }
    let posted = telegram.calls("sendMessage").len();
    assert!(posted <= 3, "{posted} messages");
    let (id, _) = settle.expect("it is flapping");
    assert_eq!(message(store, &id, "telegram").await.state, MessageState::Suppressed);

    tokio::time::sleep(Duration::from_millis(400)).await;
    let (tx, again) = correlate::settle(&correlate, &id).await.expect("settles");
    tx.commit().await.expect("committed");
    assert_eq!(again, None, "it has been quiet long enough");
    clock.deliver(&deps, 61).await;
    let posted = telegram.calls("sendMessage").len();
    assert!(posted <= 3, "{posted} messages");
    let last = telegram.messages().pop().expect("it was told").text;
    assert!(last.starts_with("🔴 CRITICAL checkout is slow"), "{last}");
    assert!(!last.contains("come and go"), "{last}");
    assert_eq!(message(store, &id, "telegram").await.state, MessageState::Delivered);
}

#[tokio::test]
async fn a_reopened_incident_rings_again() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 2).await;
    resolve(&kept.store, &incident.id).await;
    clock.deliver(&deps, 2).await;
    change(&kept.store, &incident.id, |i| {
        (i.state, i.resolved_at, i.episode) = (IncidentState::Open, None, 2);
    })
    .await;
    clock.deliver(&deps, 2).await;
    let m = telegram.messages();
    assert_eq!(m.len(), 2, "an edit would have rung nobody");
    assert!(m[0].text.starts_with("✅") && m[1].text.starts_with("🔴"));
}

#[tokio::test]
async fn the_first_message_waits_a_moment_for_the_diagnosis() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    settings.notify.first_delay = Duration::from_secs(2);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    open(&kept.store, &settings, "nobody diagnoses it").await;
    clock.deliver(&deps, 0).await;
    assert_eq!(telegram.messages().len(), 0);
    clock.deliver(&deps, 3).await;
    assert_eq!(telegram.messages().len(), 1, "not longer than that");
    let quick = open(&kept.store, &settings, "diagnosed at once").await;
    diagnose(&kept.store, &quick.id).await;
    clock.deliver(&deps, 1).await;
    assert!(telegram.messages()[1].text.contains("The database refuses connections."));
}

#[tokio::test]
async fn one_bad_address_does_not_fail_the_mail_for_the_rest() {
    let kept = stores::sqlite().await;
    let smtp = peers::Smtp::start().await;
    let mut settings = quiet();
    let to = ["ann@example.org", "fail550@example.org", "fail450@example.org", "bob@example.org"];
    to_email(&mut settings, smtp.port, &to);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow\r\nBcc: everybody@example.org").await;
    clock.deliver(&deps, 0).await;
    let reached: Vec<_> = smtp.mails().into_iter().flat_map(|m| m.to).collect();
    assert_eq!(reached, ["ann@example.org", "bob@example.org"]);
    assert!(!smtp.mails()[0].text.contains("\nBcc:"), "{}", smtp.mails()[0].text);
    let m = message(&kept.store, &incident.id, "email").await;
    assert_eq!(m.state, MessageState::Due);
    let why = m.last_error.expect("a reason");
    assert!(why.starts_with("fail450@example.org not reached yet: "), "{why}");

    clock.deliver(&deps, 10).await;
    assert_eq!(smtp.mails().len(), 2, "only who is owed is tried again");
    settings.notify.deadline = Duration::from_secs(1);
    let impatient = Deps::new(kept.store.clone(), &settings).expect("right settings");
    clock.deliver(&impatient, 30).await;
    assert_eq!(message(&kept.store, &incident.id, "email").await.state, MessageState::Dead);
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {mail}")).trim()
}

#[tokio::test]
async fn mails_are_one_thread_and_only_of_what_matters() {
    let kept = stores::sqlite().await;
    let smtp = peers::Smtp::start_starttls().await;
    let mut settings = quiet();
    to_email(&mut settings, smtp.port, &["ann@example.org"]);
    settings.notify.email.host = "localhost".into();
    settings.notify.email.tls = SmtpTls::Starttls;
    settings.notify.email.ca_file = smtp.certificate.clone().expect("it speaks TLS");
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 0).await;
    diagnose(&kept.store, &incident.id).await;
    clock.deliver(&deps, 1).await;
    assert_eq!(smtp.mails().len(), 1, "a diagnosis alone is no mail");
    propose(&kept.store, &incident.id).await;
    clock.deliver(&deps, 1).await;
    resolve(&kept.store, &incident.id).await;
    clock.deliver(&deps, 1).await;
    let mails = smtp.mails();
    assert!(mails.iter().all(|m| m.tls));
    let subjects: Vec<_> = mails.iter().map(|m| header(&m.text, "Subject")).collect();
    assert_eq!(
        subjects,
        [
            "[CRITICAL] checkout: slow",
            "[CRITICAL] approval needed: checkout: slow",
            "[RESOLVED] checkout: slow"
        ]
    );
    let roots: std::collections::BTreeSet<_> = mails.iter().map(|m| header(&m.text, "References")).collect();
    let ids: std::collections::BTreeSet<_> = mails.iter().map(|m| header(&m.text, "Message-ID")).collect();
    assert_eq!((roots.len(), ids.len()), (1, 3));
    assert!(mails[0].text.contains("multipart/alternative"));
}

#[tokio::test]
async fn a_mail_server_without_tls_is_not_trusted() {
    let kept = stores::sqlite().await;
    let smtp = peers::Smtp::start().await;
    let mut settings = quiet();
    to_email(&mut settings, smtp.port, &["ann@example.org"]);
    settings.notify.email.tls = SmtpTls::Starttls;
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    open(&kept.store, &settings, "slow").await;
    clock.deliver(&deps, 0).await;
    assert_eq!(smtp.mails().len(), 0);
}

#[tokio::test]
async fn check_says_what_each_channel_reaches_and_never_a_secret() {
    let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    to_slack(&mut settings, &slack);
    to_pagerduty(&mut settings, &pagerduty);
    let found = async |settings: &Settings| {
        let mut said = Vec::new();
        for route in notify::channels::build(settings).expect("right settings") {
            said.push(route.channel.check().await);
        }
        said
    };
    assert_eq!(
        found(&settings).await,
        [
            Ok("@aiops_test_bot reaches chat -5000".to_owned()),
            Ok("aiops in Test writes to C0FAKE0001".to_owned()),
            Ok("reachable; the routing key is proved only by an event".to_owned()),
        ]
    );
    assert_eq!(pagerduty.events().len(), 0, "nobody is paged by a check");
    settings.notify.telegram.api = "http://127.0.0.1:1".into();
    settings.notify.slack.api = "http://127.0.0.1:1".into();
    settings.notify.pagerduty.api = "http://127.0.0.1:1".into();
    for wrong in found(&settings).await {
        let wrong = wrong.expect_err("nobody is there");
        for secret in [telegram::TOKEN, slack::TOKEN, pagerduty::ROUTING_KEY] {
            assert!(!wrong.contains(secret), "{wrong}");
        }
    }
}

/// Runs are shown with their steps; used where a message must name a failure.
#[tokio::test]
async fn a_run_that_needs_a_human_says_so_first() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let incident = open(&kept.store, &settings, "slow").await;
    let run = run(&incident.id, RunState::NeedsHuman);
    let mut tx = kept.store.write().await.expect("a transaction");
    runs::insert(&mut tx, &run).await.expect("inserted");
    tx.commit().await.expect("committed");
    clock.deliver(&deps, 2).await;
    let text = telegram.messages()[0].text.clone();
    let expected = "What was done\nNEEDS A HUMAN: Restart checkout · step restart was under way when the service ended\n\
                    Call the database team.\nApproved by @ann (telegram:42).";
    assert!(text.contains(expected), "{text}");
}
