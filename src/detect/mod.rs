//! Detection: turns log records and metric samples from the bus into anomalies, and hands their onsets and ends on; keeps
//! recent telemetry for diagnoses.
//!
//! One task reads each partition of the bus; where several processes share the bus, only one of them does (`shared.rs`).
//! Everything is judged online, in event time, within memory bounds from the settings. What is missing is *unknown* and said to
//! be; it never counts as "no anomalies".

mod alone;
mod clock;
mod counts;
mod eighths;
mod history;
mod log_burst;
mod log_errors;
mod log_novelty;
mod log_silence;
mod log_values;
mod metric;
mod partition;
mod recent_samples;
mod requests;
mod sample;
mod season;
mod series;
mod share;
mod shared;
mod source;
mod stats;
mod template_detector;
pub mod templates;
mod told;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use alone::Alone;
pub use metric::{Allowed, Change, Metric, Onset, Reason, Verdict};
pub use partition::{Partition, Unjudged};
use sample::Whole;
use template_detector::TemplateDetector;
use told::ended;

use crate::{
    alarm::{self, Alarm},
    bus::{self, Bus, Consumer, Delivery, Record, Start},
    config::Detect,
    metrics,
    model::{AnomalyEvent, AnomalyKind, Calls, Coverage, Phrase, RecentTelemetry, Telemetry, case::Case},
    owned::Keeper,
    store::Store,
};

macro_rules! template_detectors {
    ($($kind:ident: $detector:path;)+) => {
        /// One detector at work on one template; an enum, so that what it has learned can be stored.
        #[derive(serde::Serialize, serde::Deserialize)]
        #[allow(clippy::enum_variant_names, reason = "they are named as the kinds of anomalies are")]
        enum TemplateWatch { $($kind($detector)),+ }

        impl TemplateWatch {
            /// Fresh ones for a new template.
            fn all() -> Vec<Self> {
                vec![$(Self::$kind(Default::default())),+]
            }
            /// For one of several templates that were taken for one.
            fn part(&self) -> Self {
                match self { $(Self::$kind(detector) => Self::$kind(detector.part())),+ }
            }
            fn kind(&self) -> AnomalyKind {
                match self { $(Self::$kind(_) => AnomalyKind::$kind),+ }
            }
            fn it(&mut self) -> &mut dyn TemplateDetector {
                match self { $(Self::$kind(detector) => detector),+ }
            }
        }
    };
}

// The detectors of log templates: one file and one line each. A service has `log_errors`, metric series have theirs in
// `metric/`.
template_detectors! {
    LogBurst: log_burst::LogBurst;
    LogNovelty: log_novelty::LogNovelty;
    LogSilence: log_silence::LogSilence;
    LogValues: log_values::LogValues;
}

/// Where what was learned is kept.
#[derive(Clone)]
pub enum Keep {
    /// Bus and store are this process's own.
    Alone(Store),
    /// The bus is shared: what is found and learned goes into the store, and partitions are read by lease.
    Shared(Store, Keeper),
}

/// What detection tells, in this order.
pub enum Signal {
    /// The onset or the end of an anomaly.
    Anomaly(AnomalyEvent),
    /// To be answered once everything before it is durable.
    Durable(oneshot::Sender<()>),
}

/// What detection needs.
pub struct Deps {
    pub bus: Arc<dyn Bus>,
    pub settings: Detect,
    /// Takes onsets and ends; whoever reads it makes them durable. While it is full, detection waits, the bus fills, and
    /// producers are told to come again. The reader outlives
    /// [`Detectors::run`], which fails if nobody reads any more.
    pub signals: mpsc::Sender<Signal>,
    /// Anomalies that the last run of the program left open. One that is not found again within `detect.adapt_after` is
    /// ended, for nobody else would.
    pub left_open: Vec<AnomalyEvent>,
    /// Where what is learned outlives the process; else it is learned anew.
    pub keep: Option<Keep>,
    /// Where calls that spans show are put.
    pub calls: Calls,
}

