//! What people read, in every state and both languages.

use std::time::Duration;

use jiff::Timestamp;

use super::{Answer, Style, Texts, document, plain};
use crate::{config::Language, model::*, notify::view::IncidentView};

fn at(time: &str) -> Timestamp {
    format!("2026-11-21T{time}Z").parse().expect("a time")
}

fn style(language: Language) -> Style {
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(3));
    Style { texts: Texts::of(language), zone, public_url: "https://aiops.example.org".into() }
}

fn read(view: &IncidentView, language: Language) -> String {
    plain(&document(view, &style(language), Answer::Buttons).blocks)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn alert(name: &str, instance: &str, ends_at: Option<Timestamp>) -> Alert {
    Alert {
        fingerprint: format!("{name}{instance}"),
        source: "alertmanager".into(),
        labels: labels(&[("alertname", name), ("instance", instance)]),
        annotations: labels(&[("summary", "30% of requests fail")]),
        state: if ends_at.is_some() { AlertState::Resolved } else { AlertState::Firing },
        starts_at: at("00:12:05"),
        ends_at,
        expires_at: None,
        generator_url: String::new(),
        incident_id: None,
        last_seen_at: at("00:12:05"),
    }
}

fn opened() -> IncidentView {
    IncidentView {
        incident: Incident {
            id: "0193a5b2-0000-7000-8000-0000001a2b3c".into(),
            state: IncidentState::Open,
            severity: Severity::Critical,
            title: "30% of requests fail".into(),
            service: "checkout".into(),
            started_at: at("00:12:05"),
            opened_at: at("00:12:10"),
            updated_at: at("00:12:10"),
            last_signal_at: at("00:12:05"),
            resolved_at: None,
            alert_count: 2,
            firing_count: 2,
            version: 1,
            episode: 1,
            flapping: false,
            suppressed: None,
            acknowledged_by: None,
            resolved_by: None,
        },
        alerts: vec![
            alert("HighErrorRate", "checkout-1:8080", None),
            alert("Slow", "checkout-2:8080", Some(at("00:13:00"))),
        ],
        diagnosis: None,
        evidence: Vec::new(),
        approval: None,
        run: None,
        timeline: vec![entry("00:12:10", TimelineKind::Opened, "HighErrorRate fired for checkout")],
        unreached: Vec::new(),
    }
}

fn entry(time: &str, kind: TimelineKind, text: &str) -> TimelineEntry {
    TimelineEntry { seq: 1, incident_id: String::new(), at: at(time), kind, text: text.into(), actor: None }
}

fn fact(id: &str, summary: &str) -> Evidence {
    Evidence {
        id: id.into(),
        kind: EvidenceKind::LogAnomaly,
        source: "telemetry".into(),
        service: "checkout".into(),
        summary: summary.into(),
        data: serde_json::json!({}),
        observed_at: at("00:12:00"),
    }
}

fn diagnosed(tier: Tier) -> IncidentView {
    let claim = |text: &str, evidence: &[&str]| Claim {
        text: text.into(),
        evidence: evidence.iter().map(|e| (*e).to_owned()).collect(),
    };
    IncidentView {
        evidence: vec![
            fact("E1", "connection refused to <*>: 214 in 60 s, usually 0–3"),
            fact("E2", "deploy checkout 1.4.2 → 1.5.0 at 00:10"),
        ],
        diagnosis: Some(Diagnosis {
            id: "d".into(),
            incident_id: "i".into(),
            tier,
            model: "small-model".into(),
            summary: "The new release cannot reach its database.".into(),
            claims: vec![
                claim("It began right after a deploy.", &["E2", "E1"]),
                claim("Connections are refused.", &["E1"]),
            ],
            suggestion: None,
            missing: vec![Missing { source: "prometheus".into(), reason: "circuit open".into() }],
            attempts: Vec::new(),
            latency_ms: 3400,
            tokens_in: 900,
            tokens_out: 100,
            cost_usd: 0.0042,
            created_at: at("00:12:14"),
        }),
        ..opened()
    }
}

fn step(id: &str, action: Action) -> PlanStep {
    PlanStep { id: id.into(), action, timeout: Duration::from_secs(10), idempotent: true, retries: 0 }
}

fn plan() -> Plan {
    let url = "http://checkout-1:8080/health".to_owned();
    let argv = ["systemctl", "restart", "checkout api"].map(String::from).to_vec();
    let query = "rate(errors[1m])".to_owned();
    Plan {
        playbook: "restart-service".into(),
        title: "Restart checkout".into(),
        params: Default::default(),
        target: "checkout-1".into(),
        steps: vec![
            step("restart", Action::Command { argv }),
            step("settle", Action::Wait { duration: Duration::from_secs(5) }),
            step(
                "warm",
                Action::Http {
                    method: "POST".into(),
                    url: "http://checkout-1:8080/warm".into(),
                    headers: [("Authorization".to_owned(), "Bearer secret".to_owned())].into(),
                    body: Some(serde_json::json!({ "all": true })),
                    expect: Vec::new(),
                },
            ),
        ],
        verify: Some(Verify {
            probes: vec![
                Probe::Http { url, expect: Vec::new() },
                Probe::Prometheus { query, expect: Expect::Below(0.01) },
            ],
            within: Duration::from_secs(120),
            hold: Duration::from_secs(30),
            every: Duration::from_secs(5),
        }),
        rollback: vec![step("undo", Action::Command { argv: vec!["rollback-checkout".into()] })],
        guards: Guards::default(),
        on_failure: "Call the database team.".into(),
    }
}

fn proposed(state: ApprovalState) -> IncidentView {
    let approval = Approval {
        id: "0193a5b2-0000-7000-8000-00000099ffee".into(),
        incident_id: "i".into(),
        state,
        plan: plan(),
        plan_hash: "1a2b3c4d5e6f7788".into(),
        requested_at: at("00:12:15"),
        expires_at: at("00:27:15"),
        decided_by: Some(Actor { via: "telegram".into(), id: "42".into(), name: Some("@ann".into()) }),
        decided_at: None,
        reason: None,
    };
    IncidentView { approval: Some(approval), ..diagnosed(Tier::Cloud) }
}

fn run(state: RunState, outcome: &str) -> IncidentView {
    let record = |position, id: &str, state, output: &str| StepRecord {
        phase: Phase::Main,
        position,
        attempt: 1,
        step_id: id.into(),
        state,
        started_at: at("00:13:00"),
        finished_at: None,
        output: output.into(),
    };
    let run = Run {
        id: "r".into(),
        incident_id: Some("i".into()),
        state,
        plan: plan(),
        plan_hash: "1a2b3c4d5e6f7788".into(),
        allowed_by: Actor { via: "telegram".into(), id: "42".into(), name: Some("@ann".into()) },
        started_at: at("00:13:00"),
        finished_at: None,
        outcome: outcome.into(),
        steps: vec![
            record(0, "restart", StepState::Succeeded, ""),
            record(2, "warm", StepState::Failed, "503 Service Unavailable"),
        ],
    };
    IncidentView { run: Some(run), ..proposed(ApprovalState::Approved) }
}

fn resolved() -> IncidentView {
    let mut view = run(RunState::Succeeded, "verified: 2 probes held for 30 s");
    view.incident.state = IncidentState::Resolved;
    view.incident.resolved_at = Some(at("00:16:05"));
    view.incident.resolved_by = Some("alerts resolved".into());
    view.timeline.push(entry("00:16:05", TimelineKind::Resolved, "All alerts resolved"));
    view
}

#[test]
fn opened_in_english() {
    insta::assert_snapshot!(read(&opened(), Language::English), @"
    🔴 CRITICAL 30% of requests fail

    checkout · since 2026-11-21 03:12 +03 · 2 alerts firing · #1a2b3c

    What broke:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (ended 03:13)

    No diagnosis yet.

    Nobody has taken it yet.

    Timeline:
    - 03:12:10 HighErrorRate fired for checkout

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn opened_in_russian() {
    insta::assert_snapshot!(read(&opened(), Language::Russian), @"
    🔴 КРИТИЧНО 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Диагноза пока нет.

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate fired for checkout

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn proposed_in_english() {
    insta::assert_snapshot!(read(&proposed(ApprovalState::Pending), Language::English), @r#"
    🔴 CRITICAL approval needed: 30% of requests fail

    checkout · since 2026-11-21 03:12 +03 · 2 alerts firing · #1a2b3c

    What broke:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (ended 03:13)

    Why we think so:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    By the cloud model small-model, in 3 s, $0.0042.
    A model wrote this; the evidence it cites is real, its reasoning is not checked.

    Not known:
    - prometheus: circuit open

    What we propose:
    Restart checkout
    restart-service on checkout-1 · plan 1a2b3c4d5e6f · expires 03:27
    - 1. systemctl restart "checkout api"
    - 2. wait 5 s
    - 3. POST http://checkout-1:8080/warm Authorization: … {"all":true}
    Then check within 2 min, holding for 30 s:
    - GET http://checkout-1:8080/health → 2xx
    - rate(errors[1m]) is below 0.01
    If it does not help, undo:
    - 1. rollback-checkout
    Press Approve to run exactly this plan, once; or Reject.

    Timeline:
    - 03:12:10 HighErrorRate fired for checkout

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    "#);
}

#[test]
fn proposed_in_russian() {
    insta::assert_snapshot!(read(&proposed(ApprovalState::Pending), Language::Russian), @r#"
    🔴 КРИТИЧНО нужно одобрение: 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Почему мы так думаем:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: circuit open

    Что предлагаем:
    Restart checkout
    restart-service на checkout-1 · план 1a2b3c4d5e6f · истекает 03:27
    - 1. systemctl restart "checkout api"
    - 2. ждать 5 с
    - 3. POST http://checkout-1:8080/warm Authorization: … {"all":true}
    Затем проверка в пределах 2 мин, удержание 30 с:
    - GET http://checkout-1:8080/health → 2xx
    - rate(errors[1m]) меньше 0.01
    Если не поможет, откат:
    - 1. rollback-checkout
    «Одобрить» выполнит ровно этот план, один раз; или «Отклонить».

    Хронология:
    - 03:12:10 HighErrorRate fired for checkout

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    "#);
}

#[test]
fn acknowledged_and_rejected_in_english() {
    let mut view = proposed(ApprovalState::Rejected);
    view.diagnosis = diagnosed(Tier::Rules).diagnosis;
    view.incident.state = IncidentState::Acknowledged;
    view.incident.acknowledged_by = Some(Actor { via: "slack".into(), id: "U042".into(), name: None });
    insta::assert_snapshot!(read(&view, Language::English), @"
    👀 CRITICAL 30% of requests fail

    checkout · since 2026-11-21 03:12 +03 · 2 alerts firing · #1a2b3c

    Acknowledged by slack:U042.

    What broke:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (ended 03:13)

    Why we think so:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    By rules, in 3 s.

    Not known:
    - prometheus: circuit open

    Rejected by @ann (telegram:42).

    Timeline:
    - 03:12:10 HighErrorRate fired for checkout

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn a_failure_in_english() {
    let mut view = run(RunState::Failed, "step warm failed");
    view.unreached = vec!["pagerduty".into()];
    insta::assert_snapshot!(read(&view, Language::English), @"
    🔴 CRITICAL the fix failed: 30% of requests fail

    checkout · since 2026-11-21 03:12 +03 · 2 alerts firing · #1a2b3c

    What broke:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (ended 03:13)

    Why we think so:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    By the cloud model small-model, in 3 s, $0.0042.
    A model wrote this; the evidence it cites is real, its reasoning is not checked.

    Not known:
    - prometheus: circuit open

    What was done:
    FAILED: Restart checkout · step warm failed
    Call the database team.
    Approved by @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Nobody has taken it yet.

    ⚠️ Could not reach: pagerduty

    Timeline:
    - 03:12:10 HighErrorRate fired for checkout

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn needs_a_human_and_flaps_in_russian() {
    let mut view = run(RunState::NeedsHuman, "step restart was under way when the service ended");
    view.incident.flapping = true;
    insta::assert_snapshot!(read(&view, Language::Russian), @"
    🔴 КРИТИЧНО нужен человек: 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Алерты срабатывают и гаснут слишком часто: дальнейшие изменения придут, когда всё успокоится.

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Почему мы так думаем:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: circuit open

    Что сделано:
    НУЖЕН ЧЕЛОВЕК: Restart checkout · step restart was under way when the service ended
    Call the database team.
    Одобрил: @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate fired for checkout

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn expired_in_russian() {
    insta::assert_snapshot!(read(&proposed(ApprovalState::Expired), Language::Russian), @"
    🔴 КРИТИЧНО 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Почему мы так думаем:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy checkout 1.4.2 → 1.5.0 at 00:10
        E1 connection refused to <*>: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: circuit open

    Никто не ответил вовремя: предложение истекло, ничего не сделано.

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate fired for checkout

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn resolved_in_english() {
    insta::assert_snapshot!(read(&resolved(), Language::English), @"
    ✅ RESOLVED 30% of requests fail

    checkout · since 2026-11-21 03:12 +03 · 2 alerts in all · #1a2b3c

    Resolved at 03:16 after 4 min · by: alerts resolved

    Why we think so:
    The new release cannot reach its database.
    By the cloud model small-model, in 3 s, $0.0042.

    What was done:
    Done and verified: Restart checkout · verified: 2 probes held for 30 s
    Approved by @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Timeline:
    - 03:12:10 HighErrorRate fired for checkout
    - 03:16:05 All alerts resolved

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn resolved_in_russian() {
    insta::assert_snapshot!(read(&resolved(), Language::Russian), @"
    ✅ РЕШЕНО 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · всего 2 алерта · #1a2b3c

    Решено в 03:16, длилось 4 мин · причина: alerts resolved

    Почему мы так думаем:
    The new release cannot reach its database.
    Облачная модель small-model, за 3 с, $0.0042.

    Что сделано:
    Сделано и проверено: Restart checkout · verified: 2 probes held for 30 s
    Одобрил: @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Хронология:
    - 03:12:10 HighErrorRate fired for checkout
    - 03:16:05 All alerts resolved

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn the_subject_says_what_is_asked_of_the_reader() {
    let subject = |view: &IncidentView, language| {
        document(view, &style(language), Answer::Commands).subject.as_str().to_owned()
    };
    use Language::*;
    assert_eq!(subject(&opened(), English), "[CRITICAL] checkout: 30% of requests fail");
    assert_eq!(
        subject(&proposed(ApprovalState::Pending), Russian),
        "[КРИТИЧНО] нужно одобрение: checkout: 30% of requests fail"
    );
    assert_eq!(
        subject(&run(RunState::NeedsHuman, ""), English),
        "[CRITICAL] needs a human: checkout: 30% of requests fail"
    );
    assert_eq!(subject(&resolved(), English), "[RESOLVED] checkout: 30% of requests fail");
}

#[test]
fn nobody_approves_a_plan_that_is_not_shown_in_full() {
    let view = proposed(ApprovalState::Pending);
    let whole = document(&view, &style(Language::English), Answer::Buttons);
    let verbs = |d: &super::Document| d.offers.iter().map(|o| o.verb).collect::<Vec<_>>();
    assert_eq!(verbs(&whole), [Verb::Approve, Verb::Reject, Verb::Ack, Verb::Resolve]);
    let short = whole.clone().fit(|d| plain(&d.blocks).len() < 550);
    assert_eq!(verbs(&short), [Verb::Reject, Verb::Ack, Verb::Resolve]);
    let text = plain(&short.blocks);
    assert!(text.contains("The plan is too long to show here, so it cannot be approved here"), "{text}");
    assert!(!text.contains("Press Approve") && !text.contains("systemctl"), "{text}");
}
