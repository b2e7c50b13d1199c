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
        timeline: vec![entry(
            "00:12:10",
            TimelineKind::AlertFiring,
            Phrase::AlertFiring { name: "HighErrorRate".into(), title: "30% of requests fail".into() },
        )],
        unreached: Vec::new(),
    }
}

fn entry(time: &str, kind: TimelineKind, text: Phrase) -> TimelineEntry {
    TimelineEntry { seq: 1, incident_id: String::new(), at: at(time), kind, text: text.into(), actor: None }
}

fn fact(id: &str, summary: Phrase) -> Evidence {
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

fn errors() -> Phrase {
    Phrase::LogBurst {
        template: "connection refused to <*>".into(),
        count: "214".into(),
        seconds: "60".into(),
        low: "0".into(),
        high: "3".into(),
    }
}

fn by_rules() -> IncidentView {
    let mut view = diagnosed(Tier::Rules);
    let diagnosis = view.diagnosis.as_mut().expect("it is there");
    let lead = Lead(Duration::from_secs(125));
    let change = Said::from(Phrase::ChangeBeforeOnset { lead, what: "1.4.2 → 1.5.0".into() });
    diagnosis.summary = Phrase::MostLikely { claim: change.clone() }.into();
    diagnosis.claims[0].text = change;
    diagnosis.claims[1].text =
        Phrase::UnusualErrors { service: "checkout".into(), what: errors().into() }.into();
    view
}

fn diagnosed(tier: Tier) -> IncidentView {
    let claim = |text: &str, evidence: &[&str]| Claim {
        text: text.into(),
        evidence: evidence.iter().map(|e| (*e).to_owned()).collect(),
    };
    IncidentView {
        evidence: vec![
            fact("E1", errors()),
            fact(
                "E2",
                Phrase::ChangeBy {
                    what: "deploy".into(),
                    of: "checkout".into(),
                    summary: "1.4.2 → 1.5.0".into(),
                    author: "ann".into(),
                    when: Phrase::BeforeOnset { gap: Short(Duration::from_secs(125)) }.into(),
                },
            ),
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
            missing: vec![Missing { source: "prometheus".into(), reason: Phrase::CircuitOpen {}.into() }],
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

fn run(state: RunState, outcome: impl Into<Said>) -> IncidentView {
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
    let mut view = run(
        RunState::Succeeded,
        Phrase::Verified {
            what: Phrase::Held {
                answers: "GET http://checkout-1:8080/health → 200 OK".into(),
                hold: Span(Duration::from_secs(30)),
                asked: Times(7),
            }
            .into(),
        },
    );
    view.incident.state = IncidentState::Resolved;
    view.incident.resolved_at = Some(at("00:16:05"));
    view.incident.resolved_by = Some(Phrase::AlertsResolved {}.into());
    view.timeline.push(entry(
        "00:16:05",
        TimelineKind::Resolved,
        Phrase::Resolved { why: Phrase::LastAlertResolved { name: "HighErrorRate".into() }.into() },
    ));
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
    - 03:12:10 HighErrorRate is firing: 30% of requests fail

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
    - 03:12:10 HighErrorRate горит: 30% of requests fail

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
        E2 deploy of checkout: 1.4.2 → 1.5.0 by ann, 2m before the onset
        E1 `connection refused to <*>`: 214 in 60 s, usually 0–3
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
    - 03:12:10 HighErrorRate is firing: 30% of requests fail

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
        E2 deploy, checkout: 1.4.2 → 1.5.0 (автор ann), за 2 мин до начала
        E1 `connection refused to <*>`: 214 за 60 с, обычно 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: предохранитель сработал, пока не спрашиваем

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
    - 03:12:10 HighErrorRate горит: 30% of requests fail

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    "#);
}

#[test]
fn acknowledged_and_rejected_in_english() {
    let mut view = proposed(ApprovalState::Rejected);
    view.diagnosis = by_rules().diagnosis;
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
    Most likely: A change came 2 min before the onset: 1.4.2 → 1.5.0
    - A change came 2 min before the onset: 1.4.2 → 1.5.0
        E2 deploy of checkout: 1.4.2 → 1.5.0 by ann, 2m before the onset
        E1 `connection refused to <*>`: 214 in 60 s, usually 0–3
    - checkout logs errors that it usually does not: `connection refused to <*>`: 214 in 60 s, usually 0–3 (E1)
    By rules, in 3 s.

    Not known:
    - prometheus: circuit open

    Rejected by @ann (telegram:42).

    Timeline:
    - 03:12:10 HighErrorRate is firing: 30% of requests fail

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn a_failure_in_english() {
    let mut view = run(
        RunState::Failed,
        Phrase::StepFailed { step: "warm".into(), end: "503 Service Unavailable".into() },
    );
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
        E2 deploy of checkout: 1.4.2 → 1.5.0 by ann, 2m before the onset
        E1 `connection refused to <*>`: 214 in 60 s, usually 0–3
    - Connections are refused. (E1)
    By the cloud model small-model, in 3 s, $0.0042.
    A model wrote this; the evidence it cites is real, its reasoning is not checked.

    Not known:
    - prometheus: circuit open

    What was done:
    FAILED: Restart checkout · step warm failed: 503 Service Unavailable
    Call the database team.
    Approved by @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Nobody has taken it yet.

    ⚠️ Could not reach: pagerduty

    Timeline:
    - 03:12:10 HighErrorRate is firing: 30% of requests fail

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn needs_a_human_and_flaps_in_russian() {
    let mut view = run(
        RunState::NeedsHuman,
        Phrase::OutcomeLost {
            step: "restart".into(),
            does: "systemctl restart checkout".into(),
            answers: "continue, retry, roll_back".into(),
            last: "abort".into(),
        },
    );
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
        E2 deploy, checkout: 1.4.2 → 1.5.0 (автор ann), за 2 мин до начала
        E1 `connection refused to <*>`: 214 за 60 с, обычно 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: предохранитель сработал, пока не спрашиваем

    Что сделано:
    НУЖЕН ЧЕЛОВЕК: Restart checkout · Неизвестно, выполнен ли шаг restart (systemctl restart checkout): проверьте и ответьте continue, retry, roll_back или abort
    Call the database team.
    Одобрил: @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate горит: 30% of requests fail

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn by_rules_in_russian() {
    let mut view = by_rules();
    view.incident.title = Phrase::LogNovelty {
        template: "pool exhausted".into(),
        known: Span(Duration::from_secs(3 * 86_400)),
        service: "checkout".into(),
    }
    .into();
    insta::assert_snapshot!(read(&view, Language::Russian), @"
    🔴 КРИТИЧНО Новая ошибка: `pool exhausted`, в логах checkout её не было ни разу за 3 дн

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Почему мы так думаем:
    Вероятнее всего: за 2 мин до начала было изменение: 1.4.2 → 1.5.0
    - за 2 мин до начала было изменение: 1.4.2 → 1.5.0
        E2 deploy, checkout: 1.4.2 → 1.5.0 (автор ann), за 2 мин до начала
        E1 `connection refused to <*>`: 214 за 60 с, обычно 0–3
    - checkout пишет в лог необычные ошибки: `connection refused to <*>`: 214 за 60 с, обычно 0–3 (E1)
    По правилам, за 3 с.

    Чего мы не знаем:
    - prometheus: предохранитель сработал, пока не спрашиваем

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate горит: 30% of requests fail

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn a_failure_in_russian() {
    let mut view = run(RunState::Failed, Phrase::StepFailed { step: "warm".into(), end: "503".into() });
    view.unreached = vec!["pagerduty".into()];
    insta::assert_snapshot!(read(&view, Language::Russian), @"
    🔴 КРИТИЧНО исправление не удалось: 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · 2 алерта горят · #1a2b3c

    Что сломалось:
    - HighErrorRate: 30% of requests fail · checkout-1:8080
    - Slow: 30% of requests fail · checkout-2:8080 (до 03:13)

    Почему мы так думаем:
    The new release cannot reach its database.
    - It began right after a deploy.
        E2 deploy, checkout: 1.4.2 → 1.5.0 (автор ann), за 2 мин до начала
        E1 `connection refused to <*>`: 214 за 60 с, обычно 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: предохранитель сработал, пока не спрашиваем

    Что сделано:
    НЕ УДАЛОСЬ: Restart checkout · шаг warm не удался: 503
    Call the database team.
    Одобрил: @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Пока никто не взял в работу.

    ⚠️ Не удалось доставить: pagerduty

    Хронология:
    - 03:12:10 HighErrorRate горит: 30% of requests fail

    Открыть в браузере: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

/// One line of each kind, in both languages.
#[test]
fn the_story_in_both_languages() {
    let minutes = |n: u64| Span(Duration::from_secs(60 * n));
    let name = || "HighErrorRate".to_owned();
    let title = || "Restart checkout".to_owned();
    let stopped = || {
        let phrase = Phrase::StoppedByFor { by: "token:ann".into(), reason: "too much".into() };
        Said::from(phrase)
    };
    let story = [
        Phrase::OfService { service: "checkout".into(), what: errors().into() },
        Phrase::AlertFiring { name: name(), title: "30% of requests fail".into() },
        Phrase::AlertResolved { name: name(), title: "30% of requests fail".into() },
        Phrase::AnomalyOver { what: errors().into() },
        Phrase::FactsGathered { facts: Facts(6), ids: "E1–E6".into() },
        Phrase::NoClearCause { facts: 2 },
        Phrase::WithReason {
            title: title(),
            why: Phrase::RanLately { target: "checkout-1".into(), ago: minutes(3), within: minutes(10) }
                .into(),
        },
        Phrase::NobodyAnswered { title: title() },
        Phrase::WithReason { title: title(), why: Phrase::Retry {}.into() },
        Phrase::StepTriedAgain {
            step: "warm".into(),
            attempt: 2,
            does: "POST http://checkout-1/warm".into(),
        },
        Phrase::StepSaid { step: "warm".into(), state: StepState::Failed, said: "503".into() },
        Phrase::RunEnded {
            title: title(),
            state: RunState::Failed,
            why: Phrase::StepFailed { step: "warm".into(), end: "503".into() }.into(),
        },
        Phrase::Verified { what: Phrase::NoProbes {}.into() },
        Phrase::DidNotHelp { what: Phrase::DidNotHold { hold: minutes(1), within: minutes(2) }.into() },
        Phrase::Undone { title: title() },
        Phrase::CutOffInStep { stopped: stopped(), step: "warm".into() },
        Phrase::Told { channel: "telegram".into() },
        Phrase::CouldNotBeTold {
            channel: "slack".into(),
            why: Phrase::NotBeforeDeadline { deadline: Seconds(3600), why: "channel_not_found".into() }
                .into(),
        },
        Phrase::Acknowledged {},
        Phrase::Flapping { times: Times(21), within: Seconds(600), quiet: Seconds(300) },
        Phrase::Resolved { why: Phrase::LastAlertResolved { name: name() }.into() },
        Phrase::ResolvedByHandFor { reason: "it was DNS".into() },
        Phrase::FiresAgain {},
    ];
    let lines = story.map(|p| format!("{p}\n  {}", p.say(Language::Russian)));
    insta::assert_snapshot!(lines.join("\n"), @"
    checkout: `connection refused to <*>`: 214 in 60 s, usually 0–3
      checkout: `connection refused to <*>`: 214 за 60 с, обычно 0–3
    HighErrorRate is firing: 30% of requests fail
      HighErrorRate горит: 30% of requests fail
    HighErrorRate is resolved: 30% of requests fail
      HighErrorRate погас: 30% of requests fail
    Over: `connection refused to <*>`: 214 in 60 s, usually 0–3
      Закончилось: `connection refused to <*>`: 214 за 60 с, обычно 0–3
    6 facts gathered (E1–E6)
      Собрано: 6 фактов (E1–E6)
    No clear cause among the facts at hand (2).
      Среди имеющихся фактов (2) явной причины нет.
    Restart checkout: last run on checkout-1 was 3m ago; not again within 10m
      Restart checkout: на checkout-1 уже запускали 3 мин назад; повтор не раньше чем через 10 мин
    Nobody answered in time; nothing was done: Restart checkout
      Никто не ответил вовремя, ничего не сделано: Restart checkout
    Restart checkout: retry
      Restart checkout: повторяем шаг
    warm (try 2): POST http://checkout-1/warm
      warm (попытка 2): POST http://checkout-1/warm
    warm failed: 503
      warm: не удался: 503
    Restart checkout: failed: step warm failed: 503
      Restart checkout: не удалось: шаг warm не удался: 503
    The fix is verified: nothing to verify
      Проверено, помогло: проверять нечего
    It did not help: did not hold for 1m within 2m
      Не помогло: за 2 мин не продержалось 1 мин
    Undone: Restart checkout
      Откатили: Restart checkout
    Automation is stopped by token:ann: too much; step warm was cut off, and may be half done
      Автоматика остановлена (token:ann: too much); шаг warm прерван и мог выполниться наполовину
    told telegram
      сообщили: telegram
    slack could not be told: not delivered before the deadline of 3600 s: channel_not_found
      slack: не удалось сообщить: не доставлено за отведённое время (1 ч): channel_not_found
    Acknowledged
      Взято в работу
    Flapping: it opened or resolved 21 times within 600 s; quiet until it has been stable for 300 s
      Мигает: открылся или закрылся 21 раз за 10 мин; молчим, пока не будет спокойно 5 мин
    Resolved: the last firing alert, HighErrorRate, resolved
      Решено: погас последний алерт, HighErrorRate
    Resolved by hand: it was DNS
      Решено вручную: it was DNS
    It fires again
      Снова горит
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
        E2 deploy, checkout: 1.4.2 → 1.5.0 (автор ann), за 2 мин до начала
        E1 `connection refused to <*>`: 214 за 60 с, обычно 0–3
    - Connections are refused. (E1)
    Облачная модель small-model, за 3 с, $0.0042.
    Это написала модель: факты настоящие, рассуждения не проверены.

    Чего мы не знаем:
    - prometheus: предохранитель сработал, пока не спрашиваем

    Никто не ответил вовремя: предложение истекло, ничего не сделано.

    Пока никто не взял в работу.

    Хронология:
    - 03:12:10 HighErrorRate горит: 30% of requests fail

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
    Done and verified: Restart checkout · The fix is verified: GET http://checkout-1:8080/health → 200 OK; held for 30s, asked 7 times
    Approved by @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Timeline:
    - 03:12:10 HighErrorRate is firing: 30% of requests fail
    - 03:16:05 Resolved: the last firing alert, HighErrorRate, resolved

    Open in the browser: https://aiops.example.org/incidents/0193a5b2-0000-7000-8000-0000001a2b3c
    ");
}

#[test]
fn resolved_in_russian() {
    insta::assert_snapshot!(read(&resolved(), Language::Russian), @"
    ✅ РЕШЕНО 30% of requests fail

    checkout · с 2026-11-21 03:12 +03 · всего 2 алерта · #1a2b3c

    Решено в 03:16, длилось 4 мин · причина: алерты погасли

    Почему мы так думаем:
    The new release cannot reach its database.
    Облачная модель small-model, за 3 с, $0.0042.

    Что сделано:
    Сделано и проверено: Restart checkout · Проверено, помогло: GET http://checkout-1:8080/health → 200 OK; держится 30 с, спросили 7 раз
    Одобрил: @ann (telegram:42).
    - ✔️ restart
    - ❌ warm 503 Service Unavailable

    Хронология:
    - 03:12:10 HighErrorRate горит: 30% of requests fail
    - 03:16:05 Решено: погас последний алерт, HighErrorRate

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