/// The running detectors; cheap to clone. Also the [`Telemetry`] of diagnoses.
#[derive(Clone)]
pub struct Detectors {
    bus: Arc<dyn Bus>,
    signals: mpsc::Sender<Signal>,
    partitions: Arc<[Mutex<Partition>]>,
    /// Which of them this process reads.
    ours: Arc<[AtomicBool]>,
    left_open: Arc<[Mutex<LeftOpen>]>,
    settings: Arc<Detect>,
    keep: Option<Keep>,
    calls: Calls,
}

/// Anomalies of a partition that somebody else left open.
struct LeftOpen {
    until: Timestamp,
    /// By key.
    events: BTreeMap<String, AnomalyEvent>,
}

/// How often time passes where nothing arrives.
pub const TICK: Duration = Duration::from_millis(500);
/// Records that are judged before the lock and the executor are given to others.
const SLICE: usize = 256;
/// Minutes with telemetry after which its absence means something, and the absence that is an alarm.
const USED_TO_COME: u32 = 5;
const STARVED: Duration = Duration::from_secs(300);

impl Detectors {
    pub fn new(deps: Deps) -> Self {
        let count = deps.bus.partitions();
        let partitions = (0..count).map(|_| Mutex::new(Partition::new(&deps.settings, count))).collect();
        let ours = {
            let all = !matches!(deps.keep, Some(Keep::Shared(..)));
            (0..count).map(|_| AtomicBool::new(all)).collect()
        };
        let until = crate::clock::after(crate::clock::now(), deps.settings.adapt_after);
        let mut left_open: Vec<_> = (0..count).map(|_| LeftOpen { until, events: BTreeMap::new() }).collect();
        for event in deps.left_open {
            left_open[bus::partition(&event.service, count)].events.insert(event.key.clone(), event);
        }
        Self {
            bus: deps.bus,
            signals: deps.signals,
            partitions,
            ours,
            left_open: left_open.into_iter().map(Mutex::new).collect(),
            settings: Arc::new(deps.settings),
            keep: deps.keep,
            calls: deps.calls,
        }
    }

