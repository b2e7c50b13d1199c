//! Decides what is taken and what is done while more comes in than can be handled: alerts before telemetry, critical alerts
//! before the rest, and the extra work of ours (models, evidence from afar) is what shrinks first.
//!
//! A level rises when a queue has been too old, or memory too full, for a moment, and falls one step at a time when all of it
//! has been well below for longer: docs/operations.md tells operators what each level means.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    alarm::{self, Alarm},
    clock,
    config::Overload,
    metrics,
};

crate::model::words!(
    /// How much is too much. Ordered: a later one gives up more.
    Level {
        Normal = "normal",
        /// Models are asked one at a time; evidence from afar is left out, and gathered later.
        Strained = "strained",
        /// Models are not asked; the telemetry of one service in four is judged.
        Shedding = "shedding",
        /// Deliveries without a critical alert are told 503, and so is all telemetry.
        CriticalOnly = "critical_only",
        /// No delivery is taken: what was acknowledged would wait for too long to be of use.
        Full = "full",
    }
);

crate::model::words!(
    /// What is too old or too full.
    Cause {
        /// Acknowledged deliveries wait for correlation, or those taken now will.
        Inbox = "inbox_age",
        /// Deliveries wait for the disk.
        Commit = "commit_wait",
        /// Due jobs wait for a worker.
        Jobs = "jobs_overdue",
        /// Records wait for the detectors.
        Bus = "bus_fill",
        Memory = "memory",
    }
);

/// What is measured, about twice a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seen {
    #[serde(rename = "inbox_age_seconds", serialize_with = "seconds")]
    pub inbox_age: Duration,
    /// How long a delivery that is taken now will wait, if that can be told. In a flood of ten times what can be handled the
    /// oldest one has waited a second when the newest will wait for ten, and at its end the oldest is old while little waits.
    #[serde(rename = "inbox_wait_seconds", serialize_with = "maybe_seconds")]
    pub inbox_wait: Option<Duration>,
    #[serde(rename = "commit_wait_seconds", serialize_with = "seconds")]
    pub commit_wait: Duration,
    #[serde(rename = "jobs_overdue_seconds", serialize_with = "seconds")]
    pub jobs_late: Duration,
    /// The fullest bound of the telemetry bus, as a share of it.
    pub bus_fill: f64,
    /// Resident bytes of the process.
    pub memory_bytes: u64,
}

fn seconds<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_millis() as f64 / 1000.0)
}

fn maybe_seconds<S: serde::Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(d) => seconds(d, s),
        None => s.serialize_none(),
    }
}

/// Too much for so long raises the level.
const RAISE_AFTER: Duration = Duration::from_millis(900);
/// Little enough for so long lowers it by one.
const LOWER_AFTER: Duration = Duration::from_secs(5);
/// "Little enough": below so much of what had raised it. Memory is given back late, and a queue of records falls fast.
const CALM_AGE: f64 = 0.5;
const CALM_MEMORY: f64 = 0.95;
/// At [`Level::Shedding`] the telemetry of one service in so many is judged.
const KEEP_ONE_IN: u64 = 4;
/// Times of sampling that are remembered, for diagnoses made afterwards.
const EPISODES: usize = 64;
/// People are told of telemetry that is left out for so long; of alerts that are refused, at once.
const TELL_AFTER: Duration = Duration::from_secs(30);
/// When senders should come again.
pub const COME_AGAIN: Duration = Duration::from_secs(10);

/// Shared by all who take or do something.
pub struct Admission {
    settings: Overload,
    level: AtomicU8,
    /// Records that were left out, and deliveries that were refused, since the start.
    sampled_out: AtomicU64,
    refused: AtomicU64,
    control: Mutex<Control>,
    one_model: Semaphore,
}

struct Control {
    since: Timestamp,
    cause: Option<Cause>,
    seen: Seen,
    above_since: Option<Instant>,
    calm_since: Option<Instant>,
    shedding_since: Option<Instant>,
    /// When telemetry was sampled; the last one may go on.
    sampled: VecDeque<(Timestamp, Option<Timestamp>)>,
}

