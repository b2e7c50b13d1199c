//! What is done again and again by the clock.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::Retention,
    store::{
        Result, Store,
        leases::{self, Lease},
        retention,
    },
};

/// Calls `work` now and then every `period` until stopped. What fails is logged with its name and tried at the next turn.
pub(super) async fn every<F, E>(
    name: &'static str,
    period: Duration,
    stop: CancellationToken,
    work: impl Fn() -> F,
) where
    F: Future<Output = std::result::Result<(), E>>,
    E: std::fmt::Display,
{
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            done = work() => if let Err(e) = done {
                tracing::error!(schedule = name, error = %e, "scheduled work failed; it comes again in {period:?}");
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// Forgets in small transactions, so that nobody waits long behind it; only while the lease is ours.
pub(super) async fn forget(store: Store, lease: Lease, ages: Arc<Retention>) -> Result<()> {
    loop {
        let mut tx = store.write_much().await?;
        leases::hold(&mut tx, &lease).await?;
        let deleted = retention::sweep(&mut tx, &ages, clock::now()).await?;
        tx.commit().await?;
        if deleted == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
