//! Wires the parts together: opens the store, starts everything in order, and stops it in reverse order.

mod calls;
mod lock;
mod memory;
mod overload;
mod parts;
mod schedule;

pub(crate) use lock::{DirLock, make_data_dir};

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    act,
    admission::Admission,
    breaker::Breakers,
    bus::{self, Bus},
    clock,
    config::{Live, Settings},
    correlate, decide,
    detect::{self, Detectors, Keep, Signal},
    diagnose::{self, Prompts, evidence::Access},
    export::{self, Progress},
    http, http_client, ids,
    intake::{
        commit::{Committer, NotCommitted},
        expire, reconcile, slack, stream, telegram, watches,
    },
    llm::Chain,
    model::{Anomaly, AnomalyEvent, Calls},
    notify,
    owned::Keeper,
    pipeline::{Hands, Pipeline},
    playbook::Registry,
    redact,
    search::{Logs, elastic::Elastic},
    selfwatch,
    steps::Tools,
    store::{
        Store, anomalies,
        leases::{self, Lease},
    },
    verify,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A running service.
pub struct App {
    server: http::Server,
    parts: parts::Parts,
    store: Store,
    registry: Arc<Registry>,
    correlate: Arc<Live<crate::config::Correlate>>,
    _lock: Option<lock::DirLock>,
}

impl App {
    /// Starts everything. When it returns, the service takes requests.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        clock::mark_start();
        http_client::install_tls();
        redact::set_extra(settings.diagnose.mask_patterns());
        let settings = Arc::new(settings);
        lock::make_data_dir(&settings.data_dir)?;
        let embedded = settings.store.url.is_empty();
        let lock = embedded.then(|| lock::DirLock::take(&settings.data_dir)).transpose()?;
        let mut store =
            Store::open_when(settings.store.url.expose(), &settings.data_dir, settings.store.migrate).await?;
        if settings.elasticsearch.exports() {
            store = store.exporting();
        } else {
            export::off(&store).await?;
        }
        if embedded {
            // The lock says that nobody else is alive: what a killed predecessor had claimed is ours at once.
            let mut tx = store.write().await?;
            leases::end_all(&mut tx).await?;
            tx.commit().await?;
        }
        http::ensure_admin_token(&store, &settings.data_dir).await?;
        let mut tx = store.read().await?;
        let left_open = anomalies::open(&mut tx).await?;
        drop(tx);
        let breakers = Breakers::new(&settings.breaker);
        let (logs, writer) = Logs::open(&settings, &breakers).await?;
        let mut build = Build::new(settings, store, breakers, logs)?;
        if let Some(writer) = writer {
            build.parts.start("logs", |stop| writer.run(stop));
        }
        build.finish(lock, left_open)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.address()
    }

    /// Takes over what may change while it runs: playbooks and their policy, correlation, source credentials and host names.
    /// Returns what the playbooks' lint has to say.
    pub fn reload(&self, settings: &Settings) -> Vec<crate::playbook::Finding> {
        redact::set_extra(settings.diagnose.mask_patterns());
        self.correlate.set(settings.correlate.clone());
        self.server.reload(settings);
        self.registry.reload(settings)
    }

    /// Takes nothing new, lets what is under way end, and closes the store.
    pub async fn shutdown(self) {
        self.server.stop().await;
        self.parts.stop().await;
        self.store.close().await;
    }
}

/// What is put together before anything runs.
struct Build {
    settings: Arc<Settings>,
    store: Store,
    keeper: Keeper,
    parts: parts::Parts,
    http: reqwest::Client,
    breakers: Breakers,
    registry: Arc<Registry>,
    correlate: Arc<Live<crate::config::Correlate>>,
    calls: Calls,
    bus: Arc<dyn Bus>,
    redis: Option<bus::Redis>,
    logs: Logs,
    export: Progress,
    admission: Arc<Admission>,
}

