//! Copies our own records (incidents, diagnoses, the audit trail) into indices of Elasticsearch or OpenSearch. Each change is noted in
//! the transaction that makes it; what is noted is sent until it is there. Sending again changes nothing: a document has the
//! record's id, and a version that grows with every change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    clock, metrics,
    owned::Keeper,
    redact,
    retry::Backoff,
    search::elastic::{Document, Elastic, Put},
    store::{
        self, Store, Tx, audit, diagnoses,
        exports::{self, Changed, Kind},
        flags, incidents,
        leases::{self, Lease},
    },
};

const LEASE: &str = "export";
/// Changes of one turn, and bytes of one request about.
const BATCH: i64 = 500;
const MAX_BYTES: usize = 4 << 20;
const PAUSE: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// Set once the records from before the export were noted, with how far that came.
const CAUGHT_UP: &str = "export.caught_up";

/// What the export needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub elastic: Elastic,
    /// How the names of the indices begin.
    pub prefix: String,
    pub progress: Progress,
}

/// How it goes; cheap to clone.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    backlog: exports::Backlog,
    last_sent_at: Option<Timestamp>,
    error: Option<String>,
    refusal: Option<String>,
    exporting: bool,
}

impl Progress {
    /// For `/api/v1/status`.
    pub fn report(&self) -> Value {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "waiting": state.backlog.waiting,
            "refused": state.backlog.refused,
            "last_sent_at": state.last_sent_at.map(|at| at.to_string()),
            "error": state.error,
            "refusal": state.refusal,
            "exporting": state.exporting,
        })
    }
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What came of one turn.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    /// Documents that are there now.
    pub sent: usize,
    /// Documents that the index refused for good.
    pub refused: usize,
    /// Why some are to be sent again.
    pub later: Option<String>,
    /// There may be more to do at once.
    pub more: bool,
}

/// Without an export nothing is noted, so a later one has to catch up.
pub async fn off(store: &Store) -> store::Result<()> {
    if flags::get(&mut store.read().await?, CAUGHT_UP).await?.is_none() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    flags::clear(&mut tx, CAUGHT_UP).await?;
    tx.commit().await
}

/// Exports until stopped; one replica at a time.
pub async fn run(deps: Deps, keeper: Keeper, stop: CancellationToken) {
    // What was refused under another version, or by another index, may be taken now.
    if let Err(error) = retry_refused(&deps.store).await {
        tracing::warn!(%error, "what the index had refused is not tried again yet");
    }
    let work = |lease: Lease, stop: CancellationToken| {
        let deps = deps.clone();
        async move { work(&deps, &lease, &stop).await }
    };
    keeper.run(LEASE, stop, work).await;
}

