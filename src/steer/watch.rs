//! What ends a step early: the kill switch and the cancelling of its run, asked for several times a second, or the end of the
//! service.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Error, is_cancelled, is_stopped};
use crate::{model::Said, store::Store};

/// The switch holds within a second: this, and the time that a process needs to end.
const POLL: Duration = Duration::from_millis(250);
/// What a step may still take when the service ends; then it is cut off.
const GRACE: Duration = Duration::from_secs(4);

/// Why a step must end.
#[derive(Clone, Debug, PartialEq)]
pub enum StopReason {
    /// `cancelled by … : reason`.
    Cancelled(Said),
    /// `stopped by … : reason`.
    Switch(Said),
    Shutdown,
}

/// Watches one run until it is dropped.
pub struct Stop {
    token: CancellationToken,
    shutdown: CancellationToken,
    /// Why a person wants it to end.
    asked: Arc<Mutex<Option<StopReason>>>,
    watcher: JoinHandle<()>,
}

impl Stop {
    pub fn watch(store: &Store, run_id: &str, shutdown: &CancellationToken) -> Self {
        let token = CancellationToken::new();
        let asked = Arc::new(Mutex::new(None));
        let watching =
            watch(store.clone(), run_id.to_owned(), shutdown.clone(), token.clone(), asked.clone());
        Self { token, shutdown: shutdown.clone(), asked, watcher: tokio::spawn(watching) }
    }
    /// Cancelled when a step must end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
    /// What a person wants goes before a shutdown: what they stopped must not begin again by itself.
    pub fn reason(&self) -> Option<StopReason> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.or_else(|| self.shutdown.is_cancelled().then_some(StopReason::Shutdown))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn watch(
    store: Store,
    run_id: String,
    shutdown: CancellationToken,
    token: CancellationToken,
    asked: Arc<Mutex<Option<StopReason>>>,
) {
    let end = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = end => {}
        why = until_asked(&store, &run_id) => {
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
    token.cancel();
}

async fn until_asked(store: &Store, run_id: &str) -> StopReason {
    loop {
        match wish(store, run_id).await {
            Ok(Some(why)) => return why,
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "asking whether a run is to stop failed"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Cancelling goes before the switch: it says the same about fewer things, and more about what comes after.
async fn wish(store: &Store, run_id: &str) -> Result<Option<StopReason>, Error> {
    let mut tx = store.read().await?;
    if let Some(why) = is_cancelled(&mut tx, run_id).await? {
        return Ok(Some(StopReason::Cancelled(why)));
    }
    Ok(is_stopped(&mut tx).await?.map(StopReason::Switch))
}
