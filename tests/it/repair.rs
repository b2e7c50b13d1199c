//! What senders forget is repaired: by asking a real Alertmanager, and by taking Prometheus at its word.

use std::{sync::Arc, time::Duration};

use aiops::{
    clock, config, correlate,
    intake::{
        commit::{Committer, Road},
        expire, prometheus,
        reconcile::{self, Memory, Repairs, reconcile_once},
    },
    model::{Alert, AlertState},
    store::{
        Store, alerts,
        decisions::{self, About},
        inbox,
        leases::{self, Lease},
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{peers, stores};

/// One route to a receiver of its own for everything with `team: ours`, else to another.
const CONFIG: &str = "
route:
  receiver: other
  routes: [{receiver: ours, matchers: ['team=\"ours\"']}]
receivers: [{name: ours}, {name: other}]
";

struct House {
    store: Store,
    deps: reconcile::Deps,
    lease: Lease,
    memory: Memory,
    _kept: stores::Kept,
}

impl House {
    async fn new(urls: Vec<String>) -> Self {
        let kept = stores::sqlite().await;
        let store = kept.store.clone();
        let (committer, _writer) =
            Committer::start(store.clone(), 64, Duration::from_secs(5), CancellationToken::new());
        let settings = config::Alertmanager {
            urls,
            receiver: "ours".into(),
            reconcile_every: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            ..config::Alertmanager::default()
        };
        let deps = reconcile::Deps {
            store: store.clone(),
            committer,
            http: aiops::http_client::new(),
            settings: Arc::new(settings),
        };
        let lease = take(&store, "test").await;
        Self { store, deps, lease, memory: Memory::default(), _kept: kept }
    }

    /// One poll, and everything that follows from it.
    async fn poll(&mut self) -> anyhow::Result<Repairs> {
        let repairs = reconcile_once(&self.deps, &self.lease, &mut self.memory).await?;
        self.correlate().await;
        Ok(repairs)
    }

    async fn correlate(&self) {
        let deps = correlate::Deps {
            store: self.store.clone(),
            settings: Arc::default(),
            calls: Default::default(),
            channels: Arc::new(["stdout".to_owned()]),
        };
        while let Some((tx, _)) = correlate::drain(&deps, 100).await.expect("drained") {
            tx.commit().await.expect("committed");
        }
    }

    async fn alert(&self, name: &str) -> Option<Alert> {
        let mut tx = self.store.read().await.expect("readable");
        let page = alerts::list(&mut tx, &alerts::Filter::default(), 1000, None).await.expect("listed");
        page.items.into_iter().find(|a| a.name() == name)
    }

    async fn state(&self, name: &str) -> Option<AlertState> {
        self.alert(name).await.map(|a| a.state)
    }
}

/// The lease under which repairs are made.
async fn take(store: &Store, owner: &str) -> Lease {
    let mut tx = store.write().await.expect("begins");
    let lease = leases::acquire(&mut tx, "repairs", owner, Duration::from_secs(600)).await.expect("asks");
    tx.commit().await.expect("commits");
    lease.expect("it is free")
}

/// Tells Alertmanager of an alert, as Prometheus would.
async fn post(url: &str, name: &str, team: &str, over: bool) {
    let now = clock::now();
    let start = clock::before(now, Duration::from_secs(60));
    let end = if over { now } else { clock::after(now, Duration::from_secs(600)) };
    let body = json!([{"labels": {"alertname": name, "team": team}, "annotations": {"summary": format!("{name} is bad")},
        "startsAt": start, "endsAt": end, "generatorURL": "http://prometheus.test/graph"}]);
    let sent = peers::http().post(format!("{url}/api/v2/alerts")).json(&body).send().await.expect("sent");
    assert_eq!(sent.status(), 200);
}

/// Alertmanager takes what it is told a moment later.
async fn lists(url: &str, count: usize) {
    for _ in 0..200 {
        let listed = peers::http().get(format!("{url}/api/v2/alerts")).send().await.expect("asked");
        let listed: Vec<serde_json::Value> = listed.json().await.expect("a list");
        if listed.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("Alertmanager never lists {count} alerts");
}

#[tokio::test]
async fn what_the_webhook_missed_is_opened_and_what_is_over_is_resolved_after_two_polls() {
    let dir = peers::scratch("reconcile");
    let am = peers::Alertmanager::start(CONFIG, &dir).await;
    let nowhere = format!("http://127.0.0.1:{}", peers::free_port());
    let mut house = House::new(vec![nowhere, am.url.clone()]).await;
    post(&am.url, "Missed", "ours", false).await;
    post(&am.url, "NotOurs", "theirs", false).await;
    lists(&am.url, 2).await;

    assert_eq!(house.poll().await.expect("one peer answers"), Repairs { opened: 1, resolved: 0 });
    let missed = house.alert("Missed").await.expect("opened");
    assert_eq!((missed.state, missed.source.as_str()), (AlertState::Firing, "reconcile"));
    assert_eq!(missed.annotations["summary"], "Missed is bad");
    assert!(missed.incident_id.is_some());
    assert_eq!(house.alert("NotOurs").await, None, "it is routed to somebody else");
    assert_eq!(house.poll().await.expect("polled"), Repairs::default(), "known by now");

    tokio::time::sleep(Duration::from_millis(200)).await;
    post(&am.url, "Missed", "ours", true).await;
    lists(&am.url, 1).await;
    assert_eq!(house.poll().await.expect("polled"), Repairs::default(), "one poll proves nothing");
    assert_eq!(house.state("Missed").await, Some(AlertState::Firing));
    assert_eq!(house.poll().await.expect("polled"), Repairs { opened: 0, resolved: 1 });
    assert_eq!(house.state("Missed").await, Some(AlertState::Resolved));

    post(&am.url, "Missed", "ours", false).await;
    lists(&am.url, 2).await;
    assert_eq!(house.poll().await.expect("polled"), Repairs { opened: 1, resolved: 0 }, "it fires again");
    assert_eq!(house.state("Missed").await, Some(AlertState::Firing));
}

#[tokio::test]
async fn a_silence_there_opens_nothing_here_and_says_so_once() {
    let dir = peers::scratch("reconcile");
    let am = peers::Alertmanager::start(CONFIG, &dir).await;
    let mut house = House::new(vec![am.url.clone()]).await;
    let until = clock::after(clock::now(), Duration::from_secs(600));
    let silence = json!({"matchers": [{"name": "alertname", "value": "Quiet", "isRegex": false}], "startsAt": clock::now(),
        "endsAt": until, "createdBy": "ann", "comment": "being worked on"});
    let sent =
        peers::http().post(format!("{}/api/v2/silences", am.url)).json(&silence).send().await.expect("sent");
    assert_eq!(sent.status(), 200);
    post(&am.url, "Quiet", "ours", false).await;
    lists(&am.url, 1).await;
    let mut told = Vec::new();
    for _ in 0..50 {
        assert_eq!(house.poll().await.expect("polled"), Repairs::default());
        let labels =
            [("alertname", "Quiet"), ("team", "ours")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut tx = house.store.read().await.expect("readable");
        let fingerprint = aiops::model::fingerprint(&labels);
        told = decisions::of(&mut tx, About::alert(&fingerprint, None)).await.expect("listed");
        if !told.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(house.poll().await.expect("polled"), Repairs::default());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].outcome.as_str(), told[0].clause.as_str()), ("ignored", "alertmanager silence"));
    assert_eq!(house.alert("Quiet").await, None);
}

#[tokio::test]
async fn peers_that_cannot_be_asked_or_just_started_prove_nothing() {
    let nowhere = format!("http://127.0.0.1:{}", peers::free_port());
    let mut house = House::new(vec![nowhere.clone()]).await;
    let body = r#"{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"Old","team":"ours"}}]}"#;
    let events = aiops::intake::alertmanager::parse(body, clock::now()).expect("valid");
    house.deps.committer.alerts(Road::Alertmanager, events).await.expect("committed");
    house.correlate().await;
    for _ in 0..3 {
        assert!(house.poll().await.is_err());
    }
    assert_eq!(house.state("Old").await, Some(AlertState::Firing));

    let dir = peers::scratch("reconcile");
    let am = peers::Alertmanager::start(CONFIG, &dir).await;
    let mut settings = (*house.deps.settings).clone();
    (settings.urls, settings.reconcile_every) = (vec![am.url.clone()], Duration::from_secs(3600));
    house.deps.settings = Arc::new(settings.clone());
    for _ in 0..3 {
        assert_eq!(house.poll().await.expect("polled"), Repairs::default(), "it forgot when it restarted");
    }
    settings.receiver = "misspelt".into();
    house.deps.settings = Arc::new(settings);
    let error = house.poll().await.expect_err("an unknown receiver would make its list empty");
    assert!(format!("{error:#}").contains("has no receiver \"misspelt\""), "{error:#}");
    assert_eq!(house.state("Old").await, Some(AlertState::Firing));
}

#[tokio::test]
async fn an_alert_that_prometheus_stops_repeating_is_resolved_unless_nobody_could_have_heard() {
    let house = House::new(vec![]).await;
    let began = clock::now();
    let body = r#"[{"labels":{"alertname":"Repeated"}}]"#;
    let events = prometheus::parse(body, began, Duration::from_secs(30)).expect("valid");
    house.deps.committer.alerts(Road::Prometheus, events).await.expect("committed");
    let deps = |listening_since| expire::Deps {
        store: house.store.clone(),
        committer: house.deps.committer.clone(),
        listening_since,
    };
    let later = clock::after(began, Duration::from_secs(31));
    assert_eq!(
        expire::expire_once(&deps(began), &house.lease, later).await.expect("swept"),
        0,
        "it still waits in the inbox"
    );
    house.correlate().await;
    assert_eq!(house.state("Repeated").await, Some(AlertState::Firing));
    let soon = clock::after(began, Duration::from_secs(29));
    assert_eq!(expire::expire_once(&deps(began), &house.lease, soon).await.expect("swept"), 0);
    let restarted = clock::after(began, Duration::from_secs(20));
    assert_eq!(
        expire::expire_once(&deps(restarted), &house.lease, later).await.expect("swept"),
        0,
        "it may be repeated yet"
    );
    assert_eq!(expire::expire_once(&deps(began), &house.lease, later).await.expect("swept"), 1);
    house.correlate().await;
    let alert = house.alert("Repeated").await.expect("known");
    assert_eq!(
        (alert.state, alert.ends_at),
        (AlertState::Resolved, Some(clock::after(began, Duration::from_secs(30))))
    );
}

#[tokio::test]
async fn a_replica_that_was_paused_repairs_nothing_once_another_has_taken_over() {
    for kept in [stores::sqlite().await, stores::postgres().await] {
        let store = kept.store.clone();
        let (committer, _writer) =
            Committer::start(store.clone(), 64, Duration::from_secs(5), CancellationToken::new());
        let late = take(&store, "late").await;
        let mut tx = store.write().await.expect("begins");
        leases::release(&mut tx, &late).await.expect("its time ends");
        tx.commit().await.expect("commits");
        let next = take(&store, "next").await;
        let event = || vec![crate::correlate::firing("Down", "checkout", clock::now())];
        let refused = committer.alerts_held(&late, Road::Reconcile, event()).await;
        assert_eq!(refused, Err(aiops::intake::commit::NotCommitted::NotOurs));
        assert_eq!(inbox::backlog(&store).await.expect("counted").0, 0);
        committer.alerts_held(&next, Road::Reconcile, event()).await.expect("the owner's");
        assert_eq!(inbox::backlog(&store).await.expect("counted").0, 1);
    }
}
