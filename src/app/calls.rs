//! Keeps the call graph that spans teach: saved now and then, known again after a restart, and shared among replicas.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    clock, metrics,
    model::{Called, Calls},
    store::{Result, Store, calls},
};

/// Puts what was saved into the graph, then saves what is learned every `period`, until stopped.
pub(super) async fn keep(graph: Calls, store: Store, period: Duration, stop: CancellationToken) {
    let mut known = false;
    loop {
        let stopped = stop.is_cancelled();
        // Other replicas learn from other partitions.
        if let Err(e) = turn(&graph, &store, !known || store.is_shared()).await {
            tracing::error!(error = %e, "the call graph could not be kept; trying again in {period:?}");
        } else {
            known = true;
        }
        if stopped {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn turn(graph: &Calls, store: &Store, read: bool) -> Result<()> {
    let learned = graph.unsaved();
    if !learned.is_empty()
        && let Err(e) = save(store, &learned).await
    {
        graph.not_saved(learned);
        return Err(e);
    }
    if read {
        let mut tx = store.read().await?;
        graph.restore(calls::all(&mut tx).await?, clock::now());
    }
    Ok(())
}

async fn save(store: &Store, learned: &[Called]) -> Result<()> {
    let mut tx = store.write().await?;
    calls::add(&mut tx, learned, clock::now()).await?;
    tx.commit().await?;
    metrics::CALLS_SAVED.inc_by(learned.len() as u64);
    Ok(())
}
