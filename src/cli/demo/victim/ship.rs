//! Sends the shop's log lines and samples to the intake, the way a log shipper would: in batches, again if it failed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

/// Lines that may wait; the oldest make room.
const MAX_WAITING: usize = 5000;

#[derive(Clone)]
pub struct Shipper {
    http: reqwest::Client,
    intake: String,
    token: String,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Value>,
    /// Milliseconds that the latest orders took.
    latencies: Vec<f64>,
}

impl Shipper {
    /// Sends what waits, four times a second.
    pub fn start(intake: String, token: String) -> Self {
        let shipper = Self { http: crate::http_client::new(), intake, token, waiting: Default::default() };
        let background = shipper.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(250)).await;
                background.ship_lines().await;
            }
        });
        shipper
    }

    pub fn info(&self, message: &str) {
        self.line("info", message);
    }
    pub fn warn(&self, message: &str) {
        self.line("warn", message);
    }
    pub fn error(&self, message: &str) {
        self.line("error", message);
    }
    pub fn took(&self, time: Duration) {
        self.with(|w| w.latencies.push(time.as_secs_f64() * 1000.0));
    }
    /// Of the orders since the last call; none without any.
    pub fn mean_latency_ms(&self) -> Option<f64> {
        let latencies = self.with(|w| std::mem::take(&mut w.latencies));
        (!latencies.is_empty()).then(|| latencies.iter().sum::<f64>() / latencies.len() as f64)
    }

    /// Sends one sample of each; a failure costs these samples, as with any scrape.
    pub async fn ship(&self, samples: &[(&str, f64)]) {
        let at = crate::clock::now().to_string();
        let samples: Vec<Value> = samples
            .iter()
            .map(|(name, value)| json!({ "name": name, "service": super::SERVICE, "value": value, "timestamp": at }))
            .collect();
        self.post("metrics", &samples).await;
    }

    async fn ship_lines(&self) {
        let lines = self.with(|w| std::mem::take(&mut w.lines));
        if !lines.is_empty() && !self.post("logs", &lines).await {
            self.with(|w| {
                w.lines.splice(0..0, lines);
                let excess = w.lines.len().saturating_sub(MAX_WAITING);
                w.lines.drain(..excess);
            });
        }
    }

    /// True if it need not be sent again.
    async fn post(&self, what: &str, records: &[Value]) -> bool {
        let request = self
            .http
            .post(format!("{}/api/v1/{what}", self.intake))
            .bearer_auth(&self.token)
            .timeout(Duration::from_secs(3))
            .json(records);
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    fn line(&self, level: &str, message: &str) {
        let at = crate::clock::now().to_string();
        let line = json!({
            "@timestamp": at, "log.level": level, "service.name": super::SERVICE, "message": message,
        });
        self.with(|w| w.lines.push(line));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
