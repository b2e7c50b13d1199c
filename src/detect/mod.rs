//! Detection: turns log records and metric samples from the bus into anomalies, and hands their onsets and ends on; keeps
//! recent telemetry for diagnoses.
//!
//! One task reads each partition of the bus. Everything is judged online, in event time, within memory bounds from the
//! settings. What is missing is *unknown* and said to be; it never counts as "no anomalies".

mod clock;
mod counts;
mod log_burst;
mod log_novelty;
mod log_silence;
mod metric;
mod partition;
mod recent_values;
mod series;
mod source;
mod stats;
pub mod templates;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use metric::{Metric, MetricVerdict};
pub use partition::{Partition, Unjudged};
use source::TemplateDetector;

use crate::{
    bus::{Bus, Consumer, Delivery},
    config::Detect,
    metrics,
    model::{AnomalyEvent, AnomalyKind, RecentTelemetry, Telemetry},
};

/// Makes a fresh detector for a new template.
type MakeDetector = fn() -> Box<dyn TemplateDetector>;

/// The detectors of log templates: one file and one line each. Metric series have theirs in `metric`.
const TEMPLATE_DETECTORS: &[(AnomalyKind, MakeDetector)] = &[
    (AnomalyKind::LogBurst, || Box::<log_burst::LogBurst>::default()),
    (AnomalyKind::LogNovelty, || Box::<log_novelty::LogNovelty>::default()),
    (AnomalyKind::LogSilence, || Box::<log_silence::LogSilence>::default()),
];

/// What detection needs.
pub struct Deps {
    pub bus: Bus,
    pub settings: Detect,
    /// Takes onsets and ends; whoever reads it makes them durable. While it is full, detection waits, the bus fills, and
    /// producers are told to come again.
    pub signals: mpsc::Sender<AnomalyEvent>,
}

/// The running detectors; cheap to clone. Also the [`Telemetry`] of diagnoses.
#[derive(Clone)]
pub struct Detectors {
    bus: Bus,
    signals: mpsc::Sender<AnomalyEvent>,
    partitions: Arc<[Mutex<Partition>]>,
}

const TICK: Duration = Duration::from_millis(500);
/// Records that are judged before the lock and the executor are given to others.
const SLICE: usize = 256;

impl Detectors {
    pub fn new(deps: Deps) -> Self {
        let count = deps.bus.partitions();
        let partitions = (0..count).map(|_| Mutex::new(Partition::new(&deps.settings, count))).collect();
        Self { bus: deps.bus, signals: deps.signals, partitions }
    }

    /// Reads every partition until `stop`; then closes the bus, works off what is on it and returns. An error means that a
    /// detector died: telemetry is blind from then on, and the caller must say so.
    pub async fn run(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for index in 0..self.partitions.len() {
            let this = self.clone();
            tasks.spawn(async move { this.run_partition(index).await });
        }
        tasks.spawn({
            let bus = self.bus.clone();
            async move {
                stop.cancelled().await;
                bus.close();
                Ok(())
            }
        });
        while let Some(ended) = tasks.join_next().await {
            ended.context("a detector panicked")??;
        }
        Ok(())
    }

    async fn run_partition(&self, index: usize) -> anyhow::Result<()> {
        let mut consumer = self.bus.consumer(index);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                delivery = consumer.next() => match delivery {
                    Some(delivery) => self.work(index, &mut consumer, delivery).await?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    let events = self.tick(index, crate::clock::now());
                    self.emit(events).await?;
                }
            }
        }
    }

    /// Judges one delivery and commits it once its anomalies are handed on.
    async fn work(&self, index: usize, consumer: &mut Consumer, delivery: Delivery) -> anyhow::Result<()> {
        let now = crate::clock::now();
        for records in delivery.records.chunks(SLICE) {
            let mut events = Vec::new();
            {
                let mut partition = self.lock(index);
                records.iter().for_each(|record| partition.record(record, now, &mut events));
                partition.flush_counts();
            }
            self.emit(events).await?;
            tokio::task::yield_now().await;
        }
        consumer.commit(delivery);
        Ok(())
    }

    fn tick(&self, index: usize, now: Timestamp) -> Vec<AnomalyEvent> {
        let mut events = Vec::new();
        self.lock(index).tick(now, &mut events);
        if index == 0 {
            self.show_sizes(now);
        }
        events
    }

    fn show_sizes(&self, now: Timestamp) {
        let sizes = (0..self.partitions.len()).map(|i| self.lock(i).sizes(now));
        let [services, templates, series, unknown] =
            sizes.fold([0; 4], |sum, part| std::array::from_fn(|i| sum[i] + part[i]));
        metrics::DETECT_SERVICES.set(services);
        metrics::DETECT_TEMPLATES.set(templates);
        metrics::DETECT_SERIES.set(series);
        metrics::DETECT_UNKNOWN.set(unknown);
        metrics::BUS_DEPTH.set(i64::try_from(self.bus.depth()).unwrap_or(i64::MAX));
    }

    async fn emit(&self, events: Vec<AnomalyEvent>) -> anyhow::Result<()> {
        for event in events {
            if event.ended_at.is_none() {
                metrics::DETECT_ONSETS.with_label_values(&[event.kind.as_str()]).inc();
            }
            tracing::info!(kind = %event.kind, service = %event.service, ended = event.ended_at.is_some(), "{}", event.title);
            self.signals.send(event).await.context("nobody takes anomalies any more")?;
        }
        Ok(())
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Partition> {
        self.partitions[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry for Detectors {
    fn recent(&self, service: &str, from: Timestamp, to: Timestamp) -> RecentTelemetry {
        let index = crate::bus::partition(service, self.partitions.len());
        self.lock(index).recent(service, from, to, crate::clock::now())
    }
}

#[cfg(test)]
mod tests;
