//! The world of a replay: the stages of the live service around a private store, on a clock that jumps from one thing that
//! happens to the next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    happened::{self, Happened},
    recording::{Arrival, Counts, Recording},
};
use crate::{
    admission::Admission,
    breaker::Breakers,
    bus::{Embedded, Record},
    clock::{self, SetClock},
    config::{Live, Settings},
    correlate, decide,
    detect::{self, Detectors},
    diagnose::{self, Prompts, evidence::Access},
    intake::expire,
    llm::Chain,
    model::{Actor, AlertEvent, AlertState, AnomalyEvent, Calls, Job, JobKind, RunState},
    notify::{self, channels},
    pipeline::{Pace, Pipeline},
    playbook::Registry,
    redact,
    search::Logs,
    steer,
    store::{
        Store, alerts, changes,
        inbox::{self, Delivery, Prepared},
        jobs, runs,
    },
    worker,
};

/// How long the world goes on after the last arrival: what is on its way then arrives, and nothing expires for want of a
/// recording.
const TAIL: Duration = Duration::from_secs(60);
/// How much longer than `detect.adapt_after` time passes for the detectors where nothing arrives: what was open is over then, calls
/// are counted, and nothing happens before more arrives. A line of a host whose clock began in 1970 must not cost decades.
const REST: Duration = Duration::from_secs(600);
/// A replay takes the time that it takes: no computation of it is late.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// Sends a recording through the stages under these settings. One at a time in a process: it sets the clock.
pub async fn replay(settings: &Settings, recording: &Recording) -> anyhow::Result<Happened> {
    let mut arrivals = recording.arrivals(settings)?;
    let mut next = arrivals.next()?;
    let Some((first, _)) = &next else { anyhow::bail!("the recording is empty") };
    let (first, mut last) = (*first, *first);
    let dir = tempfile::tempdir().context("making a directory for the replay's store")?;
    let mut world = World::new(settings, dir.path(), first).await?;
    let mut counts = Counts::default();
    while let Some((at, arrival)) = next {
        world.go_to(at).await?;
        counts.add(&arrival);
        last = at;
        world.take(arrival).await?;
        next = arrivals.next()?;
        if next.as_ref().is_none_or(|(after, _)| *after > at) {
            world.settle().await?;
        }
    }
    world.go_to(clock::after(last, TAIL)).await?;
    let happened = happened::read(&world.store, world.notes.take(), counts, (first, last)).await;
    world.store.close().await;
    Ok(Happened { unrecorded: recording.lacks(settings), ..happened? })
}

struct World {
    store: Store,
    pipeline: Pipeline,
    pace: Pace,
    detectors: Detectors,
    outbox: notify::Deps,
    notes: channels::paper::Notes,
    clock: SetClock,
    now: Timestamp,
    /// When the next job or message is due, as far as is known.
    due: Option<Timestamp>,
    /// When the detectors let time pass; `None` while they have nothing to do.
    tick: Option<Timestamp>,
    /// When the detectors have nothing left to do unless more telemetry arrives.
    rest_at: Timestamp,
    /// How long after the last telemetry that is.
    rest_after: Duration,
    expiry: Expiry,
    never: CancellationToken,
}

impl World {
    async fn new(settings: &Settings, dir: &std::path::Path, now: Timestamp) -> anyhow::Result<Self> {
        let settings = Arc::new(isolated(settings));
        redact::set_extra(settings.diagnose.mask_patterns());
        let clock = SetClock::at(now);
        let store = Store::scratch(dir).await?;
        let calls = Calls::default();
        // Nobody reads it: what is found is handed on by hand.
        let (signals, _) = mpsc::channel(1);
        let detectors = Detectors::new(detect::Deps {
            bus: Arc::new(Embedded::new(&settings.detect.bus)),
            settings: settings.detect.clone(),
            signals,
            left_open: Vec::new(),
            keep: None,
            calls: calls.clone(),
        });
        let (routes, notes) = channels::on_paper(&settings);
        let registry = Arc::new(Registry::open(&settings));
        let breakers = Breakers::new(&settings.breaker);
        let admission = Arc::new(Admission::new(settings.overload.clone()));
        let access = Access {
            store: store.clone(),
            settings: settings.clone(),
            http: None,
            breakers: breakers.clone(),
            telemetry: Arc::new(detectors.clone()),
            logs: Logs::none(),
            admission: admission.clone(),
        };
        let pipeline = Pipeline {
            store: store.clone(),
            correlate: correlate::Deps {
                store: store.clone(),
                settings: Arc::new(Live::new(settings.correlate.clone())),
                calls,
                channels: notify::channel_names(&settings).into(),
            },
            diagnose: diagnose::Deps {
                access,
                chain: Arc::new(Chain::none(store.clone(), breakers)),
                prompts: Arc::new(Prompts::built_in()),
                playbooks: registry.clone(),
            },
            decide: decide::Deps { store: store.clone(), registry },
            hands: None,
            admission,
        };
        Ok(Self {
            outbox: notify::Deps::over(store.clone(), &settings, routes),
            store,
            pipeline,
            pace: Pace::default(),
            detectors,
            notes,
            clock,
            now,
            due: None,
            tick: None,
            rest_at: now,
            rest_after: settings.detect.adapt_after.saturating_add(REST),
            expiry: Expiry::new(settings.intake.expire_every),
            never: CancellationToken::new(),
        })
    }

