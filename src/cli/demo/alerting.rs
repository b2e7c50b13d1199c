//! The demo's stand-in for Prometheus and Alertmanager: asks the victim for its health, and posts what a rule would fire to the
//! real webhook route, in Alertmanager's format.

use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::victim::SERVICE;
use crate::{
    clock,
    config::Secret,
    model::{Labels, fingerprint},
};

const ASK_EVERY: Duration = Duration::from_millis(500);
/// The rule's `for:`.
const FIRES_AFTER: Duration = Duration::from_secs(2);
/// Prometheus would not notice any sooner; the verification, which asks the victim itself, is done by then.
const RESOLVES_AFTER: Duration = Duration::from_secs(5);

/// What the rule knows of the victim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    /// The first answer that was bad, of the latest outage.
    pub broke_at: Option<Timestamp>,
    /// The first answer that was good again.
    pub healed_at: Option<Timestamp>,
}

/// One rule about one instance.
pub struct Alerting {
    http: reqwest::Client,
    victim_url: String,
    webhook: String,
    token: Secret,
    pub health: watch::Sender<Health>,
}

impl Alerting {
    pub fn new(victim_url: &str, aiops: &str, token: Secret) -> Self {
        Self {
            http: crate::http_client::new(),
            victim_url: victim_url.to_owned(),
            webhook: format!("{aiops}/api/v1/webhooks/alertmanager"),
            token,
            health: watch::Sender::new(Health::default()),
        }
    }

    /// Watches for ever.
    pub async fn watch(&self) {
        let mut firing: Option<Timestamp> = None;
        let mut tick = tokio::time::interval(ASK_EVERY);
        loop {
            tick.tick().await;
            let healthy = healthy(&self.http, &self.victim_url).await;
            let now = clock::now();
            self.note(healthy, now);
            let health = *self.health.borrow();
            let since = |at: Option<Timestamp>| at.map(|at| clock::between(at, now)).unwrap_or_default();
            if !healthy && firing.is_none() && since(health.broke_at) >= FIRES_AFTER {
                firing = self.tell(health.broke_at.unwrap_or(now), None).await;
            } else if let Some(started) = firing
                && healthy
                && since(health.healed_at) >= RESOLVES_AFTER
                && self.tell(started, health.healed_at).await.is_some()
            {
                firing = None;
            }
        }
    }

    fn note(&self, healthy: bool, now: Timestamp) {
        self.health.send_if_modified(|h| match (healthy, h.broke_at, h.healed_at) {
            (false, None, _) | (false, Some(_), Some(_)) => {
                *h = Health { broke_at: Some(now), healed_at: None };
                true
            }
            (true, Some(_), None) => {
                h.healed_at = Some(now);
                true
            }
            _ => false,
        });
    }

    /// Posts the alert until it is taken for sure; as Alertmanager does, it comes again if that fails. Gives its start if it
    /// was taken.
    async fn tell(&self, started: Timestamp, ended: Option<Timestamp>) -> Option<Timestamp> {
        match self.post(&payload(&self.victim_url, started, ended)).await {
            Ok(()) => Some(started),
            Err(e) => {
                tracing::warn!(error = format!("{e:#}"), "the alert was not taken; sending it again");
                None
            }
        }
    }

    async fn post(&self, payload: &Value) -> anyhow::Result<()> {
        let request = self.http.post(&self.webhook).bearer_auth(self.token.expose()).json(payload);
        let answer = request.timeout(Duration::from_secs(5)).send().await.context("posting the alert")?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "the webhook answered {status}: {}",
            answer.text().await.unwrap_or_default()
        );
        Ok(())
    }
}

/// True if the victim itself says that it is well.
pub async fn healthy(http: &reqwest::Client, victim_url: &str) -> bool {
    let request = http.get(format!("{victim_url}/healthz")).timeout(Duration::from_secs(2));
    request.send().await.is_ok_and(|answer| answer.status().is_success())
}

/// What Alertmanager would send (version 4 of its webhook).
fn payload(victim_url: &str, started: Timestamp, ended: Option<Timestamp>) -> Value {
    let instance = victim_url.trim_start_matches("http://");
    let labels: Labels = [
        ("alertname", "CheckoutDown"),
        ("instance", instance),
        ("service", SERVICE),
        ("severity", "critical"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let annotations = json!({
        "summary": "checkout answers no customer",
        "description": format!("{victim_url}/healthz has not answered 200 for 2 s."),
    });
    let status = if ended.is_some() { "resolved" } else { "firing" };
    json!({
        "version": "4",
        "receiver": "aiops",
        "status": status,
        "groupKey": "{}:{alertname=\"CheckoutDown\"}",
        "truncatedAlerts": 0,
        "groupLabels": { "alertname": "CheckoutDown" },
        "commonLabels": &labels,
        "commonAnnotations": &annotations,
        "externalURL": "http://demo.invalid",
        "alerts": [{
            "status": status,
            "fingerprint": fingerprint(&labels),
            "labels": labels,
            "annotations": annotations,
            "startsAt": started.to_string(),
            "endsAt": ended.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_string()),
            "generatorURL": format!("{victim_url}/metrics"),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_what_alertmanager_would_send() {
        let at: Timestamp = "2026-11-21T03:02:00Z".parse().expect("a time");
        let fired = payload("http://127.0.0.1:9", at, None);
        assert_eq!(fired["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
        assert_eq!(fired["alerts"][0]["labels"]["instance"], "127.0.0.1:9");
        let resolved = payload("http://127.0.0.1:9", at, Some(at));
        assert_eq!(resolved["status"], "resolved");
        assert_eq!(fired["alerts"][0]["fingerprint"], resolved["alerts"][0]["fingerprint"]);
    }
}
