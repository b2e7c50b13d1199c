//! Repairs what Alertmanager's webhook missed: what fired or ended while we were down, or while it forgot. Polls the API of
//! every peer, compares with what is known here, and hands the difference to the inbox as events of the source `reconcile`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{
    alert::{clean, fingerprint_of, printable, time},
    alertmanager,
    commit::{Committer, Road},
};
use crate::{
    alarm::{self, Alarm},
    clock, config, metrics,
    model::{Alert, AlertEvent, AlertState, Labels, Stage},
    owned::Keeper,
    store::{
        Store, alerts,
        decisions::{self, About},
        leases::{self, Lease},
    },
};

/// What repaired alerts name as their source.
pub const SOURCE: &str = "reconcile";
const LEASE: &str = "reconcile";
/// An alert that began less than so long ago (or than the polling interval, if that is shorter) is left to the webhook:
/// Alertmanager waits for its group.
const GRACE: Duration = Duration::from_secs(30);
/// A peer that started less than so long ago (or than three polling intervals) has not heard from Prometheus yet: what it
/// does not list proves nothing.
const YOUNG: Duration = Duration::from_secs(150);
/// Polls in a row that must miss an alert before it counts as over.
const MISSED: u32 = 2;
/// Events of one delivery.
const DELIVERY: usize = 500;

/// What the reconciler needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub committer: Committer,
    pub http: reqwest::Client,
    pub settings: Arc<config::Alertmanager>,
}

/// A restart of Alertmanager is no reason to wake anybody.
const BLIND: Duration = Duration::from_secs(120);

/// What it remembers from poll to poll.
#[derive(Default)]
pub struct Memory {
    /// Fingerprint → polls in a row that did not list it.
    missed: BTreeMap<String, u32>,
    /// Suppressed alerts whose decision is on record.
    noted: BTreeSet<String>,
    /// Since when no peer could be asked.
    blind_since: Option<Timestamp>,
}

/// What one poll repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    pub opened: usize,
    pub resolved: usize,
}

/// An alert as `GET /api/v2/alerts` lists it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
    starts_at: String,
    fingerprint: String,
    #[serde(rename = "generatorURL", default)]
    generator_url: String,
    status: Status,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: String,
    #[serde(default)]
    silenced_by: Vec<String>,
    #[serde(default)]
    inhibited_by: Vec<String>,
}

/// One peer's answer.
struct Peer {
    alerts: Vec<Listed>,
    started_at: Timestamp,
}

/// Polls at once and then at the interval whenever this replica is the one that does, until cancelled. Needs configured peers.
pub async fn run(deps: Deps, keeper: Keeper, cancel: CancellationToken) {
    keeper
        .run(LEASE, cancel, |lease, ours| {
            let deps = deps.clone();
            async move { poll(&deps, &lease, ours).await }
        })
        .await;
}

async fn poll(deps: &Deps, lease: &Lease, cancel: CancellationToken) {
    // What another replica remembers is its own.
    let mut memory = Memory::default();
    while !cancel.is_cancelled() {
        if let Err(error) = reconcile_once(deps, lease, &mut memory).await {
            tracing::warn!(error = format!("{error:#}"), "reconciling with Alertmanager failed");
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(deps.settings.reconcile_every) => {}
        }
    }
    // Whoever polls next sees for itself.
    alarm::clear(Alarm::ReconcilerBlind);
}

/// One poll of every peer, and the repairs that follow from it. Fails if no peer can be reached, or the repairs cannot be
/// made durable; then the next poll tries again. They are made only while the lease is ours.
pub async fn reconcile_once(deps: &Deps, lease: &Lease, memory: &mut Memory) -> anyhow::Result<Repairs> {
    let peers = ask_all(deps, memory).await?;
    let now = clock::now();
    let listed = merge(&peers);
    let (missing, suppressed) = unknown_here(deps, &listed, now).await?;
    let over = gone(deps, memory, &peers, &listed, now).await?;
    let repairs = Repairs { opened: missing.len(), resolved: over.len() };
    for (repair, count) in [("opened", repairs.opened), ("resolved", repairs.resolved)] {
        metrics::RECONCILED.with_label_values(&[repair]).inc_by(count as u64);
    }
    if repairs != Repairs::default() {
        tracing::info!(
            opened = repairs.opened,
            resolved = repairs.resolved,
            "repaired what the webhook missed"
        );
    }
    for events in [missing, over].concat().chunks(DELIVERY) {
        deps.committer.alerts_held(lease, Road::Reconcile, events.to_vec()).await?;
        memory.missed.retain(|f, _| !events.iter().any(|e| e.fingerprint == *f));
    }
    note(deps, lease, memory, &suppressed)
        .await
        .context("recording why suppressed alerts were left alone")?;
    Ok(repairs)
}