    /// Lets time pass until `to`, and everything happen that falls due on the way.
    async fn go_to(&mut self, to: Timestamp) -> anyhow::Result<()> {
        loop {
            let sweep = self.expiry.next();
            let Some(at) = [self.due, self.tick, sweep].into_iter().flatten().min().filter(|at| *at <= to)
            else {
                self.set(to);
                return Ok(());
            };
            self.set(at);
            let mut happened = self.due.is_some_and(|due| due <= at);
            if self.tick.is_some_and(|tick| tick <= at) {
                self.tick = Some(clock::after(at, detect::TICK)).filter(|next| *next <= self.rest_at);
                let found = self.detectors.pass(at);
                happened |= !found.is_empty();
                self.found(found).await?;
            }
            if sweep.is_some_and(|sweep| sweep <= at) {
                happened |= self.expire().await?;
            }
            if happened {
                self.settle().await?;
            }
        }
    }

    fn set(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        self.clock.set(self.now);
    }

    /// Takes what arrives now; [`World::settle`] does what follows.
    async fn take(&mut self, arrival: Arrival) -> anyhow::Result<()> {
        match arrival {
            Arrival::Alerts(events) => self.deliver(events).await?,
            Arrival::Anomaly(event) => self.found(vec![*event]).await?,
            Arrival::Record(record) => self.judge(&record).await?,
            Arrival::Change(change) => {
                let mut tx = self.store.write().await?;
                changes::save(&mut tx, &change).await?;
                tx.commit().await?;
            }
            Arrival::Silence(silence) => {
                let by = Actor::aiops("replay");
                let mut tx = self.store.write().await?;
                let made = steer::silence(&mut tx, silence.matches, silence.until, &silence.reason, &by);
                made.await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
                tx.commit().await?;
            }
        }
        Ok(())
    }

    async fn judge(&mut self, record: &Record) -> anyhow::Result<()> {
        self.rest_at = clock::after(self.now, self.rest_after);
        self.tick.get_or_insert_with(|| clock::after(self.now, detect::TICK));
        let found = self.detectors.judge(record, self.now);
        if found.is_empty() {
            return Ok(());
        }
        self.found(found).await?;
        self.settle().await
    }

    async fn found(&mut self, events: Vec<AnomalyEvent>) -> anyhow::Result<()> {
        let deliveries: Vec<Prepared> =
            events.into_iter().map(|e| Prepared::new(&Delivery::Anomaly(Box::new(e)))).collect();
        if !deliveries.is_empty() {
            inbox::append(&self.store, &deliveries).await?;
            self.due = Some(self.now);
        }
        Ok(())
    }

    async fn deliver(&mut self, events: Vec<AlertEvent>) -> anyhow::Result<()> {
        events.iter().for_each(|event| self.expiry.heard(event));
        inbox::append(&self.store, &[Prepared::new(&Delivery::Alerts(events))]).await?;
        self.due = Some(self.now);
        Ok(())
    }

    /// Ends what its sender promised to repeat and did not; whether there was any.
    async fn expire(&mut self) -> anyhow::Result<bool> {
        let mut tx = self.store.read_few().await?;
        let expired = alerts::expired(&mut tx, self.now).await?;
        drop(tx);
        let over: Vec<AlertEvent> = expired.into_iter().map(expire::ended).collect();
        self.expiry.swept(self.now);
        let any = !over.is_empty();
        if any {
            self.deliver(over).await?;
        }
        Ok(any)
    }

