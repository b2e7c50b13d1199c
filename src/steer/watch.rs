//! What ends a step early: the kill switch, asked for several times a second, or the end of the service.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Error, is_stopped};
use crate::store::Store;

/// The switch holds within a second: this, and the time that a process needs to end.
const POLL: Duration = Duration::from_millis(250);
/// What a step may still take when the service ends; then it is cut off.
const GRACE: Duration = Duration::from_secs(4);

/// Why a step must end.
#[derive(Clone, Debug, PartialEq)]
pub enum StopReason {
    /// `stopped by … : reason`.
    Switch(String),
    Shutdown,
}

/// Watches until it is dropped.
pub struct Stop {
    token: CancellationToken,
    shutdown: CancellationToken,
    switch: Arc<Mutex<Option<String>>>,
    watcher: JoinHandle<()>,
}

impl Stop {
    pub fn watch(store: &Store, shutdown: &CancellationToken) -> Self {
        let token = CancellationToken::new();
        let switch = Arc::new(Mutex::new(None));
        let watcher = tokio::spawn(watch(store.clone(), shutdown.clone(), token.clone(), switch.clone()));
        Self { token, shutdown: shutdown.clone(), switch, watcher }
    }
    /// Cancelled when a step must end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
    /// The switch goes before a shutdown: what it stopped must not begin again by itself.
    pub fn reason(&self) -> Option<StopReason> {
        let switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        switch
            .map(StopReason::Switch)
            .or_else(|| self.shutdown.is_cancelled().then_some(StopReason::Shutdown))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn watch(
    store: Store,
    shutdown: CancellationToken,
    token: CancellationToken,
    switch: Arc<Mutex<Option<String>>>,
) {
    let end = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = end => {}
        why = until_switched(&store) => {
            *switch.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
    token.cancel();
}

async fn until_switched(store: &Store) -> String {
    loop {
        match stopped(store).await {
            Ok(Some(why)) => return why,
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "asking for the kill switch failed"),
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn stopped(store: &Store) -> Result<Option<String>, Error> {
    let mut tx = store.read().await?;
    is_stopped(&mut tx).await
}