async fn work(deps: &Deps, lease: &Lease, stop: &CancellationToken) {
    let mut failures = 0;
    deps.progress.set(|s| s.exporting = true);
    while !stop.is_cancelled() {
        let turn = tokio::select! {
            () = stop.cancelled() => break,
            turn = turn(deps, lease) => turn,
        };
        let wait = match turn {
            Ok(Turn { later: None, more, .. }) => {
                failures = 0;
                deps.progress.set(|s| s.error = None);
                if more { Duration::ZERO } else { PAUSE }
            }
            Ok(Turn { later: Some(why), .. }) => failed(deps, &mut failures, why),
            Err(e) => failed(deps, &mut failures, format!("{e:#}")),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    deps.progress.set(|s| s.exporting = false);
}

fn failed(deps: &Deps, failures: &mut i64, why: String) -> Duration {
    *failures += 1;
    if *failures == 1 {
        tracing::warn!(why, "the export of our own records has to wait; nothing is lost");
    }
    deps.progress.set(|s| s.error = Some(why));
    BACKOFF.wait(*failures)
}

/// One batch. An error is about the whole of it: nothing is known to be there.
pub async fn turn(deps: &Deps, lease: &Lease) -> anyhow::Result<Turn> {
    let catching_up = catch_up(&deps.store, lease).await?;
    let mut turn = send(deps, lease).await?;
    turn.more |= catching_up;
    Ok(turn)
}

/// Notes a part of the records from before the export; true while there are more.
async fn catch_up(store: &Store, lease: &Lease) -> store::Result<bool> {
    let mut tx = store.read().await?;
    if behind(&caught_up(&mut tx).await?).is_none() {
        return Ok(false);
    }
    drop(tx);
    let mut tx = store.write_much().await?;
    leases::hold(&mut tx, lease).await?;
    let mut done = caught_up(&mut tx).await?;
    let Some(kind) = behind(&done) else { return Ok(false) };
    let after = done.get(kind.as_str()).and_then(Value::as_str).unwrap_or_default().to_owned();
    let last = exports::catch_up(&mut tx, kind, &after, BATCH).await?;
    done.insert(kind.to_string(), last.map_or(Value::Bool(true), Value::String));
    flags::set(&mut tx, CAUGHT_UP, &json!(done)).await?;
    tx.commit().await?;
    Ok(true)
}

/// By kind: true, or the last record that was noted.
async fn caught_up(tx: &mut Tx) -> store::Result<BTreeMap<String, Value>> {
    let kept = flags::get(tx, CAUGHT_UP).await?;
    Ok(kept.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
}

fn behind(done: &BTreeMap<String, Value>) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| done.get(kind.as_str()) != Some(&Value::Bool(true)))
}

async fn send(deps: &Deps, lease: &Lease) -> anyhow::Result<Turn> {
    // Changes and records in one snapshot: a document holds all changes up to its version, and maybe more.
    let mut tx = deps.store.read().await?;
    let changes = exports::waiting(&mut tx, BATCH).await?;
    let backlog = exports::backlog(&mut tx).await?;
    let refusal = exports::refusal(&mut tx).await?;
    deps.progress.set(|s| (s.backlog, s.refusal) = (backlog, refusal));
    metrics::EXPORT_WAITING.set(backlog.waiting);
    metrics::EXPORT_REFUSED.set(backlog.refused);
    if changes.is_empty() {
        return Ok(Turn::default());
    }
    let full = changes.len() as i64 == BATCH;
    let (mut documents, mut gone, mut bytes, mut left_over) = (Vec::new(), Vec::new(), 0, false);
    for change in newest(changes) {
        if bytes > MAX_BYTES {
            left_over = true;
            break;
        }
        match document(&mut tx, &deps.prefix, &change).await? {
            Some(document) => {
                bytes += document.body.to_string().len();
                documents.push((change, document));
            }
            // Retention was faster.
            None => gone.push(change),
        }
    }
    drop(tx);
    // A document without its template would make an index that guesses its fields.
    anyhow::ensure!(
        documents.is_empty()
            || deps.elastic.is_set_up().await.map_err(|e| anyhow::anyhow!("Elasticsearch {e}"))?,
        "the index templates {}-* are missing or not ours: run `aiops check --fix`",
        deps.prefix
    );
    let mut turn = Turn { more: full || left_over, ..Turn::default() };
    let bodies: Vec<Document> = documents.iter().map(|(_, d)| d.clone()).collect();
    let outcomes = if bodies.is_empty() {
        Vec::new()
    } else {
        deps.elastic.put(&bodies).await.map_err(|e| anyhow::anyhow!("Elasticsearch {e}"))?
    };
    let mut tx = deps.store.write().await?;
    leases::hold(&mut tx, lease).await?;
    for change in &gone {
        exports::done(&mut tx, change).await?;
    }
    for ((change, _), outcome) in documents.iter().zip(outcomes) {
        let kind = change.kind.as_str();
        match outcome {
            Put::Done => {
                exports::done(&mut tx, change).await?;
                turn.sent += 1;
                metrics::EXPORTED.with_label_values(&[kind, "sent"]).inc();
            }
            Put::Refused(why) => {
                tracing::warn!(
                    kind,
                    subject = change.subject,
                    why,
                    "an index refuses a record; set aside until `aiops check --fix`"
                );
                exports::refuse(&mut tx, change, &why).await?;
                turn.refused += 1;
                metrics::EXPORTED.with_label_values(&[kind, "refused"]).inc();
            }
            Put::Later(why) => {
                turn.later = Some(why);
                metrics::EXPORTED.with_label_values(&[kind, "later"]).inc();
            }
        }
    }
    let (backlog, refusal) = (exports::backlog(&mut tx).await?, exports::refusal(&mut tx).await?);
    tx.commit().await?;
    deps.progress.set(|s| {
        (s.backlog, s.refusal) = (backlog, refusal);
        if turn.sent > 0 {
            s.last_sent_at = Some(clock::now());
        }
    });
    Ok(turn)
}

/// Of several changes of one record the newest stands for all, in the place of the oldest.
fn newest(changes: Vec<Changed>) -> Vec<Changed> {
    let mut places: BTreeMap<(Kind, String), usize> = BTreeMap::new();
    let mut all: Vec<Changed> = Vec::new();
    for change in changes {
        let place = *places.entry((change.kind, change.subject.clone())).or_insert(all.len());
        match all.get_mut(place) {
            Some(earlier) => *earlier = change,
            None => all.push(change),
        }
    }
    all
}

async fn document(tx: &mut Tx, prefix: &str, change: &Changed) -> store::Result<Option<Document>> {
    let subject = change.subject.as_str();
    let found = match change.kind {
        Kind::Incident => incidents::get(tx, subject).await?.map(|i| (i.opened_at, json!(i))),
        Kind::Diagnosis => diagnoses::get(tx, subject).await?.map(|d| (d.created_at, json!(d))),
        Kind::Audit => match subject.parse() {
            Ok(seq) => audit::get(tx, seq).await?.map(|e| (e.at, json!(e))),
            Err(_) => None,
        },
    };
    Ok(found.map(|(at, mut body)| {
        redact::mask_json(&mut body);
        body["@timestamp"] = at.to_string().into();
        // By the month in which it began, which does not change.
        let index = format!("{prefix}-{}-{}", change.kind, at.strftime("%Y.%m"));
        Document { index, id: subject.to_owned(), version: change.seq, body }
    }))
}

async fn retry_refused(store: &Store) -> store::Result<u64> {
    let mut tx = store.write().await?;
    let tried = exports::retry(&mut tx).await?;
    tx.commit().await?;
    Ok(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_change_of_a_record_stands_for_all() {
        let change = |seq, subject: &str| Changed { seq, kind: Kind::Incident, subject: subject.into() };
        let kept = newest(vec![change(1, "a"), change(2, "b"), change(3, "a"), change(4, "c")]);
        assert_eq!(kept, [change(3, "a"), change(2, "b"), change(4, "c")]);
    }
}