/// For `/api/v1/status`.
#[derive(Serialize)]
pub struct Status {
    level: Level,
    since: Timestamp,
    /// What raised it.
    cause: Option<Cause>,
    #[serde(flatten)]
    seen: Seen,
    max_memory_bytes: u64,
    sampled_out_records: u64,
    refused_deliveries: u64,
}

/// More comes in than can be handled; come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overloaded ({0}): {taken}", taken = match self.0 {
    Level::Full => "nothing is taken now",
    _ => "only deliveries with a critical alert are taken now",
})]
pub struct Overloaded(pub Level);

impl Default for Admission {
    fn default() -> Self {
        Self::new(Overload::default())
    }
}

impl Admission {
    pub fn new(settings: Overload) -> Self {
        Self {
            settings,
            level: AtomicU8::new(0),
            sampled_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            control: Mutex::new(Control {
                since: clock::now(),
                cause: None,
                seen: Seen::default(),
                above_since: None,
                calm_since: None,
                shedding_since: None,
                sampled: VecDeque::new(),
            }),
            one_model: Semaphore::new(1),
        }
    }

    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// Whether a delivery is taken, given whether a critical alert is in it.
    pub fn alerts(&self, is_critical: impl FnOnce() -> bool) -> Result<(), Overloaded> {
        match self.level() {
            Level::CriticalOnly if is_critical() => Ok(()),
            level @ (Level::CriticalOnly | Level::Full) => Err(self.refuse(level)),
            _ => Ok(()),
        }
    }

    /// Whether telemetry is read at all.
    pub fn telemetry(&self) -> Result<(), Overloaded> {
        match self.level() {
            level @ (Level::CriticalOnly | Level::Full) => Err(self.refuse(level)),
            _ => Ok(()),
        }
    }

    fn refuse(&self, level: Level) -> Overloaded {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Overloaded(level)
    }

    /// Leaves out what is not judged at this level; how many records that was. Whole services are left out, always the same
    /// ones: what stays keeps its true counts, and of a service of which nothing comes nothing is concluded.
    pub fn sample<T>(&self, records: &mut Vec<T>, service: impl Fn(&T) -> &str) -> usize {
        if self.level() < Level::Shedding {
            return 0;
        }
        let before = records.len();
        records.retain(|record| is_kept(service(record)));
        let out = before - records.len();
        self.sampled_out.fetch_add(out as u64, Ordering::Relaxed);
        out
    }

    /// Since when telemetry of this service was left out, if it was in that window.
    pub fn left_out(&self, service: &str, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        if is_kept(service) {
            return None;
        }
        let control = self.lock();
        let reaches = |(begun, over): &&(Timestamp, Option<Timestamp>)| {
            *begun < to && over.is_none_or(|over| over >= from)
        };
        control.sampled.iter().find(reaches).map(|(begun, _)| *begun)
    }

    /// Whether more than the evidence at hand is gathered.
    pub fn gathers_from_afar(&self) -> bool {
        self.level() == Level::Normal
    }

