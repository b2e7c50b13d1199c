//! Looks at a server once a second while it is under load.

use std::{future::Future, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{load::round, process, scrape::Scraper};

/// What one look shows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Look {
    pub at_s: f64,
    /// Items of any kind that intake has taken so far.
    pub accepted: f64,
    /// Alerts that wait for correlation, and since when the oldest does, as the server last saw it.
    pub inbox_depth: f64,
    pub inbox_age_ms: f64,
    /// How long what it takes now will wait, and what correlation has taken so far.
    pub inbox_wait_ms: f64,
    pub taken: f64,
    /// Of overload: 0 is normal.
    pub level: f64,
    pub incidents: f64,
    pub memory_mb: f64,
}

/// Runs `load` and looks beside it. A look that fails is left out: the load goes on.
pub async fn during<T>(scraper: &Scraper, pid: u32, load: impl Future<Output = T>) -> (T, Vec<Look>) {
    let began = Instant::now();
    let mut looks = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => return (done, looks),
            _ = ticks.tick() => {
                let Ok(values) = scraper.values().await else { continue };
                looks.push(Look {
                    at_s: round(began.elapsed().as_secs_f64()),
                    accepted: values.sum("aiops_intake_items_total"),
                    inbox_depth: values.get("aiops_inbox_depth"),
                    inbox_age_ms: values.get("aiops_inbox_age_milliseconds"),
                    inbox_wait_ms: values.get("aiops_inbox_wait_milliseconds"),
                    taken: values.get("aiops_inbox_taken_total"),
                    level: values.get("aiops_overload_level"),
                    incidents: values.get("aiops_incidents_open"),
                    memory_mb: process::memory(pid).unwrap_or_default().now_mb,
                });
            }
        }
    }
}