/// The answers of the peers that can be reached.
async fn ask_all(deps: &Deps, memory: &mut Memory) -> anyhow::Result<Vec<Peer>> {
    let answers = futures_util::future::join_all(deps.settings.urls.iter().map(|url| ask(deps, url))).await;
    let mut peers = Vec::new();
    let mut last = None;
    for (url, answer) in deps.settings.urls.iter().zip(answers) {
        match answer {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                metrics::RECONCILE_FAILURES.inc();
                tracing::warn!(url, error = format!("{error:#}"), "an Alertmanager cannot be asked");
                last = Some(error);
            }
        }
    }
    let Some(error) = last.filter(|_| peers.is_empty()) else {
        memory.blind_since = None;
        alarm::clear(Alarm::ReconcilerBlind);
        return Ok(peers);
    };
    let now = clock::now();
    let blind = clock::between(*memory.blind_since.get_or_insert(now), now);
    if blind >= BLIND.max(2 * deps.settings.reconcile_every) {
        let text =
            format!("no Alertmanager could be asked for {} s; the last said: {error:#}", blind.as_secs());
        alarm::raise(Alarm::ReconcilerBlind, text);
    }
    Err(error)
}

async fn ask(deps: &Deps, url: &str) -> anyhow::Result<Peer> {
    #[derive(Deserialize)]
    struct Running {
        uptime: Timestamp,
    }
    #[derive(Deserialize)]
    struct Receiver {
        name: String,
    }
    let receiver = deps.settings.receiver.as_str();
    let Running { uptime: started_at } = get(deps, url, "status", &[]).await?;
    if receiver.is_empty() {
        return Ok(Peer { alerts: get(deps, url, "alerts", &[]).await?, started_at });
    }
    let receivers: Vec<Receiver> = get(deps, url, "receivers", &[]).await?;
    // Filtered by an unknown name its list would be empty, and everything here would count as over.
    anyhow::ensure!(
        receivers.iter().any(|r| r.name == receiver),
        "alertmanager.receiver: {url} has no receiver {receiver:?}"
    );
    let anchored = format!("^(?:{})$", regex::escape(receiver));
    Ok(Peer { alerts: get(deps, url, "alerts", &[("receiver", &anchored)]).await?, started_at })
}

async fn get<T: DeserializeOwned>(
    deps: &Deps,
    url: &str,
    what: &str,
    query: &[(&str, &str)],
) -> anyhow::Result<T> {
    let full = format!("{}/api/v2/{what}", url.trim_end_matches('/'));
    let request = deps.http.get(&full).query(query).timeout(deps.settings.timeout);
    let asking = || format!("asking {full}");
    let answer = deps.settings.auth.apply(request).send().await.with_context(asking)?;
    let answer = answer.error_for_status().with_context(asking)?;
    answer.json().await.with_context(asking)
}

/// By fingerprint, over all peers; one that notifies wins over one that suppresses.
fn merge(peers: &[Peer]) -> BTreeMap<String, Listed> {
    let mut merged: BTreeMap<String, Listed> = BTreeMap::new();
    for listed in peers.iter().flat_map(|p| &p.alerts) {
        let fingerprint = fingerprint_of(Some(&listed.fingerprint), &listed.labels);
        let known = merged.entry(fingerprint).or_insert_with(|| listed.clone());
        if known.status.state == "suppressed" && listed.status.state != "suppressed" {
            *known = listed.clone();
        }
    }
    merged
}

