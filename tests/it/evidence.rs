//! Evidence from a real Prometheus: what it knows, what it must not be asked, and what is said when it is gone.

use std::{path::Path, time::Duration};

use aiops::{
    breaker::{BreakerState, Dependency},
    clock,
    config::Settings,
    diagnose::{
        Outcome,
        evidence::{About, gather},
    },
    ids,
    model::{Evidence, EvidenceKind, Incident, IncidentState},
    store::{alerts, evidence, incidents},
};
use serde_json::json;

use crate::{
    llm::scene::{self, Scene},
    peers::{Prometheus, http},
};

/// Scrapes itself under the name `shop`, every half second, with one alerting rule.
fn config(dir: &Path) -> String {
    let rules = dir.join("rules.yml");
    let text = "groups: [{ name: shop, rules: [{ alert: ShopDown, expr: 'up{job=\"shop\"} > 0' }] }]\n";
    std::fs::write(&rules, text).expect("writable");
    format!(
        "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
         rule_files: [{}]\n\
         scrape_configs: [{{ job_name: shop, static_configs: [{{ targets: ['127.0.0.1:PORT'] }}] }}]\n",
        rules.display()
    )
}

/// The alert of the scene says that it comes from this expression.
async fn claim(scene: &Scene, expr: &str) {
    let mut tx = scene.store.write().await.expect("writes");
    let mut alert = alerts::of(&mut tx, &scene.incident, 1000).await.expect("reads").remove(0);
    let mut url = reqwest::Url::parse("http://prometheus.example:9090/graph").expect("a URL");
    url.query_pairs_mut().append_pair("g0.expr", expr);
    alert.generator_url = url.into();
    alerts::save(&mut tx, &[&alert]).await.expect("writes");
    tx.commit().await.expect("commits");
}

fn settings(url: &str) -> Settings {
    let mut s = scene::settings();
    s.breaker.open = Duration::from_secs(60);
    s.breaker.open_max = Duration::from_secs(60);
    s.prometheus.url = url.to_owned();
    s.diagnose.prometheus.queries = [("goroutines".to_owned(), "go_goroutines{$match}".to_owned())].into();
    s
}

fn ranges(all: &[Evidence]) -> Vec<&Evidence> {
    all.iter().filter(|e| e.kind == EvidenceKind::MetricRange).collect()
}

async fn about(scene: &Scene) -> About {
    let mut tx = scene.store.read().await.expect("reads");
    let incident = incidents::get(&mut tx, &scene.incident).await.expect("reads").expect("is there");
    let (alerts, anomalies, neighbours, changes) = Default::default();
    About { incident, alerts, anomalies, neighbours, changes, now: clock::now() }
}

/// Waits until the series is there.
async fn scraped(url: &str) {
    for _ in 0..100 {
        let answer = http().get(format!("{url}/api/v1/query?query=up")).send().await.expect("asked");
        if answer.text().await.expect("a body").contains("\"shop\"") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("Prometheus scraped nothing in ten seconds");
}

#[tokio::test]
async fn prometheus_is_asked_for_the_settings_queries_and_its_own_rules_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut prometheus = Prometheus::start(&config(dir.path()), dir.path()).await;
    let port = prometheus.url.rsplit(':').next().expect("a port");
    let file = dir.path().join("prometheus.yml");
    let text = std::fs::read_to_string(&file).expect("written").replace("PORT", port);
    std::fs::write(&file, text).expect("writable");
    http().post(format!("{}/-/reload", prometheus.url)).send().await.expect("reloads");
    scraped(&prometheus.url).await;

    let scene = Scene::new(settings(&prometheus.url)).await;
    claim(&scene, "up{job=\"shop\"} > 0").await;
    assert_eq!(scene.first().await, Outcome::Diagnosed { enhance: false });
    let facts = scene.evidence().await;
    let queries: Vec<_> = ranges(&facts).iter().map(|e| e.data["query"].clone()).collect();
    assert_eq!(
        queries,
        ["go_goroutines{job=\"shop\"}", "up{job=\"shop\"}"],
        "the rule is asked without its threshold"
    );
    assert!(ranges(&facts)[1].summary.starts_with("ShopDown {"), "{:?}", ranges(&facts)[1]);
    assert!(scene.seen().await.missing.iter().all(|m| m.source != "prometheus"));

    let forged = Scene::new(settings(&prometheus.url)).await;
    claim(&forged, "count({__name__=~\".+\"})").await;
    forged.first().await;
    assert_eq!(ranges(&forged.evidence().await).len(), 1, "an alert's text becomes no query");
    let missing = forged.seen().await.missing;
    assert!(
        missing.iter().any(|m| m.reason == "the expression of ShopDown is not among its rules"),
        "{missing:?}"
    );

    prometheus.child.kill();
    let blind = Scene::new(settings(&prometheus.url)).await;
    let breaker = blind.deps.access.breakers.of(Dependency::Prometheus);
    for round in 0..3 {
        blind.first().await;
        assert!(ranges(&blind.evidence().await).is_empty(), "round {round}");
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    let (_, missing) = gather(&about(&blind).await, &blind.deps.access, Duration::from_secs(1)).await;
    assert!(missing.iter().any(|m| m.source == "prometheus" && m.reason == "circuit open"), "{missing:?}");
}

/// An incident of the shop that was over an hour after it was opened, so long ago, of this title, with an alert of this name.
async fn past(scene: &Scene, ago: Duration, title: &str, alert: &str) -> String {
    let now = about(scene).await.incident;
    let opened_at = clock::before(clock::now(), ago);
    let resolved_at = Some(clock::after(opened_at, Duration::from_secs(3600)));
    let state = IncidentState::Resolved;
    let id = ids::new();
    let over = Incident { id: id.clone(), title: title.into(), state, opened_at, resolved_at, ..now };
    let told = Evidence {
        id: "E1".into(),
        kind: EvidenceKind::Alert,
        source: "alerts".into(),
        service: "shop".into(),
        summary: alert.into(),
        data: json!({ "name": alert }),
        observed_at: opened_at,
    };
    let mut tx = scene.store.write().await.expect("writes");
    incidents::save_held(&mut tx, &[&over.into()]).await.expect("writes");
    evidence::save(&mut tx, &id, &told).await.expect("writes");
    tx.commit().await.expect("commits");
    id
}

#[tokio::test]
async fn past_incidents_are_evidence_where_their_title_or_an_alert_of_theirs_is_the_same() {
    let scene = Scene::new(scene::settings()).await;
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let same_alert = past(&scene, hours(50), "2 alerts of shop", "ShopDown").await;
    let same_title = past(&scene, hours(30), "shop is down", "TillStuck").await;
    past(&scene, hours(20), "shop is slow", "ShopSlow").await;
    past(&scene, hours(100 * 24), "shop is down", "ShopDown").await;
    assert_eq!(scene.first().await, Outcome::Diagnosed { enhance: false });
    let facts = scene.evidence().await;
    let told: Vec<_> = facts.iter().filter(|e| e.kind == EvidenceKind::PastIncident).collect();
    let ids: Vec<_> = told.iter().filter_map(|e| e.data["id"].as_str()).collect();
    assert_eq!(ids, [same_title, same_alert], "the newest first");
    assert!(told[0].summary.to_string().contains("lasted 60m"), "{}", told[0].summary);
}
