//! Ends alerts whose sender promised to repeat them by now and did not: Prometheus says so by an `endsAt` in the future.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::commit::{Committer, Road};
use crate::{
    clock,
    model::{Alert, AlertEvent, AlertState},
    owned::Keeper,
    store::{Store, alerts, inbox, leases::Lease},
};

/// While we were down nobody could repeat anything: what was last heard of before we listened gets so long (Prometheus
/// resends about every minute).
const GRACE: Duration = Duration::from_secs(120);

/// Correlation that lets deliveries wait for so long would be sent the same ends again and again.
const STALLED: Duration = Duration::from_secs(15);

/// What the sweep needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub committer: Committer,
    /// Since when this process takes alerts.
    pub listening_since: Timestamp,
}

/// Sweeps again and again whenever this replica is the one that does, until cancelled.
pub async fn run(deps: Deps, every: Duration, keeper: Keeper, cancel: CancellationToken) {
    keeper
        .run("expire", cancel, |lease, ours| {
            let deps = deps.clone();
            async move { sweep(deps, &lease, every, ours).await }
        })
        .await;
}

async fn sweep(mut deps: Deps, lease: &Lease, every: Duration, cancel: CancellationToken) {
    let mut steps = clock::Steps::default();
    while !cancel.is_cancelled() {
        if steps.look().is_some() {
            // By the clock that holds now, nobody has had the time to repeat anything.
            deps.listening_since = clock::now();
        }
        if let Err(error) = expire_once(&deps, lease, clock::now()).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "expired alerts could not be ended; the next sweep tries again"
            );
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Sends resolved events for alerts that expired by `now`; how many. What still waits in the inbox may be the repeat, so
/// only what expired before the oldest of it arrived is ended.
pub async fn expire_once(deps: &Deps, lease: &Lease, now: Timestamp) -> anyhow::Result<usize> {
    // Before the alerts are read: what is taken off the inbox meanwhile is seen among them.
    let oldest_waiting = inbox::backlog(&deps.store).await?.1;
    if oldest_waiting.is_some_and(|at| clock::between(at, now) > STALLED) {
        return Ok(0);
    }
    let mut tx = deps.store.read_few().await?;
    let expired = alerts::expired(&mut tx, oldest_waiting.map_or(now, |at| at.min(now))).await?;
    drop(tx);
    let graceful = now < clock::after(deps.listening_since, GRACE);
    let over: Vec<AlertEvent> = expired
        .into_iter()
        .filter(|alert| !graceful || alert.last_seen_at >= deps.listening_since)
        .map(ended)
        .collect();
    let count = over.len();
    deps.committer.alerts_held(lease, Road::Expiry, over).await?;
    Ok(count)
}

/// What ends an alert that nobody repeats.
pub fn ended(alert: Alert) -> AlertEvent {
    AlertEvent {
        ends_at: alert.expires_at,
        expires_at: None,
        state: AlertState::Resolved,
        source: alert.source,
        fingerprint: alert.fingerprint,
        labels: alert.labels,
        annotations: alert.annotations,
        starts_at: alert.starts_at,
        generator_url: alert.generator_url,
    }
}