    /// Reads every partition until `stop`; then closes the bus, works off what is on it and returns. An error means that a
    /// detector died: telemetry is blind from then on, and the caller must say so.
    pub async fn run(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        if let Some(Keep::Shared(store, keeper)) = self.keep.clone() {
            let (this, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                shared::run(this, store, keeper, stop).await;
                Ok(())
            });
        } else {
            for index in 0..self.partitions.len() {
                let this = self.clone();
                tasks.spawn(async move { this.run_partition(index).await });
            }
        }
        tasks.spawn({
            let this = self.clone();
            async move {
                let mut ticks = tokio::time::interval(TICK);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        _ = ticks.tick() => {
                            let now = crate::clock::now();
                            this.show_sizes(now);
                            this.watch_ourselves(now);
                        }
                    }
                }
                this.bus.close();
                Ok(())
            }
        });
        while let Some(ended) = tasks.join_next().await {
            ended.context("a detector panicked")??;
        }
        Ok(())
    }

    /// How this process reads each partition.
    pub fn status(&self) -> serde_json::Value {
        let ours: Vec<usize> = (0..self.ours.len()).filter(|i| self.ours[*i].load(Relaxed)).collect();
        serde_json::json!({ "partitions_read_here": ours })
    }

    async fn run_partition(&self, index: usize) -> anyhow::Result<()> {
        let mut alone = match &self.keep {
            Some(Keep::Alone(store)) => Some(Alone::restore(store.clone(), index, self).await),
            _ => None,
        };
        let mut consumer = self.bus.consumer(Start::of(index));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let found = Found::Channel(&self.signals);
        loop {
            tokio::select! {
                delivery = consumer.next() => match delivery {
                    Some(delivery) => {
                        self.work(index, &mut *consumer, delivery, &found).await?;
                        alone.iter_mut().for_each(Alone::changed);
                    }
                    None => break,
                },
                _ = ticks.tick() => {
                    let events = self.tick(index, crate::clock::now());
                    self.emit(index, events, &found).await?;
                    if let Some(alone) = &mut alone {
                        alone.tick(self).await?;
                    }
                }
            }
        }
        match alone {
            Some(alone) => alone.end(self).await,
            None => Ok(()),
        }
    }

    /// Puts a restored partition in place. What it knows to go on was not left open.
    fn put(&self, index: usize, partition: Partition) {
        let mut left = lock(&self.left_open[index]);
        partition.open().for_each(|key| drop(left.events.remove(key)));
        *self.lock(index) = partition;
    }

    /// All that a partition learned, as bytes.
    async fn pack(&self, index: usize) -> anyhow::Result<Vec<u8>> {
        let partitions = self.partitions.clone();
        // Some megabytes are packed: not on a thread that others wait for.
        let state = tokio::task::spawn_blocking(move || lock(&partitions[index]).save());
        state.await.context("packing what was learned")?
    }

    /// What [`Detectors::pack`] made.
    async fn unpack(&self, index: usize, state: Vec<u8>) -> anyhow::Result<Partition> {
        let (settings, count) = (self.settings.clone(), self.partitions.len());
        let partition = tokio::task::spawn_blocking(move || Partition::restore(&state, &settings, count));
        partition.await.with_context(|| format!("unpacking partition {index}"))?
    }

    /// A partition that knows nothing, for what was saved cannot be used.
    fn anew(&self, index: usize, why: &anyhow::Error) -> Partition {
        metrics::DETECT_STATES_REFUSED.inc();
        let error = format!("{why:#}");
        tracing::warn!(partition = index, error, "what was learned cannot be used; learning anew");
        Partition::new(&self.settings, self.partitions.len())
    }

    /// Judges one delivery and gives it back once its anomalies are handed on.
    async fn work(
        &self,
        index: usize,
        consumer: &mut dyn Consumer,
        delivery: Delivery,
        found: &Found<'_>,
    ) -> anyhow::Result<()> {
        let now = delivery.arrived.unwrap_or_else(crate::clock::now);
        for records in delivery.records.chunks(SLICE) {
            let mut events = Vec::new();
            {
                let mut partition = self.lock(index);
                records.iter().for_each(|record| partition.record(record, now, &mut events));
                partition.flush_counts();
            }
            self.emit(index, events, found).await?;
            tokio::task::yield_now().await;
        }
        consumer.judged(delivery);
        Ok(())
    }

    /// Judges a record that came at `now`, without the bus: for replays, where one thing happens after the other. What is
    /// found is in one order each time.
    pub fn judge(&self, record: &Record, now: Timestamp) -> Vec<AnomalyEvent> {
        let mut events = Vec::new();
        for index in record.place(self.partitions.len()) {
            self.lock(index).record(record, now, &mut events);
        }
        in_order(events)
    }

    /// Lets time pass where nothing arrives, as [`Detectors::run`] does every [`TICK`]: for replays.
    pub fn pass(&self, now: Timestamp) -> Vec<AnomalyEvent> {
        in_order((0..self.partitions.len()).flat_map(|index| self.tick(index, now)).collect())
    }

    fn tick(&self, index: usize, now: Timestamp) -> Vec<AnomalyEvent> {
        let mut events = Vec::new();
        let calls = {
            let mut partition = self.lock(index);
            partition.tick(now, &mut events);
            partition.requests.calls(now.as_second())
        };
        self.calls.learn(calls, now);
        events.extend(self.never_found_again(index));
        events
    }

    fn never_found_again(&self, index: usize) -> Vec<AnomalyEvent> {
        let now = crate::clock::now();
        let mut left = lock(&self.left_open[index]);
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
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let kept = (0..self.partitions.len()).map(|i| self.lock(i).requests.len()).sum();
        metrics::TRACES_KEPT.set(number(kept));
        let (calls, forgotten) = self.calls.size();
        metrics::CALLS_KEPT.set(number(calls));
        metrics::CALLS_FORGOTTEN.set(number(forgotten as usize));
        metrics::BUS_DEPTH.set(i64::try_from(self.bus.depth()).unwrap_or(i64::MAX));
        let ours = self.ours.iter().filter(|ours| ours.load(Relaxed)).count();
        metrics::BUS_OWNED.set(i64::try_from(ours).unwrap_or(i64::MAX));
        for partition in self.bus.status().partitions {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let label = [&*partition.partition.to_string()];
            metrics::BUS_WAITING.with_label_values(&label).set(number(partition.waiting));
            metrics::BUS_PENDING.with_label_values(&label).set(number(partition.pending.unwrap_or(0)));
            metrics::BUS_LAG.with_label_values(&label).set(number(partition.lag.unwrap_or(0)));
        }
    }

    /// Hands on what was found.
    async fn emit(&self, index: usize, events: Vec<AnomalyEvent>, found: &Found<'_>) -> anyhow::Result<()> {
        for event in &events {
            lock(&self.left_open[index]).events.remove(&event.key);
            if event.ended_at.is_none() {
                metrics::DETECT_ONSETS.with_label_values(&[event.kind.as_str()]).inc();
            }
            tracing::info!(kind = %event.kind, service = %event.service, ended = event.ended_at.is_some(), "{}", event.title);
        }
        match found {
            Found::Channel(signals) => {
                for event in events {
                    signals.send(Signal::Anomaly(event)).await.context("nobody takes anomalies any more")?;
                }
                Ok(())
            }
            Found::Store(ours) => ours.found(events).await,
        }
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Partition> {
        lock(&self.partitions[index])
    }
}

