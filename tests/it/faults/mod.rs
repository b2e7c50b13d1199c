//! What happens when the ground gives way: one file for each kind of fault. docs/guarantees.md names these tests.

mod channels;
mod clock;
mod damage;
mod descriptors;
mod disk;
mod elasticsearch;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::service::Service;

/// Long enough for a machine with other work to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// One alert of one service, as Prometheus sends it.
fn alert(service: &str) -> Value {
    json!([{ "labels": { "alertname": "Down", "service": service, "severity": "critical" } }])
}

async fn send(service: &Service, name: &str) -> Option<u16> {
    service.try_post("/api/v2/alerts", &alert(name)).await
}

/// Sends the alert until it is taken.
async fn send_until_taken(service: &Service, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while send(service, name).await != Some(200) {
        assert!(Instant::now() < deadline, "{name} is never taken\n{}", service.child.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until every one of these services has an alert that belongs to an incident.
async fn all_have_incidents(service: &Service, names: &[String]) {
    service
        .until(PATIENCE, "/api/v1/alerts?limit=200", "an incident for every acknowledged alert", |page| {
            let items = page["items"].as_array()?;
            let has = |name: &String| {
                items.iter().any(|a| a["labels"]["service"] == name.as_str() && a["incident_id"].is_string())
            };
            names.iter().all(has).then_some(())
        })
        .await;
}

/// The alarms that are active now.
fn alarms(status: &Value) -> Vec<&str> {
    status["alarms"].as_array().into_iter().flatten().filter_map(|a| a["alarm"].as_str()).collect()
}
