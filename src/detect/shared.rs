//! Partitions of a bus that several processes share: read by whoever has the lease, from where the last reader's state was
//! saved.
//!
//! State and the place in the stream up to which it knows it are saved in one transaction, which holds the lease; only then
//! is the stream told. What was judged after that comes again after a kill, to the state that did not know it, and what is
//! found twice has the same key and the same beginning.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::AbortHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Detectors, Found, LeftOpen, Partition, TICK, lock};
use crate::{
    bus::{self, Consumer, Mark, Start},
    clock, metrics,
    model::AnomalyEvent,
    owned::Keeper,
    store::{
        Error, Store, anomalies,
        inbox::{Delivery, Prepared},
        leases::Lease,
        partitions,
    },
};

/// The store is not asked for more than so many bytes each second, over all partitions.
const SAVED_PER_SECOND: f64 = 1e6;

/// A partition that is ours.
pub(super) struct Ours {
    store: Store,
    index: usize,
    lease: Lease,
}

/// Reads this process's share of the partitions, until `stop`.
pub(super) async fn run(this: Detectors, store: Store, keeper: Keeper, stop: CancellationToken) {
    let name = |index: usize| format!("partition {index}");
    let names: Vec<String> = (0..this.partitions.len()).map(name).collect();
    let work = |lease: Lease, stop: CancellationToken| {
        let index = names.iter().position(|name| *name == lease.name).expect("only these were asked for");
        let (this, ours) = (this.clone(), Ours { store: store.clone(), index, lease });
        async move {
            // A task of its own: a panic in it ends this term of reading and no more.
            let reading = tokio::spawn(read(this.clone(), ours, stop));
            let _ended_with_us = Aborted(reading.abort_handle());
            match reading.await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    let error = format!("{e:#}");
                    tracing::warn!(
                        partition = index,
                        error,
                        "reading ended; it begins again where it was saved"
                    );
                }
                Err(e) => {
                    metrics::DETECT_PANICS.inc();
                    tracing::error!(partition = index, error = %e, "a detector panicked; it begins again where it was saved");
                }
            }
            // Not at once: what ended it may be there still.
            tokio::time::sleep(TICK).await;
        }
    };
    keeper.share(&names, stop, work).await;
}

/// Ends a task when it is dropped.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Marks a partition as read here, for as long as it lives.
struct Here(Detectors, usize);

impl Here {
    fn new(this: &Detectors, index: usize) -> Self {
        this.ours[index].store(true, Relaxed);
        Self(this.clone(), index)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let Self(this, index) = self;
        this.ours[*index].store(false, Relaxed);
        *this.lock(*index) = Partition::new(&this.settings, this.partitions.len());
    }
}

async fn read(this: Detectors, ours: Ours, stop: CancellationToken) -> anyhow::Result<()> {
    let start = ours.restore(&this).await?;
    let _here = Here::new(&this, ours.index);
    let mut consumer = this.bus.consumer(start);
    read_on(&this, &ours, &mut *consumer, stop).await
}

