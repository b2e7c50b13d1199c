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
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use metric::{Metric, MetricVerdict};
pub use partition::{Partition, Unjudged};
use source::{TemplateDetector, ended};

use crate::{
    alarm::{self, Alarm},
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
    /// producers are told to come again. The reader outlives
    /// [`Detectors::run`], which fails if nobody reads any more.
    pub signals: mpsc::Sender<AnomalyEvent>,
    /// Anomalies that the last run of the program left open. One that is not found again within `detect.adapt_after` is
    /// ended, for nobody else would.
    pub left_open: Vec<AnomalyEvent>,
}

/// The running detectors; cheap to clone. Also the [`Telemetry`] of diagnoses.
#[derive(Clone)]
pub struct Detectors {
    bus: Bus,
    signals: mpsc::Sender<AnomalyEvent>,
    partitions: Arc<[Mutex<Partition>]>,
    left_open: Arc<Mutex<LeftOpen>>,
}

struct LeftOpen {
    until: Timestamp,
    /// By key.
    events: BTreeMap<String, AnomalyEvent>,
}

const TICK: Duration = Duration::from_millis(500);
/// Records that are judged before the lock and the executor are given to others.
const SLICE: usize = 256;
/// Minutes with telemetry after which its absence means something, and the absence that is an alarm.
const USED_TO_COME: u32 = 5;
const STARVED: Duration = Duration::from_secs(300);

impl Detectors {
    pub fn new(deps: Deps) -> Self {
        let count = deps.bus.partitions();
        let partitions = (0..count).map(|_| Mutex::new(Partition::new(&deps.settings, count))).collect();
        let left_open = LeftOpen {
            until: crate::clock::after(crate::clock::now(), deps.settings.adapt_after),
            events: deps.left_open.into_iter().map(|event| (event.key.clone(), event)).collect(),
        };
        Self { bus: deps.bus, signals: deps.signals, partitions, left_open: Arc::new(Mutex::new(left_open)) }
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
            self.watch_ourselves(now);
            events.extend(self.never_found_again(now));
        }
        events
    }

    fn never_found_again(&self, now: Timestamp) -> Vec<AnomalyEvent> {
        let mut left = lock(&self.left_open);
        if now < left.until {
            return Vec::new();
        }
        let why = || serde_json::json!({ "ended": "not seen again after a restart" });
        std::mem::take(&mut left.events).into_values().map(|event| ended(event, why(), now)).collect()
    }

    /// Telemetry that used to come and has stopped altogether leaves the detectors blind: that is an alarm of its own.
    fn watch_ourselves(&self, now: Timestamp) {
        let heard = (0..self.partitions.len()).map(|i| self.lock(i).heard());
        let (last, minutes) =
            heard.fold((None, 0), |(last, sum), (at, minutes)| (at.max(last), sum + minutes));
        let Some(last) = last.filter(|_| minutes >= USED_TO_COME) else { return };
        let silent = crate::clock::between(last, now);
        if silent < STARVED {
            return alarm::clear(Alarm::DetectorStarving);
        }
        let text = format!(
            "no log line and no sample has arrived since {last}: nothing is being watched; look at the shippers"
        );
        alarm::raise(Alarm::DetectorStarving, text);
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
            lock(&self.left_open).events.remove(&event.key);
            if event.ended_at.is_none() {
                metrics::DETECT_ONSETS.with_label_values(&[event.kind.as_str()]).inc();
            }
            tracing::info!(kind = %event.kind, service = %event.service, ended = event.ended_at.is_some(), "{}", event.title);
            self.signals.send(event).await.context("nobody takes anomalies any more")?;
        }
        Ok(())
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Partition> {
        lock(&self.partitions[index])
    }
}

/// A panic while the lock was held ends the detectors' run; what they learned stays readable as evidence.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry for Detectors {
    fn recent(&self, service: &str, from: Timestamp, to: Timestamp) -> RecentTelemetry {
        let index = crate::bus::partition(service, self.partitions.len());
        self.lock(index).recent(service, from, to, crate::clock::now())
    }
}

#[cfg(test)]
mod tests;