impl Build {
    fn new(settings: Arc<Settings>, store: Store, breakers: Breakers, logs: Logs) -> anyhow::Result<Self> {
        let (bus, redis) = bus::open(&settings)?;
        Ok(Self {
            parts: parts::Parts::default(),
            http: http_client::new(),
            breakers,
            export: Progress::default(),
            registry: Arc::new(Registry::open(&settings)),
            correlate: Arc::new(Live::new(settings.correlate.clone())),
            calls: Calls::default(),
            bus,
            redis,
            admission: Arc::new(Admission::new(settings.overload.clone())),
            settings,
            keeper: Keeper::new(store.clone(), &ids::process()),
            store,
            logs,
        })
    }

    /// Starts the parts from the store outwards: whoever hands something on finds its taker running.
    fn finish(mut self, lock: Option<lock::DirLock>, left_open: Vec<Anomaly>) -> anyhow::Result<App> {
        let committer = self.committer()?;
        let bus = self.bus.clone();
        self.parts.start("bus", |stop| async move { bus.run(stop).await });
        let detectors = self.detectors(&committer, left_open);
        let outbox = Arc::new(notify::Deps::new(self.store.clone(), &self.settings)?);
        let act = act::Deps { store: self.store.clone(), tools: self.tools() };
        let pipeline = self.pipeline(detectors.clone(), act.clone())?;
        let (store, keeper) = (self.store.clone(), self.keeper.clone());
        if store.is_shared() {
            tracing::info!(replica = keeper.owner(), "this replica's name");
            let attending = keeper.clone();
            self.parts.start("member", |stop| async move { attending.attend(stop).await });
        }
        let gauges = overload::Gauges {
            store: self.store.clone(),
            committer: committer.clone(),
            bus: self.bus.clone(),
        };
        let admission = self.admission.clone();
        self.parts.start("memory", memory::give_back_until);
        self.parts.start("overload", |stop| overload::watch(admission, gauges, stop));
        let replica = store.is_shared().then(|| keeper.owner().to_owned());
        self.parts.start("selfwatch", |stop| selfwatch::run(store, replica, stop));
        let delivering = outbox.clone();
        self.parts.start("notify", |stop| notify::run(delivering, stop));
        let stages = pipeline.clone();
        let owner = keeper.owner().to_owned();
        self.parts.start("jobs", |stop| stages.work_until(owner, stop));
        let stages = pipeline.clone();
        let intake = committer.clone();
        self.parts.start_apart("correlate", |stop| stages.correlate_until(intake, stop))?;
        self.schedules(&committer);
        self.exporter()?;
        let slack = self.listeners();
        let server = self.server(committer, act, outbox, slack, detectors)?;
        Ok(App {
            server,
            parts: self.parts,
            store: self.store,
            registry: self.registry,
            correlate: self.correlate,
            _lock: lock,
        })
    }

    /// On a thread of its own: those who wait for a commit wait for nothing else.
    fn committer(&mut self) -> anyhow::Result<Committer> {
        let (store, set) = (self.store.clone(), &self.settings.intake);
        let (queue, deadline) = (set.queue, set.commit_timeout);
        let mut made = None;
        self.parts.start_apart("commit", |stop| {
            let (committer, writer) = Committer::new(store, queue, deadline, stop);
            made = Some(committer);
            writer
        })?;
        made.context("the part is made before it is started")
    }

    /// The detectors, and the road that takes what they find into the store.
    fn detectors(&mut self, committer: &Committer, left_open: Vec<Anomaly>) -> Detectors {
        let (signals, found) = mpsc::channel(1024);
        let left_open = left_open.into_iter().map(AnomalyEvent::from).collect();
        let (bus, settings) = (self.bus.clone(), self.settings.detect.clone());
        let (store, keeper) = (self.store.clone(), self.keeper.clone());
        let keep = match self.redis {
            Some(_) => Some(Keep::Shared(store, keeper)),
            None if store.is_shared() => None,
            None => Some(Keep::Alone(store)),
        };
        let deps = detect::Deps { bus, settings, signals, left_open, keep, calls: self.calls.clone() };
        let detectors = Detectors::new(deps);
        let (graph, store, period) =
            (self.calls.clone(), self.store.clone(), self.settings.detect.save_every);
        self.parts.start("calls", |stop| calls::keep(graph, store, period, stop));
        let committer = committer.clone();
        self.parts.start("signals", |stop| keep_signals(found, committer, stop));
        let running = detectors.clone();
        self.parts.start("detect", |stop| async move {
            if let Err(e) = running.run(stop).await {
                tracing::error!(error = %format!("{e:#}"), "detection has ended");
            }
        });
        detectors
    }