/// Services and series are kept in no order.
fn in_order(mut events: Vec<AnomalyEvent>) -> Vec<AnomalyEvent> {
    events.sort_by(|a, b| (a.started_at, &a.service, &a.key).cmp(&(b.started_at, &b.service, &b.key)));
    events
}

/// Where anomalies go.
enum Found<'a> {
    /// To whoever makes them durable.
    Channel(&'a mpsc::Sender<Signal>),
    /// Into the store at once, if the partition is still ours.
    Store(&'a shared::Ours),
}

/// A panic while the lock was held ends the detectors' run; what they learned stays readable as evidence.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry for Detectors {
    fn recent(&self, service: &str, from: Timestamp, to: Timestamp) -> RecentTelemetry {
        let index = bus::partition(service, self.partitions.len());
        if !self.ours[index].load(Relaxed) {
            let reason = Phrase::WatchedElsewhere { service: service.to_owned() }.into();
            let coverage = Coverage::Unknown { reason };
            return RecentTelemetry { coverage, templates: vec![], errors: vec![], series: vec![] };
        }
        self.lock(index).recent(service, from, to, crate::clock::now())
    }

    fn has_heard(&self) -> bool {
        (0..self.partitions.len()).any(|i| self.ours[i].load(Relaxed) && self.lock(i).heard().0.is_some())
    }

    fn recall(&self, case: &mut Case, from: Timestamp) -> bool {
        let ours = || (0..self.partitions.len()).filter(|i| self.ours[*i].load(Relaxed));
        // The same traces of all: one whose lines were left out must not seem to have none.
        let mut whole = Whole::default();
        ours().for_each(|i| self.lock(i).requests.narrow(from.as_second(), &mut whole));
        ours().for_each(|i| self.lock(i).recall(case, from, &whole));
        ours().count() == self.partitions.len()
    }

    fn calls(&self) -> Vec<(String, String, f64)> {
        self.calls.all(crate::clock::now())
    }
}

#[cfg(test)]
mod tests;
