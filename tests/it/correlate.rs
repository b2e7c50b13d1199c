//! Signals become incidents: grouping, order of arrival, resolving, reopening, flapping, maintenance.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aiops::{
    clock, config,
    correlate::{self, Deps, Outcome},
    model::*,
    store::{
        Store,
        decisions::{self, About},
        inbox::{self, Delivery, Prepared},
        incidents, messages, timeline,
    },
};
use jiff::Timestamp;

use crate::stores::on_both_stores;

pub fn deps(store: &Store, settings: config::Correlate) -> Deps {
    Deps {
        store: store.clone(),
        settings: Arc::new(config::Live::new(settings)),
        calls: Default::default(),
        channels: Arc::new(["stdout".to_owned()]),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn firing(name: &str, service: &str, starts_at: Timestamp) -> AlertEvent {
    let labels = labels(&[("alertname", name), ("service", service), ("severity", "critical")]);
    AlertEvent {
        source: "alertmanager".into(),
        fingerprint: fingerprint(&labels),
        state: AlertState::Firing,
        annotations: [("summary".to_owned(), format!("{name} on {service}"))].into(),
        labels,
        starts_at,
        ends_at: None,
        expires_at: None,
        generator_url: String::new(),
    }
}

pub fn resolved(event: &AlertEvent) -> AlertEvent {
    AlertEvent { state: AlertState::Resolved, ends_at: Some(clock::now()), ..event.clone() }
}

fn anomaly(service: &str, kind: AnomalyKind, key: &str) -> AnomalyEvent {
    AnomalyEvent {
        kind,
        key: key.into(),
        service: service.into(),
        severity: Severity::Warning,
        title: format!("{kind} on {service}").into(),
        detail: serde_json::json!({}),
        started_at: clock::now(),
        ended_at: None,
    }
}

/// Through the inbox, as in life.
async fn deliver(deps: &Deps, delivery: Delivery) -> Outcome {
    inbox::append(&deps.store, &[Prepared::new(&delivery)]).await.expect("appended");
    let (tx, out) = correlate::drain(deps, 100).await.expect("drains").expect("something waits");
    tx.commit().await.expect("commits");
    out
}

pub async fn alert(deps: &Deps, event: AlertEvent) -> Outcome {
    deliver(deps, Delivery::Alerts(vec![event])).await
}

pub async fn all(store: &Store) -> Vec<Incident> {
    let mut tx = store.read().await.expect("begins");
    incidents::list(&mut tx, &incidents::Filter::default(), 100, None).await.expect("lists").items
}

async fn kinds(store: &Store, id: &str) -> Vec<TimelineKind> {
    let mut tx = store.read().await.expect("begins");
    timeline::of(&mut tx, id).await.expect("reads").into_iter().map(|e| e.kind).collect()
}

pub async fn clauses(store: &Store, about: About<'_>) -> Vec<(String, String)> {
    let mut tx = store.read().await.expect("begins");
    let found = decisions::of(&mut tx, about).await.expect("reads");
    found.into_iter().map(|d| (d.outcome, d.clause)).collect()
}

on_both_stores! {
    async fn an_alert_opens_one_incident_and_owes_one_message(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        let event = firing("Down", "checkout", clock::now());
        let out = alert(&deps, event.clone()).await;
        for _ in 0..5 {
            assert!(alert(&deps, event.clone()).await.diagnose.is_empty(), "a repeat is no news");
        }
        let incidents = all(&store).await;
        assert_eq!(incidents.len(), 1);
        let i = &incidents[0];
        assert_eq!(out.diagnose, std::slice::from_ref(&i.id));
        assert_eq!((i.title.as_str(), i.service.as_str()), ("Down on checkout", "checkout"));
        assert_eq!((i.severity, i.state), (Severity::Critical, IncidentState::Open));
        assert_eq!((i.alert_count, i.firing_count, i.episode), (1, 1, 1));
        let mut tx = store.read().await.expect("begins");
        let owed = messages::of(&mut tx, &i.id).await.expect("reads");
        assert_eq!(owed.len(), 1);
        assert_eq!(owed[0].state, MessageState::Due);
        assert_eq!(owed[0].wanted_version, i.version);
    }

    async fn alerts_of_a_service_and_its_neighbours_form_one_incident(store: Store) {
        let topology = BTreeMap::from([("checkout".to_owned(), vec!["payments".to_owned()])]);
        let deps = deps(&store, config::Correlate { topology, ..Default::default() });
        alert(&deps, firing("Slow", "checkout", clock::now())).await;
        alert(&deps, firing("Errors", "checkout", clock::now())).await;
        let neighbour = firing("Down", "payments", clock::now());
        alert(&deps, neighbour.clone()).await;
        alert(&deps, firing("Down", "unrelated", clock::now())).await;
        let incidents = all(&store).await;
        assert_eq!(incidents.iter().map(|i| i.alert_count).collect::<Vec<_>>(), [1, 3]);
        let why = clauses(&store, About::alert(&neighbour.fingerprint, None)).await;
        assert_eq!(why, [("attached".to_owned(), "correlate.topology".to_owned())]);
    }

    async fn a_signal_outside_the_window_opens_its_own_incident(store: Store) {
        let deps = deps(&store, config::Correlate { window: Duration::from_secs(60), ..Default::default() });
        alert(&deps, firing("A", "checkout", clock::before(clock::now(), Duration::from_secs(600)))).await;
        alert(&deps, firing("B", "checkout", clock::now())).await;
        assert_eq!(all(&store).await.len(), 2);
    }

    async fn it_resolves_when_its_last_alert_does_and_not_before(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        let (a, b) = (firing("A", "checkout", clock::now()), firing("B", "checkout", clock::now()));
        deliver(&deps, Delivery::Alerts(vec![a.clone(), b.clone()])).await;
        alert(&deps, resolved(&a)).await;
        assert_eq!(all(&store).await[0].state, IncidentState::Open);
        alert(&deps, resolved(&b)).await;
        let i = &all(&store).await[0];
        assert_eq!((i.state, i.firing_count), (IncidentState::Resolved, 0));
        assert!(i.resolved_at.is_some());
        alert(&deps, a.clone()).await;
        assert_eq!(all(&store).await[0].state, IncidentState::Resolved, "a late repeat reopens nothing");
        let why = clauses(&store, About::alert(&a.fingerprint, None)).await;
        assert_eq!(why.last().expect("decided").1, "out of order");
    }

    async fn a_resolve_before_its_firing_opens_nothing_that_never_ends(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        let event = firing("A", "checkout", clock::now());
        alert(&deps, resolved(&event)).await;
        alert(&deps, event).await;
        assert!(all(&store).await.is_empty());
    }

    async fn it_reopens_within_the_time_and_is_a_new_one_after_it(store: Store) {
        let deps = deps(&store, config::Correlate { flap_count: 100, ..Default::default() });
        let first = firing("A", "checkout", clock::now());
        alert(&deps, first.clone()).await;
        alert(&deps, resolved(&first)).await;
        let again = firing("A", "checkout", clock::now());
        alert(&deps, again.clone()).await;
        let incidents = all(&store).await;
        assert_eq!((incidents.len(), incidents[0].episode, incidents[0].state), (1, 2, IncidentState::Open));
        assert!(kinds(&store, &incidents[0].id).await.contains(&TimelineKind::Reopened));

        alert(&deps, resolved(&again)).await;
        let strict = Deps {
            settings: Arc::new(config::Live::new(config::Correlate {
                reopen_within: Duration::ZERO,
                window: Duration::ZERO,
                ..Default::default()
            })),
            ..deps
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        alert(&strict, firing("A", "checkout", clock::now())).await;
        assert_eq!(all(&store).await.len(), 2);
    }

    async fn what_follows_a_resolved_incident_closely_reopens_it(store: Store) {
        let deps = deps(&store, config::Correlate { flap_count: 100, ..Default::default() });
        let first = firing("Down", "checkout", clock::now());
        alert(&deps, first.clone()).await;
        alert(&deps, resolved(&first)).await;
        alert(&deps, firing("ErrorRate", "checkout", clock::now())).await;
        let incidents = all(&store).await;
        assert_eq!((incidents.len(), incidents[0].episode, incidents[0].alert_count), (1, 2, 2));
        alert(&deps, firing("Down", "billing", clock::now())).await;
        assert_eq!(all(&store).await.len(), 2, "another service is another incident");
    }

    async fn flapping_is_seen_and_settles(store: Store) {
        let quiet = Duration::from_millis(1500);
        let deps = deps(&store, config::Correlate { flap_quiet: quiet, ..Default::default() });
        for _ in 0..50 {
            let event = firing("A", "checkout", clock::now());
            alert(&deps, event.clone()).await;
            alert(&deps, resolved(&event)).await;
        }
        let i = all(&store).await.remove(0);
        assert!(i.flapping);
        assert_eq!(i.state, IncidentState::Resolved, "the state follows the alerts");
        let flapping = kinds(&store, &i.id).await.into_iter().filter(|k| *k == TimelineKind::Flapping).count();
        assert_eq!(flapping, 1);

        let (tx, again) = correlate::settle(&deps, &i.id).await.expect("settles");
        tx.commit().await.expect("commits");
        assert!(again.is_some(), "too early");
        tokio::time::sleep(quiet * 2).await;
        let (tx, again) = correlate::settle(&deps, &i.id).await.expect("settles");
        tx.commit().await.expect("commits");
        assert_eq!(again, None);
        assert!(!all(&store).await[0].flapping);
    }

    async fn maintenance_holds_messages_until_another_signal_joins(store: Store) {
        let window: config::MaintenanceWindow = serde_json::from_value(serde_json::json!({
            "reason": "disk swap", "matches": {"alertname": "~Disk.*", "service": "db"}
        })).expect("valid");
        let deps = deps(&store, config::Correlate { maintenance: vec![window], ..Default::default() });
        alert(&deps, firing("DiskSlow", "db", clock::now())).await;
        assert_eq!(all(&store).await[0].suppressed.as_deref(), Some("maintenance: disk swap"));
        alert(&deps, firing("DbDown", "db", clock::now())).await;
        assert_eq!(all(&store).await[0].suppressed, None);
    }

    async fn an_anomaly_waits_for_an_alert_or_for_a_second_kind(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        deliver(&deps, Delivery::Anomaly(Box::new(anomaly("checkout", AnomalyKind::LogBurst, "b")))).await;
        assert!(all(&store).await.is_empty());
        let about = About { fingerprint: Some("b"), incident_id: None };
        assert_eq!(clauses(&store, about).await, [("kept".to_owned(), "correlate.anomaly_opens".to_owned())]);

        alert(&deps, firing("Down", "checkout", clock::now())).await;
        let i = all(&store).await.remove(0);
        assert!(kinds(&store, &i.id).await.contains(&TimelineKind::AnomalyFound), "it joins the alert's incident");

        deliver(&deps, Delivery::Anomaly(Box::new(anomaly("billing", AnomalyKind::LogNovelty, "n")))).await;
        assert_eq!(all(&store).await.len(), 1);
        deliver(&deps, Delivery::Anomaly(Box::new(anomaly("billing", AnomalyKind::Metric, "m")))).await;
        let incidents = all(&store).await;
        assert_eq!(incidents.len(), 2, "logs and metrics agree");
        assert_eq!(incidents[0].severity, Severity::Warning);
        for key in ["n", "m"] {
            let kind = if key == "n" { AnomalyKind::LogNovelty } else { AnomalyKind::Metric };
            let over = AnomalyEvent { ended_at: Some(clock::now()), ..anomaly("billing", kind, key) };
            deliver(&deps, Delivery::Anomaly(Box::new(over))).await;
        }
        assert_eq!(all(&store).await[0].state, IncidentState::Resolved, "an incident without alerts ends with its anomalies");
    }

    async fn a_rule_that_joins_names_what_an_anomaly_opened(store: Store) {
        let always = config::Correlate { anomaly_opens: config::AnomalyOpens::Always, ..Default::default() };
        let deps = deps(&store, always);
        deliver(&deps, Delivery::Anomaly(Box::new(anomaly("billing", AnomalyKind::Metric, "m")))).await;
        assert_eq!(all(&store).await[0].title, "metric on billing");
        alert(&deps, firing("Down", "billing", clock::now())).await;
        let i = all(&store).await.remove(0);
        assert_eq!((i.title.as_str(), i.severity), ("Down on billing", Severity::Critical));
    }

    async fn a_batch_does_what_its_events_do_one_by_one(store: Store) {
        let topology = BTreeMap::from([("checkout".to_owned(), vec!["payments".to_owned()])]);
        let settings = config::Correlate { topology, flap_count: 1000, ..Default::default() };
        let dir = tempfile::tempdir().expect("a directory");
        let other = Store::open("", dir.path()).await.expect("opens");
        let (batched, single) = (deps(&store, settings.clone()), deps(&other, settings));
        let mut random = 7_u64;
        let mut below = move |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let start = clock::before(clock::now(), Duration::from_secs(60));
        for round in 0..12_u64 {
            let mut waiting = Vec::new();
            for step in 0..1 + below(40) {
                let at = clock::after(start, Duration::from_millis(round * 1000 + step * 10));
                let service = ["checkout", "payments", "billing", "search"][below(4) as usize];
                let delivery = if below(6) == 0 {
                    let kind = [AnomalyKind::Metric, AnomalyKind::LogBurst][below(2) as usize];
                    let ended_at = (below(2) == 0).then_some(at);
                    let key = format!("{service}-{kind}");
                    Delivery::Anomaly(Box::new(AnomalyEvent { started_at: at, ended_at, ..anomaly(service, kind, &key) }))
                } else {
                    let event = firing(["Down", "Slow", "Full"][below(3) as usize], service, at);
                    let is_over = below(3) == 0;
                    let over = AlertEvent { state: AlertState::Resolved, ends_at: Some(at), ..event.clone() };
                    Delivery::Alerts(vec![if is_over { over } else { event }])
                };
                deliver(&single, delivery.clone()).await;
                waiting.push(Prepared::new(&delivery));
            }
            inbox::append(&store, &waiting).await.expect("appended");
            while let Some((tx, _)) = correlate::drain(&batched, 15).await.expect("drains") {
                tx.commit().await.expect("commits");
            }
        }
        let (together, apart) = (told(&store).await, told(&other).await);
        assert_eq!(together, apart);
        assert!(together.len() >= 3 && together.iter().any(|i| i.contains("Reopened")), "{together:#?}");
    }

    async fn the_counts_of_an_incident_are_those_of_its_alerts(store: Store) {
        let deps = deps(&store, config::Correlate { flap_count: 1000, ..Default::default() });
        let events: Vec<AlertEvent> = (0..7).map(|n| firing(&format!("A{n}"), "checkout", clock::now())).collect();
        let mut all_of_it = events.clone();
        all_of_it.extend(events[..3].iter().map(resolved));
        all_of_it.extend(events[..1].iter().map(resolved));
        all_of_it.extend(events[2..].to_vec());
        deliver(&deps, Delivery::Alerts(all_of_it)).await;
        let i = all(&store).await.remove(0);
        assert_eq!((i.alert_count, i.firing_count), (7, 4), "a repeat of an ended episode is late");
        let mut tx = store.read().await.expect("begins");
        let alerts = aiops::store::alerts::of(&mut tx, &i.id, 1000).await.expect("reads");
        assert_eq!(alerts.len(), 7);
        assert_eq!(alerts.iter().filter(|a| a.state == AlertState::Firing).count(), 4);
    }
}

/// Every incident as it can be told without ids and times.
async fn told(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for i in all(store).await {
        let story = kinds(store, &i.id).await;
        lines.push(format!(
            "{} {} {} alerts={} firing={} episode={} {story:?}",
            i.service, i.state, i.title, i.alert_count, i.firing_count, i.episode
        ));
    }
    lines.sort_unstable();
    lines
}