    fn tools(&self) -> Arc<Tools> {
        Arc::new(Tools {
            registry: self.registry.clone(),
            http: self.http.clone(),
            prometheus: self.settings.prometheus.clone(),
            data_dir: self.settings.data_dir.clone(),
        })
    }

    fn pipeline(&self, detectors: Detectors, act: act::Deps) -> anyhow::Result<Arc<Pipeline>> {
        let (settings, store) = (&self.settings, &self.store);
        let prompts =
            Prompts::load(&settings.diagnose.prompts).map_err(|wrong| anyhow::anyhow!(wrong.join("\n")))?;
        let access = Access {
            store: store.clone(),
            settings: settings.clone(),
            http: Some(self.http.clone()),
            breakers: self.breakers.clone(),
            telemetry: Arc::new(detectors),
            logs: self.logs.clone(),
            admission: self.admission.clone(),
        };
        let diagnose = diagnose::Deps {
            access,
            chain: Arc::new(Chain::new(&settings.llm, &self.http, store.clone(), self.breakers.clone())),
            prompts: Arc::new(prompts),
            playbooks: self.registry.clone(),
        };
        let verify = verify::Deps { store: store.clone(), tools: act.tools.clone() };
        Ok(Arc::new(Pipeline {
            store: store.clone(),
            correlate: correlate::Deps {
                store: store.clone(),
                settings: self.correlate.clone(),
                calls: self.calls.clone(),
                channels: notify::channel_names(settings).into(),
            },
            diagnose,
            decide: decide::Deps { store: store.clone(), registry: self.registry.clone() },
            hands: Some(Hands { act, verify }),
            admission: self.admission.clone(),
        }))
    }

    /// What is done by the clock: repairs from Alertmanager, alerts that nobody repeats, watches, retention.
    /// Each has one owner among the replicas.
    fn schedules(&mut self, committer: &Committer) {
        let (settings, keeper) = (self.settings.clone(), self.keeper.clone());
        let (store, http) = (self.store.clone(), self.http.clone());
        let deps = reconcile::Deps {
            store: store.clone(),
            committer: committer.clone(),
            http: http.clone(),
            settings: Arc::new(settings.alertmanager.clone()),
        };
        if !settings.alertmanager.urls.is_empty() {
            let keeper = keeper.clone();
            self.parts.start("reconcile", |stop| reconcile::run(deps, keeper, stop));
        }
        let deps = expire::Deps {
            store: store.clone(),
            committer: committer.clone(),
            listening_since: clock::now(),
        };
        let (every, by) = (settings.intake.expire_every, keeper.clone());
        self.parts.start("expire", |stop| expire::run(deps, every, by, stop));
        if let Some(redis) = self.redis.clone() {
            let deps = stream::Deps { redis, settings: settings.detect.clone(), logs: self.logs.clone() };
            let keeper = keeper.clone();
            self.parts.start("ingest", |stop| async move {
                keeper.run("ingest", stop, |lease, stop| stream::run(deps.clone(), lease.owner, stop)).await;
            });
        }
        if !settings.detect.watches.is_empty() {
            let deps = watches::Deps {
                http,
                prometheus: settings.prometheus.clone(),
                breakers: self.breakers.clone(),
                bus: self.bus.clone(),
            };
            let (all, by) = (settings.detect.watches.clone(), keeper.clone());
            self.parts.start("watches", |stop| watches::run(deps, all, by, stop));
        }
        let ages = Arc::new(settings.store.retention.clone());
        self.parts.start("retention", |stop| async move {
            let work = |lease: Lease, ours| {
                let (store, ages) = (store.clone(), ages.clone());
                schedule::every("retention", HOUR, ours, move || {
                    schedule::forget(store.clone(), lease.clone(), ages.clone())
                })
            };
            keeper.run("retention", stop, work).await;
        });
    }