async fn read_on(
    this: &Detectors,
    ours: &Ours,
    consumer: &mut dyn Consumer,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let every = this.settings.save_every;
    let (index, found) = (ours.index, Found::Store(ours));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unsaved: Option<Mark> = None;
    let mut save_at = Instant::now() + every;
    // The time up to which the stream has been read; it stands still while Redis is away.
    let mut reached: Option<Timestamp> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                let now = if consumer.is_behind() { reached } else { Some(clock::now()) };
                if let Some(now) = now {
                    let events = this.tick(index, now);
                    this.emit(index, events, &found).await?;
                }
            }
            delivery = consumer.next() => {
                let Some(delivery) = delivery else {
                    ours.insist().await?;
                    anyhow::bail!("Redis has seen a newer lease than ours, which the database says holds");
                };
                reached = reached.max(delivery.arrived);
                let mark = delivery.mark.clone();
                this.work(index, consumer, delivery, &found).await?;
                unsaved = mark.or(unsaved);
            }
        }
        let Some(mark) = &unsaved else { continue };
        if Instant::now() < save_at && !consumer.waits_for_save() {
            continue;
        }
        match ours.save(this, mark).await {
            Ok(bytes) => {
                consumer.saved(mark).await;
                unsaved = None;
                let share = SAVED_PER_SECOND / this.partitions.len() as f64;
                save_at = Instant::now() + every.max(Duration::from_secs_f64(bytes as f64 / share));
            }
            Err(e) if is_lost(&e) => return Err(e),
            Err(e) => {
                let error = format!("{e:#}");
                tracing::warn!(partition = index, error, "what was learned could not be saved; trying again");
                // Reading stops by itself once too much is unsaved.
                tokio::time::sleep(TICK).await;
            }
        }
    }
    if let Some(mark) = &unsaved {
        ours.save(this, mark).await?;
        consumer.saved(mark).await;
    }
    Ok(())
}

fn is_lost(e: &anyhow::Error) -> bool {
    matches!(e.downcast_ref::<Error>(), Some(Error::LeaseLost))
}

impl Ours {
    /// Puts the saved state in place; where it ends.
    async fn restore(&self, this: &Detectors) -> anyhow::Result<Start> {
        let mut tx = self.store.write().await?;
        let saved = partitions::take(&mut tx, &self.lease, self.index).await?;
        let open = anomalies::open(&mut tx).await?;
        tx.commit().await?;
        let count = this.partitions.len();
        let mark = saved.mark.as_deref().map(serde_json::from_str).transpose().unwrap_or_else(|e| {
            tracing::error!(partition = self.index, error = %e, "the saved place is unreadable; reading from the first entry");
            None
        });
        let partition = match saved.state {
            Some(state) => this.unpack(self.index, state).await.unwrap_or_else(|e| this.anew(self.index, &e)),
            None => Partition::new(&this.settings, count),
        };
        let here = |e: &AnomalyEvent| bus::partition(&e.service, count) == self.index;
        let left = open.into_iter().map(AnomalyEvent::from).filter(here);
        let until = clock::after(clock::now(), this.settings.adapt_after);
        let events = left.map(|e| (e.key.clone(), e)).collect();
        *lock(&this.left_open[self.index]) = LeftOpen { until, events };
        this.put(self.index, partition);
        let Lease { owner, fence, .. } = self.lease.clone();
        Ok(Start { partition: self.index, mark, owner, fence, era: saved.era })
    }

    /// Another reader was let in by Redis. If the lease is ours nevertheless, the database is older than Redis remembers.
    async fn insist(&self) -> anyhow::Result<()> {
        let mut tx = self.store.write().await?;
        partitions::renew_era(&mut tx, &self.lease, self.index).await?;
        Ok(tx.commit().await?)
    }

    /// How many bytes were saved.
    async fn save(&self, this: &Detectors, mark: &Mark) -> anyhow::Result<usize> {
        let state = this.pack(self.index).await?;
        let mut tx = self.store.write().await?;
        partitions::save(&mut tx, &self.lease, self.index, &serde_json::to_string(mark)?, &state).await?;
        tx.commit().await?;
        metrics::DETECT_SAVES.inc();
        metrics::DETECT_SAVED_BYTES.inc_by(state.len() as u64);
        Ok(state.len())
    }

    /// Makes anomalies durable; tries until they are, or the partition is somebody else's.
    pub async fn found(&self, events: Vec<AnomalyEvent>) -> anyhow::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let row = |event| Prepared::new(&Delivery::Anomaly(Box::new(event)));
        let rows: Vec<Prepared> = events.into_iter().map(row).collect();
        loop {
            match partitions::found(&self.store, &self.lease, &rows).await {
                Ok(()) => return Ok(()),
                Err(e @ Error::LeaseLost) => return Err(e.into()),
                Err(e) => tracing::warn!(error = %e, "an anomaly could not be stored; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