    /// Whether a model may be asked now; keep what is given for as long as it is.
    pub fn model(&self) -> Option<Asking<'_>> {
        match self.level() {
            Level::Normal => Some(Asking(None)),
            Level::Strained => self.one_model.try_acquire().ok().map(|place| Asking(Some(place))),
            Level::Shedding | Level::CriticalOnly | Level::Full => None,
        }
    }

    /// For so long may what is acknowledged wait for the sake of those who wait for an acknowledgement.
    pub fn patience(&self) -> Duration {
        self.settings.max_age / 4
    }

    /// Takes a measurement, and raises or lowers the level.
    pub fn look(&self, seen: Seen) {
        self.look_at(seen, Instant::now());
    }

    pub(crate) fn look_at(&self, seen: Seen, now: Instant) {
        let level = self.level();
        let mut control = self.lock();
        control.seen = seen;
        let (wanted, cause) = self.wanted(&seen, |_| 1.0);
        let (held, _) = self.wanted(&seen, Cause::calm);
        if wanted > level {
            control.calm_since = None;
            if now.duration_since(*control.above_since.get_or_insert(now)) >= RAISE_AFTER {
                control.above_since = None;
                self.enter(&mut control, wanted, cause);
            }
        } else if held < level {
            control.above_since = None;
            if now.duration_since(*control.calm_since.get_or_insert(now)) >= LOWER_AFTER {
                control.calm_since = Some(now);
                let lower = Level::ALL[level as usize - 1];
                let cause = control.cause.filter(|_| lower != Level::Normal);
                self.enter(&mut control, lower, cause);
            }
        } else {
            (control.above_since, control.calm_since) = (None, None);
        }
        self.tell(&mut control, now);
    }

    fn tell(&self, control: &mut Control, now: Instant) {
        let level = self.level();
        let Some(cause) = control.cause.filter(|_| level >= Level::Shedding) else {
            control.shedding_since = None;
            return alarm::clear(Alarm::Overloaded);
        };
        let since = *control.shedding_since.get_or_insert(now);
        if level >= Level::CriticalOnly || now.duration_since(since) >= TELL_AFTER {
            alarm::raise(Alarm::Overloaded, cause.advice(level));
        }
    }

    /// The level that what was seen asks for, each threshold taken times `part`.
    fn wanted(&self, seen: &Seen, part: impl Fn(Cause) -> f64) -> (Level, Option<Cause>) {
        let of = |cause: &Cause| {
            let value = cause.value(seen);
            let steps = cause.thresholds(&self.settings);
            Level::ALL[steps.iter().filter(|step| value >= **step * part(*cause)).count()]
        };
        let worst = Cause::ALL.iter().max_by_key(|cause| of(cause)).expect("there are causes");
        match of(worst) {
            Level::Normal => (Level::Normal, None),
            level => (level, Some(*worst)),
        }
    }

    fn enter(&self, control: &mut Control, level: Level, cause: Option<Cause>) {
        let now = clock::now();
        (control.since, control.cause) = (now, cause);
        self.level.store(level as u8, Ordering::Relaxed);
        metrics::OVERLOAD_LEVEL.set(level as i64);
        metrics::OVERLOAD_CHANGES.with_label_values(&[level.as_str()]).inc();
        let is_sampling = control.sampled.back().is_some_and(|(_, over)| over.is_none());
        match (level >= Level::Shedding, is_sampling) {
            (true, false) => {
                control.sampled.push_back((now, None));
                if control.sampled.len() > EPISODES {
                    control.sampled.pop_front();
                }
            }
            (false, true) => control.sampled.back_mut().expect("looked at").1 = Some(now),
            _ => {}
        }
        let (word, why, seen) = (level.as_str(), cause.map(Cause::as_str), control.seen);
        tracing::warn!(level = word, cause = why, ?seen, "how much is taken and done has changed");
    }

    pub fn status(&self) -> Status {
        let control = self.lock();
        Status {
            level: self.level(),
            since: control.since,
            cause: control.cause,
            seen: control.seen,
            max_memory_bytes: self.settings.max_memory as u64,
            sampled_out_records: self.sampled_out.load(Ordering::Relaxed),
            refused_deliveries: self.refused.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to ask a model.
pub struct Asking<'a>(#[allow(dead_code, reason = "held, not read")] Option<SemaphorePermit<'a>>);

/// FNV-1a, then the finish of MurmurHash3: names that differ in their last digit must not all share one fate, nor must those
/// of one partition.
fn is_kept(service: &str) -> bool {
    let fnv = service
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    let mix = |h: u64, by: u64| (h ^ (h >> 33)).wrapping_mul(by);
    let hash = mix(mix(fnv, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53);
    (hash >> 32).is_multiple_of(KEEP_ONE_IN)
}

impl Cause {
    fn value(self, seen: &Seen) -> f64 {
        match self {
            Self::Inbox => seen.inbox_wait.unwrap_or(seen.inbox_age).as_secs_f64(),
            Self::Commit => seen.commit_wait.as_secs_f64(),
            Self::Jobs => seen.jobs_late.as_secs_f64(),
            Self::Bus => seen.bus_fill,
            Self::Memory => seen.memory_bytes as f64,
        }
    }

    /// From where on each level but the first holds.
    fn thresholds(self, settings: &Overload) -> [f64; 4] {
        let age = settings.max_age.as_secs_f64();
        let never = f64::INFINITY;
        let memory = if settings.max_memory == 0 { never } else { settings.max_memory as f64 };
        match self {
            Self::Inbox => [age, age * 2.0, age * 5.0, age * 10.0],
            // While the disk stands still nothing is acknowledged, and senders give up after a few seconds: the bound of what
            // waits refuses the rest.
            Self::Commit => [age / 3.0, age / 1.5, age / 0.75, never],
            // More telemetry and more alerts do not make them later, and refusing alerts would not make them earlier.
            Self::Jobs => [age * 5.0, never, never, never],
            Self::Bus => [0.5, 0.8, never, never],
            Self::Memory => [memory * 0.8, memory * 0.9, memory, memory * 1.1],
        }
    }

    fn calm(self) -> f64 {
        match self {
            Self::Inbox | Self::Commit | Self::Jobs | Self::Bus => CALM_AGE,
            Self::Memory => CALM_MEMORY,
        }
    }

    /// What people should know and do.
    fn advice(self, level: Level) -> String {
        let what = match self {
            Self::Inbox => {
                "acknowledged alerts wait too long for correlation: look at the store's disk and at who floods"
            }
            Self::Commit => "the disk or the database is slow to make alerts durable: look at its latency",
            Self::Jobs => "diagnoses and runs are late: look at what they wait for",
            Self::Bus => {
                "more logs and metrics come in than the detectors can judge: send less, or give more cores"
            }
            Self::Memory => {
                "memory is nearly used up: raise overload.max_memory if the host has more, or send less"
            }
        };
        format!("overloaded ({level}): {what}; `aiops doctor` says more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sim {
        admission: Admission,
        now: Instant,
    }

    impl Sim {
        fn new() -> Self {
            Self { admission: Admission::default(), now: Instant::now() }
        }
        /// The same is seen for so long, twice a second; the levels that were entered.
        fn see(&mut self, seconds: f64, seen: Seen) -> Vec<Level> {
            let mut levels = vec![self.admission.level()];
            for _ in 0..(seconds * 2.0) as usize {
                self.admission.look_at(seen, self.now);
                self.now += Duration::from_millis(500);
                levels.push(self.admission.level());
            }
            levels.dedup();
            levels
        }
    }

    fn aged(seconds: u64) -> Seen {
        Seen { inbox_age: Duration::from_secs(seconds), ..Seen::default() }
    }

    #[test]
    fn a_moment_is_no_overload_and_a_second_is() {
        let mut sim = Sim::new();
        assert_eq!(sim.see(0.5, aged(20)), [Level::Normal]);
        assert_eq!(sim.see(0.5, aged(0)), [Level::Normal]);
        assert_eq!(sim.see(2.0, aged(7)), [Level::Normal, Level::Shedding]);
        assert_eq!(sim.see(2.0, aged(16)), [Level::Shedding, Level::CriticalOnly]);
        assert_eq!(sim.see(2.0, aged(31)), [Level::CriticalOnly, Level::Full]);
    }

    #[test]
    fn what_is_taken_now_counts_by_how_long_it_will_wait() {
        let mut sim = Sim::new();
        let will_wait = |seconds, age| Seen { inbox_wait: Some(Duration::from_secs(seconds)), ..aged(age) };
        assert_eq!(sim.see(2.0, will_wait(20, 1)), [Level::Normal, Level::CriticalOnly]);
        assert_eq!(sim.see(20.0, will_wait(1, 20)).last(), Some(&Level::Normal));
    }

    #[test]
    fn it_is_back_to_normal_within_a_minute_step_by_step() {
        let mut sim = Sim::new();
        sim.see(2.0, aged(29));
        assert_eq!(sim.see(30.0, aged(8)), [Level::CriticalOnly], "half of what raised it holds it");
        let back = [Level::CriticalOnly, Level::Shedding, Level::Strained, Level::Normal];
        assert_eq!(sim.see(20.0, aged(0)), back);
        let status = serde_json::to_value(sim.admission.status()).expect("JSON");
        assert_eq!((&status["level"], &status["cause"]), (&"normal".into(), &serde_json::Value::Null));
    }

    #[test]
    fn each_cause_goes_as_far_as_it_should() {
        let most = |seen: Seen| {
            let mut sim = Sim::new();
            sim.see(3.0, seen);
            (sim.admission.level(), sim.admission.lock().cause)
        };
        let (hour, none) = (Duration::from_secs(3600), Seen::default());
        assert_eq!(most(Seen { jobs_late: hour, ..none }), (Level::Strained, Some(Cause::Jobs)));
        assert_eq!(most(Seen { bus_fill: 1.0, ..none }), (Level::Shedding, Some(Cause::Bus)));
        assert_eq!(most(Seen { commit_wait: hour, ..none }), (Level::CriticalOnly, Some(Cause::Commit)));
        assert_eq!(most(Seen { memory_bytes: u64::MAX, ..none }), (Level::Full, Some(Cause::Memory)));
        assert_eq!(most(Seen { inbox_wait: Some(hour), ..none }), (Level::Full, Some(Cause::Inbox)));
        assert_eq!(most(none), (Level::Normal, None));
    }

    #[test]
    fn what_is_shed_first_is_our_own_work_then_telemetry_then_alerts() {
        let mut sim = Sim::new();
        let services: Vec<String> = (0..400).map(|i| format!("service-{i}")).collect();
        let kept = |sim: &Sim| {
            let mut records = services.clone();
            let out = sim.admission.sample(&mut records, |s| s);
            assert_eq!(out + records.len(), services.len());
            records.len()
        };
        let (critical, warning) = (|| true, || false);

        assert!(sim.admission.model().is_some() && sim.admission.gathers_from_afar());
        sim.see(2.0, aged(3));
        assert_eq!(sim.admission.level(), Level::Strained);
        let asking = sim.admission.model().expect("one at a time");
        assert!(sim.admission.model().is_none() && !sim.admission.gathers_from_afar());
        drop(asking);
        assert!(sim.admission.model().is_some());
        assert_eq!(kept(&sim), 400);

        sim.see(2.0, aged(6));
        assert!(sim.admission.model().is_none());
        assert!((60..140).contains(&kept(&sim)), "about one in four: {}", kept(&sim));
        assert_eq!(sim.admission.alerts(warning), Ok(()));
        assert_eq!(sim.admission.telemetry(), Ok(()));

        sim.see(2.0, aged(15));
        assert_eq!(sim.admission.alerts(warning), Err(Overloaded(Level::CriticalOnly)));
        assert_eq!(sim.admission.alerts(critical), Ok(()));
        assert_eq!(sim.admission.telemetry(), Err(Overloaded(Level::CriticalOnly)));

        sim.see(2.0, aged(30));
        assert_eq!(sim.admission.alerts(critical), Err(Overloaded(Level::Full)));
        assert_eq!(sim.admission.telemetry(), Err(Overloaded(Level::Full)));
    }

    #[test]
    fn diagnoses_learn_when_a_service_was_left_out() {
        let mut sim = Sim::new();
        let begun = clock::now();
        sim.see(2.0, aged(7));
        sim.see(60.0, aged(0));
        let over = clock::now();
        let out = (0..).map(|i| format!("s{i}")).find(|s| !is_kept(s)).expect("three in four");
        let kept = (0..).map(|i| format!("s{i}")).find(|s| is_kept(s)).expect("one in four");
        let hour = Duration::from_secs(3600);
        let (before, after) = (clock::before(begun, hour), clock::after(over, hour));
        assert!(sim.admission.left_out(&out, before, after).is_some_and(|at| at >= begun));
        assert_eq!(sim.admission.left_out(&kept, before, after), None);
        assert_eq!(sim.admission.left_out(&out, before, clock::before(begun, hour / 2)), None);
        assert_eq!(sim.admission.left_out(&out, clock::after(over, hour / 2), after), None);
    }
}