    /// Copies our own records to where the settings want them.
    fn exporter(&mut self) -> anyhow::Result<()> {
        let set = &self.settings.elasticsearch;
        if !set.exports() {
            return Ok(());
        }
        let deps = export::Deps {
            store: self.store.clone(),
            elastic: Elastic::new(set, &self.breakers)?.patient(),
            prefix: set.export.prefix.clone(),
            progress: self.export.clone(),
        };
        let keeper = self.keeper.clone();
        self.parts.start("export", |stop| export::run(deps, keeper, stop));
        Ok(())
    }

    /// Those who listen to people's buttons and commands; what the HTTP server needs to take Slack's.
    fn listeners(&mut self) -> Option<Arc<slack::Deps>> {
        let (notify, language) = (self.settings.notify.clone(), self.settings.language);
        if notify.telegram.is_on() && notify.telegram.listen {
            let deps = telegram::Deps::new(self.store.clone(), notify.telegram, language)
                .with_logs(self.logs.clone());
            let keeper = self.keeper.clone();
            self.parts.start("telegram", |stop| async move { telegram::run(&deps, &keeper, stop).await });
        }
        if !notify.slack.has_buttons() {
            return None;
        }
        let deps = Arc::new(slack::Deps::new(self.store.clone(), notify.slack, language));
        let working = deps.clone();
        self.parts.start("slack", |stop| async move { slack::run(&working, stop).await });
        Some(deps)
    }

    fn server(
        &self,
        committer: Committer,
        act: act::Deps,
        outbox: Arc<notify::Deps>,
        slack: Option<Arc<slack::Deps>>,
        detectors: Detectors,
    ) -> anyhow::Result<http::Server> {
        let ended = self.parts.ended();
        let (breakers, overload) = (self.breakers.clone(), self.admission.clone());
        let (bus, logs) = (self.bus.clone(), self.logs.clone());
        let mut reports: BTreeMap<&'static str, http::Report> = BTreeMap::from([
            ("breakers", Arc::new(move || json!(breakers.status())) as http::Report),
            ("bus", Arc::new(move || json!(bus.status()))),
            ("detect", Arc::new(move || detectors.status())),
            ("logs", Arc::new(move || logs.report())),
            ("overload", Arc::new(move || json!(overload.status()))),
        ]);
        if self.settings.elasticsearch.exports() {
            let export = self.export.clone();
            reports.insert("export", Arc::new(move || export.report()) as http::Report);
        }
        http::serve(http::HttpDeps {
            store: self.store.clone(),
            committer,
            admission: self.admission.clone(),
            act,
            bus: self.bus.clone(),
            logs: self.logs.clone(),
            settings: self.settings.clone(),
            outbox,
            reports,
            slack,
            ready: Arc::new(move || match ended.get() {
                None => Ok(()),
                Some(part) => Err(format!("the part {part} has ended; restart the service")),
            }),
            stop: CancellationToken::new(),
        })
    }
}

/// Makes every onset and end of an anomaly durable; tries until it is.
async fn keep_signals(mut found: mpsc::Receiver<Signal>, committer: Committer, stop: CancellationToken) {
    loop {
        let signal = tokio::select! {
            signal = found.recv() => signal,
            () = stop.cancelled() => match found.try_recv() {
                Ok(signal) => Some(signal),
                Err(_) => return,
            },
        };
        let event = match signal {
            Some(Signal::Anomaly(event)) => event,
            Some(Signal::Durable(asked)) => {
                // Whoever asked may have ended.
                let _ = asked.send(());
                continue;
            }
            // Nobody finds anything any more: the detectors have ended, and those who stop the parts know.
            None => return stop.cancelled().await,
        };
        while let Err(e) = committer.anomaly(event.clone()).await {
            if e == NotCommitted::Stopped {
                return;
            }
            tracing::warn!(error = %e, key = event.key, "an anomaly could not be stored; trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
