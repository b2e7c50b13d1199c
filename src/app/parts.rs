//! The long-running parts of the program: started in order, named, watched, stopped in reverse order.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::threads;

/// A part that does not stop within this time is left to the end of the process.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// All parts, in the order of starting.
#[derive(Default)]
pub(super) struct Parts {
    running: Vec<Part>,
    ended: Ended,
}

struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The first part that ended although nobody had stopped it.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<Mutex<Option<&'static str>>>);

impl Ended {
    /// Which part is missing, if one is.
    pub fn get(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    /// Starts a part. It runs until the token that it is given is cancelled; if it ends before, or panics, the program is not
    /// ready any more, and says which part is missing.
    pub fn start<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let body = tokio::spawn(run(stop.clone()));
        self.watch(name, stop, async move { body.await.is_err() });
    }

    /// Starts a part on a thread of its own.
    pub fn start_apart<F>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let body = threads::spawn(name, run(stop.clone()))?;
        self.watch(name, stop, async move { body.await.is_err() });
        Ok(())
    }

    /// Waits for the end of a part, which says whether it panicked.
    fn watch(
        &mut self,
        name: &'static str,
        stop: CancellationToken,
        end: impl Future<Output = bool> + Send + 'static,
    ) {
        let (ended, watched) = (self.ended.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let panicked = end.await;
            if !watched.is_cancelled() {
                tracing::error!(part = name, panicked, "a part of the program has ended; restart it");
                ended.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(name);
            }
        });
        self.running.push(Part { name, stop, task });
    }

    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Stops every part, the last started first, each before the next.
    pub async fn stop(self) {
        for part in self.running.into_iter().rev() {
            part.stop.cancel();
            if tokio::time::timeout(STOP_WITHIN, part.task).await.is_err() {
                tracing::warn!(
                    part = part.name,
                    "still busy after 10 s; its work is taken up at the next start"
                );
            }
        }
    }
}