/// Events for what fires there and not here; and what is suppressed there and unknown here.
async fn unknown_here<'a>(
    deps: &Deps,
    listed: &'a BTreeMap<String, Listed>,
    now: Timestamp,
) -> anyhow::Result<(Vec<AlertEvent>, Vec<(&'a str, &'a Status)>)> {
    let (mut missing, mut suppressed) = (Vec::new(), Vec::new());
    let settled = clock::before(now, GRACE.min(deps.settings.reconcile_every));
    let mut tx = deps.store.read().await?;
    for (fingerprint, listed) in listed {
        let known = alerts::get(&mut tx, fingerprint).await?;
        if known.is_some_and(|k| k.state == AlertState::Firing) {
            continue;
        }
        if listed.status.state == "suppressed" {
            suppressed.push((fingerprint.as_str(), &listed.status));
            continue;
        }
        match event(fingerprint, listed) {
            Ok(event) if event.starts_at <= settled => missing.push(event),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(fingerprint, error, "Alertmanager lists an alert that cannot be read")
            }
        }
    }
    Ok((missing, suppressed))
}

fn event(fingerprint: &str, listed: &Listed) -> Result<AlertEvent, String> {
    Ok(AlertEvent {
        source: SOURCE.into(),
        fingerprint: fingerprint.to_owned(),
        state: AlertState::Firing,
        labels: clean(listed.labels.clone()),
        annotations: clean(listed.annotations.clone()),
        starts_at: time(Some(&listed.starts_at))?.ok_or("it has no start")?,
        ends_at: None,
        expires_at: None,
        generator_url: printable(listed.generator_url.clone()),
    })
}

/// Events for what fires here by Alertmanager's word and was not listed by any peer for [`MISSED`] polls in a row.
async fn gone(
    deps: &Deps,
    memory: &mut Memory,
    peers: &[Peer],
    listed: &BTreeMap<String, Listed>,
    now: Timestamp,
) -> anyhow::Result<Vec<AlertEvent>> {
    let young = clock::before(now, YOUNG.min(deps.settings.reconcile_every * 3));
    if peers.iter().any(|p| p.started_at > young) {
        memory.missed.clear();
        return Ok(Vec::new());
    }
    let mut tx = deps.store.read().await?;
    let firing = alerts::firing_from(&mut tx, &[alertmanager::SOURCE, SOURCE]).await?;
    let absent: Vec<Alert> = firing.into_iter().filter(|a| !listed.contains_key(&a.fingerprint)).collect();
    memory.missed.retain(|f, _| absent.iter().any(|a| a.fingerprint == *f));
    let mut over = Vec::new();
    for alert in absent {
        let polls = memory.missed.entry(alert.fingerprint.clone()).or_insert(0);
        *polls += 1;
        if *polls >= MISSED {
            over.push(resolved(alert, now));
        }
    }
    Ok(over)
}

fn resolved(alert: Alert, now: Timestamp) -> AlertEvent {
    AlertEvent {
        source: SOURCE.into(),
        fingerprint: alert.fingerprint,
        state: AlertState::Resolved,
        labels: alert.labels,
        annotations: alert.annotations,
        starts_at: alert.starts_at,
        ends_at: Some(now),
        expires_at: None,
        generator_url: alert.generator_url,
    }
}

/// Records once why a suppressed alert opens nothing here.
async fn note(
    deps: &Deps,
    lease: &Lease,
    memory: &mut Memory,
    suppressed: &[(&str, &Status)],
) -> crate::store::Result<()> {
    memory.noted.retain(|f| suppressed.iter().any(|(s, _)| s == f));
    let new: Vec<_> = suppressed.iter().filter(|(f, _)| !memory.noted.contains(*f)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut tx = deps.store.write().await?;
    leases::hold(&mut tx, lease).await?;
    for (fingerprint, status) in &new {
        let clause =
            if status.silenced_by.is_empty() { "alertmanager inhibition" } else { "alertmanager silence" };
        let by = [status.silenced_by.as_slice(), &status.inhibited_by].concat().join(", ");
        let why = format!("Alertmanager suppresses it (by {by}), so nothing is opened here");
        decisions::add(&mut tx, Stage::Intake, About::alert(fingerprint, None), "ignored", clause, &why)
            .await?;
    }
    tx.commit().await?;
    memory.noted.extend(new.into_iter().map(|(f, _)| (*f).to_owned()));
    Ok(())
}
