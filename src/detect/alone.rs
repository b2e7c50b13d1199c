//! Partitions of a bus that is this process's own: what was learned is saved now and then, and when the process ends, and
//! learning goes on from there.
//!
//! Nobody keeps the telemetry that came after the last save. A kill loses what was learned from it, and it is told as a gap.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use super::{Detectors, Partition, Signal, TICK, partition::SET_BACK};
use crate::{
    clock, metrics,
    store::{
        Store,
        partitions::{self, Saved},
    },
};

/// The store is not asked for more than so many bytes each second, over all partitions: 4 GB a day at most.
const SAVED_PER_SECOND: f64 = 5e4;

/// Keeps what one partition learned.
pub(super) struct Alone {
    store: Store,
    index: usize,
    save_at: Instant,
    /// Whether something was judged that is not saved.
    unsaved: bool,
    /// The save that goes on.
    saving: Option<JoinHandle<()>>,
}

impl Alone {
    /// Puts what was saved in place.
    pub async fn restore(store: Store, index: usize, this: &Detectors) -> Self {
        let saved = loop {
            match read(&store, index).await {
                Ok(saved) => break saved,
                Err(e) => {
                    let error = format!("{e:#}");
                    tracing::warn!(
                        partition = index,
                        error,
                        "what was learned could not be read; trying again"
                    );
                    tokio::time::sleep(TICK).await;
                }
            }
        };
        let now = clock::now();
        if let (Some(state), Some(at)) = (saved.state, saved.at) {
            this.put(index, learned(this, index, state, at, now).await);
        }
        let save_at = Instant::now() + this.settings.save_every;
        Self { store, index, save_at, unsaved: false, saving: None }
    }

    /// Something was judged.
    pub fn changed(&mut self) {
        self.unsaved = true;
    }

    /// Saves if it is time to.
    pub async fn tick(&mut self, this: &Detectors) -> anyhow::Result<()> {
        let is_saving = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if self.unsaved && !is_saving && Instant::now() >= self.save_at {
            self.save(this).await?;
        }
        Ok(())
    }

    /// Saves what is not saved yet and waits until it is.
    pub async fn end(mut self, this: &Detectors) -> anyhow::Result<()> {
        if let Some(saving) = self.saving.take() {
            saving.await.context("saving what was learned")?;
        }
        if self.unsaved {
            self.save(this).await?;
        }
        match self.saving {
            Some(saving) => saving.await.context("saving what was learned"),
            None => Ok(()),
        }
    }

    async fn save(&mut self, this: &Detectors) -> anyhow::Result<()> {
        let state = this.pack(self.index).await?;
        let share = SAVED_PER_SECOND / this.partitions.len() as f64;
        let pause = Duration::from_secs_f64(state.len() as f64 / share);
        self.save_at = Instant::now() + this.settings.save_every.max(pause);
        self.unsaved = false;
        // What was found goes first: a state that has told of an onset must not outlive one that is lost.
        let (asked, durable) = oneshot::channel();
        this.signals.send(Signal::Durable(asked)).await.context("nobody takes anomalies any more")?;
        let (store, index) = (self.store.clone(), self.index);
        self.saving = Some(tokio::spawn(async move {
            if durable.await.is_err() {
                return;
            }
            match write(&store, index, &state).await {
                Ok(()) => {
                    metrics::DETECT_SAVES.inc();
                    metrics::DETECT_SAVED_BYTES.inc_by(state.len() as u64);
                }
                Err(e) => {
                    let error = format!("{e:#}");
                    tracing::warn!(
                        partition = index,
                        error,
                        "what was learned could not be saved; it is tried again with what comes"
                    );
                }
            }
        }));
        Ok(())
    }
}

async fn read(store: &Store, index: usize) -> anyhow::Result<Saved> {
    let mut tx = store.read_few().await?;
    Ok(partitions::saved(&mut tx, index).await?)
}

async fn write(store: &Store, index: usize, state: &[u8]) -> anyhow::Result<()> {
    let mut tx = store.write().await?;
    partitions::save_alone(&mut tx, index, state).await?;
    Ok(tx.commit().await?)
}

async fn learned(this: &Detectors, index: usize, state: Vec<u8>, at: Timestamp, now: Timestamp) -> Partition {
    if at > clock::after(now, SET_BACK) {
        let why = anyhow::anyhow!("it was saved at {at}, and it is {now}: the clock was set back");
        return this.anew(index, &why);
    }
    match this.unpack(index, state).await {
        Ok(mut partition) => {
            partition.resume(at, now);
            partition
        }
        Err(e) => this.anew(index, &e),
    }
}
