//! `aiops serve` with telemetry over Redis.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    peers::{Redis, scratch},
    service::Service,
};

const WITHIN: Duration = Duration::from_secs(60);

/// Settings of a service that learns within two seconds.
pub fn yaml(redis: &Redis) -> String {
    format!(
        "redis: {{url: \"{}\", timeout: 1s}}\n\
         detect: {{warm_up: 2s, save_every: 1s, bus: {{max_records: {BUFFERED}}}}}\n\
         correlate: {{anomaly_opens: always}}\n",
        redis.url
    )
}

/// Records that wait in the process at most.
const BUFFERED: u64 = 1000;

/// Feeds a quiet service until it is known, then lets it fail.
pub async fn a_failing_shop(service: &Service) {
    for turn in 0..35 {
        let line = json!([{"service": "shop", "msg": format!("GET /items/{turn} 200")}]);
        service.post("/api/v1/logs", &line).await;
        let value = 0.1 + f64::from(turn % 3) / 100.0;
        service
            .post("/api/v1/metrics", &json!([{"name": "latency", "service": "shop", "value": value}]))
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for turn in 0..25 {
        let line = json!({"service": "shop", "level": "error", "msg": format!("connection refused to 10.0.0.{turn}:5432")});
        service.post("/api/v1/logs", &json!([line, line])).await;
        service.post("/api/v1/metrics", &json!([{"name": "latency", "service": "shop", "value": 2.0}])).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn log_and_metric_anomalies_come_out_of_redis() {
    let redis = Redis::start().await;
    let service = Service::start_in(&scratch("bus"), &yaml(&redis)).await;
    a_failing_shop(&service).await;
    let incident = service
        .until(WITHIN, "/api/v1/incidents", "an incident of the shop", |list| {
            list["items"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
    let path = format!("/api/v1/incidents/{incident}");
    let kinds = |incident: &Value| -> Vec<String> {
        let found = incident["anomalies"].as_array().into_iter().flatten();
        found.filter_map(|a| a["kind"].as_str().map(str::to_owned)).collect()
    };
    service
        .until(WITHIN, &path, "log and metric anomalies", |incident| {
            let kinds = kinds(incident);
            let log = kinds.iter().any(|k| k.starts_with("log_"));
            (log && kinds.iter().any(|k| k == "metric")).then_some(())
        })
        .await;
    service
        .until(WITHIN, "/api/v1/status", "all is saved", |status| {
            let partitions = status["bus"]["partitions"].as_array()?;
            let idle = |p: &Value| p["waiting"] == 0 && p["pending"].as_u64().unwrap_or(0) == 0;
            (status["bus"]["kind"] == "redis" && partitions.len() == 2 && partitions.iter().all(idle))
                .then_some(())
        })
        .await;
}

async fn incident_of(service: &Service, name: &str) -> String {
    let of = |list: &Value| {
        let all = list["items"].as_array()?;
        all.iter().find(|i| i["service"] == name)?["id"].as_str().map(str::to_owned)
    };
    service.until(WITHIN, "/api/v1/incidents", &format!("an incident of {name}"), of).await
}

fn alert(service: &str) -> Value {
    json!([{"labels": {"alertname": "Down", "service": service, "severity": "critical"}}])
}

/// Lets telemetry of `db` come, so that something is known of it.
async fn know_db(service: &Service) {
    for turn in 0..25 {
        let line = json!([{"service": "db", "msg": format!("checkpoint {turn} done")}]);
        service.try_post("/api/v1/logs", &line).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn flushall_is_told_on_the_diagnosis_that_it_touches() {
    let redis = Redis::start().await;
    let service = Service::start_in(&scratch("bus"), &yaml(&redis)).await;
    know_db(&service).await;
    redis.run::<()>("FLUSHALL").await;
    service
        .until(WITHIN, "/api/v1/status", "the gap is seen", |status| {
            let gaps = status["bus"]["partitions"].as_array()?.iter().filter_map(|p| p["gaps"].as_u64());
            (gaps.sum::<u64>() >= 1).then_some(())
        })
        .await;
    know_db(&service).await;
    service.post("/api/v2/alerts", &alert("db")).await;
    let path = format!("/api/v1/incidents/{}", incident_of(&service, "db").await);
    service
        .until(WITHIN, &path, "the diagnosis says what is missing", |incident| {
            let text = incident.to_string();
            (text.contains("telemetry between ") && text.contains("Redis lost what was in it")).then_some(())
        })
        .await;
}

#[tokio::test]
async fn alerts_are_taken_while_redis_is_frozen_and_telemetry_comes_after() {
    let redis = Redis::start().await;
    let service = Service::start_in(&scratch("bus"), &yaml(&redis)).await;
    know_db(&service).await;
    redis.child.signal(rustix::process::Signal::STOP);
    let frozen = std::time::Instant::now();
    let mut n = 0;
    while frozen.elapsed() < Duration::from_secs(5) {
        assert_eq!(service.try_post("/api/v2/alerts", &alert(&format!("s{n}"))).await, Some(200));
        let lines = json!([{"service": "db", "msg": format!("while frozen {n}")}]);
        assert_eq!(service.try_post("/api/v1/logs", &lines).await, Some(200), "buffered");
        n += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let incident = format!("/api/v1/incidents/{}", incident_of(&service, "s0").await);
    service.until(WITHIN, &incident, "a diagnosis", |i| i["diagnoses"].as_array()?.first().map(drop)).await;
    redis.child.signal(rustix::process::Signal::CONT);
    service
        .until(WITHIN, "/api/v1/status", "all is worked off", |status| {
            let bus = &status["bus"];
            let idle = bus["partitions"].as_array()?.iter().all(|p| p["waiting"] == 0);
            (idle && bus["buffered"] == 0 && bus["error"].is_null()).then_some(())
        })
        .await;
    a_failing_shop(&service).await;
    incident_of(&service, "shop").await;
}

/// For five seconds alerts are taken, and telemetry is buffered until there is no room; then its senders hear 503.
async fn five_seconds_without_redis(service: &Service) {
    let began = std::time::Instant::now();
    let (mut n, mut taken, mut refused) = (0, 0, 0);
    while began.elapsed() < Duration::from_secs(5) || refused == 0 {
        assert!(began.elapsed() < WITHIN, "the buffer has no bound");
        assert_eq!(service.try_post("/api/v2/alerts", &alert(&format!("s{n}"))).await, Some(200));
        let line = json!({"service": "db", "msg": format!("while it is away {n}")});
        match service.try_post("/api/v1/logs", &Value::from(vec![line; 100])).await {
            Some(200) => taken += 100,
            Some(503) => refused += 100,
            other => panic!("{other:?}"),
        }
        n += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(taken <= 2 * BUFFERED, "{taken} lines were taken");
    let status = service.get("/api/v1/status").await;
    assert!(status["bus"]["buffered"].as_u64().expect("a number") <= BUFFERED, "{status:#}");
    let incident = format!("/api/v1/incidents/{}", incident_of(service, "s0").await);
    service.until(WITHIN, &incident, "a diagnosis", |i| i["diagnoses"].as_array()?.first().map(drop)).await;
}

/// Consumption goes on by itself, and a diagnosis of `db` says what is missing.
async fn goes_on_and_tells(service: &Service, told: &[&str]) {
    service
        .until(WITHIN, "/api/v1/status", "all is worked off, and the loss is known", |status| {
            let bus = &status["bus"];
            let partitions = bus["partitions"].as_array()?;
            let idle = partitions.iter().all(|p| p["waiting"] == 0);
            let gaps: u64 = partitions.iter().filter_map(|p| p["gaps"].as_u64()).sum();
            (idle && bus["buffered"] == 0 && bus["error"].is_null() && gaps > 0).then_some(())
        })
        .await;
    service.post("/api/v2/alerts", &alert("db")).await;
    let path = format!("/api/v1/incidents/{}", incident_of(service, "db").await);
    service
        .until(WITHIN, &path, "the diagnosis says what is missing", |incident| {
            let text = incident.to_string();
            (text.contains("telemetry between ") && told.iter().any(|told| text.contains(told))).then_some(())
        })
        .await;
    a_failing_shop(service).await;
    incident_of(service, "shop").await;
}

#[tokio::test]
async fn redis_stopped_for_five_seconds_costs_no_alert_and_what_is_lost_is_told() {
    let mut redis = Redis::start().await;
    let service = Service::start_in(&scratch("bus"), &yaml(&redis)).await;
    know_db(&service).await;
    redis.child.stop();
    five_seconds_without_redis(&service).await;
    redis.child.restart().await;
    goes_on_and_tells(&service, &["Redis lost what was in it", "records found no room"]).await;
}

#[tokio::test]
async fn redis_out_of_memory_costs_no_alert_and_what_is_lost_is_told() {
    let redis = Redis::start().await;
    let service = Service::start_in(&scratch("bus"), &yaml(&redis)).await;
    know_db(&service).await;
    redis.run::<()>("CONFIG SET maxmemory 1").await;
    five_seconds_without_redis(&service).await;
    redis.run::<()>("CONFIG SET maxmemory 0").await;
    goes_on_and_tells(&service, &["records found no room"]).await;
}