    /// Does all that is due now: correlates, does jobs, tells; again while that leads to more.
    async fn settle(&mut self) -> anyhow::Result<()> {
        if self.due.is_none_or(|due| due > self.now) {
            return Ok(());
        }
        loop {
            while self.pipeline.correlate_once(&mut self.pace).await?.is_some() {}
            while self.do_job().await? {}
            let told = notify::deliver_due(&self.outbox, self.now).await?;
            let mut tx = self.store.read_few().await?;
            let job = jobs::next_due(&mut tx, self.now).await?;
            drop(tx);
            let message = notify::next_due(&self.outbox, self.now).await?;
            self.due = [job, message].into_iter().flatten().min();
            if self.due.is_none_or(|due| due > self.now) {
                return Ok(());
            }
            if told == 0 {
                // Due, and yet nothing was done about it: time must go on.
                self.due = Some(clock::after(self.now, Duration::from_secs(1)));
                return Ok(());
            }
        }
    }

    /// Does one job that is due; false if none is.
    async fn do_job(&mut self) -> anyhow::Result<bool> {
        let mut tx = self.store.read_few().await?;
        let due = jobs::next_due(&mut tx, self.now).await?.filter(|at| *at <= self.now);
        drop(tx);
        if due.is_none() {
            return Ok(false);
        }
        let mut tx = self.store.write().await?;
        let job = jobs::claim(&mut tx, "replay", self.now, PATIENCE, 1).await?.pop();
        tx.commit().await?;
        let Some(job) = job else { return Ok(false) };
        let (tx, next) = match job.kind {
            JobKind::Run | JobKind::Verify => (self.put_down(&job).await?, Vec::new()),
            _ => self.pipeline.work(&job, self.never.clone()).await?,
        };
        worker::finish(tx, job, next).await?;
        Ok(true)
    }

    /// A run that would begin now ends at once: nobody can carry it out, and nothing may wait for it.
    async fn put_down(&self, job: &Job) -> anyhow::Result<crate::store::Tx> {
        let mut tx = self.store.write().await?;
        let why = "not carried out: this is a replay".into();
        runs::set_state(&mut tx, &job.subject, RunState::Cancelled, &why).await?;
        Ok(tx)
    }
}

/// The settings without all that leads out of the process. That nobody is reached rests on what the world is made of; this
/// keeps what it says of missing evidence true.
fn isolated(settings: &Settings) -> Settings {
    let default = Settings::default();
    let mut settings = settings.clone();
    settings.prometheus = default.prometheus;
    settings.alertmanager = default.alertmanager;
    settings.redis = default.redis;
    settings.elasticsearch = default.elasticsearch;
    settings.llm = default.llm;
    settings.otlp = default.otlp;
    settings.diagnose.evidence_timeout = PATIENCE;
    settings
}

/// When alerts end that nobody repeats: swept as often as live, while there are any.
struct Expiry {
    every: Duration,
    by_time: BTreeSet<(Timestamp, String)>,
    by_alert: HashMap<String, Timestamp>,
    not_before: Timestamp,
}

impl Expiry {
    fn new(every: Duration) -> Self {
        Self { every, by_time: BTreeSet::new(), by_alert: HashMap::new(), not_before: Timestamp::MIN }
    }

    fn heard(&mut self, event: &AlertEvent) {
        if let Some(old) = self.by_alert.remove(&event.fingerprint) {
            self.by_time.remove(&(old, event.fingerprint.clone()));
        }
        if let (AlertState::Firing, Some(at)) = (event.state, event.expires_at) {
            self.by_alert.insert(event.fingerprint.clone(), at);
            self.by_time.insert((at, event.fingerprint.clone()));
        }
    }

    /// The sweep that ends the first of them.
    fn next(&self) -> Option<Timestamp> {
        let (at, _) = self.by_time.first()?;
        Some(clock::after(*at, self.every).max(self.not_before))
    }

    fn swept(&mut self, now: Timestamp) {
        self.not_before = clock::after(now, self.every);
        while self.by_time.first().is_some_and(|(at, _)| *at < now) {
            let Some((_, fingerprint)) = self.by_time.pop_first() else { break };
            self.by_alert.remove(&fingerprint);
        }
    }
}
