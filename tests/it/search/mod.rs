//! Log search, by the API, the command line, chats and diagnoses: the embedded one, and a real OpenSearch.

mod kept;
mod lifecycle;
mod opensearch;

use std::time::Duration;

use aiops::{
    clock,
    diagnose::evidence::About,
    model::{LogLevel, LogRecord},
    store::{alerts, incidents},
};
use jiff::Timestamp;

use crate::llm::scene::Scene;

pub const LONG: Duration = Duration::from_secs(60);

pub fn record(at: Timestamp, service: &str, level: LogLevel, message: &str) -> LogRecord {
    LogRecord {
        at,
        service: service.into(),
        host: "web-1".into(),
        level,
        message: message.into(),
        trace_id: None,
    }
}

/// A name of this test's own in a server that tests share.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Evidence may take as long as it likes: these tests are not about speed.
pub fn patient(scene: &mut Scene) {
    let mut settings = aiops::config::Settings::clone(&scene.deps.access.settings);
    settings.diagnose.evidence_timeout = LONG;
    scene.deps.access.settings = std::sync::Arc::new(settings);
}

/// The broken shop of a scene, as evidence sources are told of it.
pub async fn about(scene: &Scene) -> About {
    let mut tx = scene.store.read().await.expect("reads");
    let incident = incidents::get(&mut tx, &scene.incident).await.expect("reads").expect("is there");
    let alerts = alerts::of(&mut tx, &scene.incident, 1000).await.expect("reads");
    let (anomalies, neighbours, changes) = Default::default();
    About { incident, alerts, anomalies, neighbours, changes, now: clock::now() }
}
