//! Telemetry from the bytes of a request to the anomalies and the evidence, through the public surface, in real time.

use std::{sync::Arc, time::Duration};

use aiops::{
    breaker::Breakers,
    bus::{Bus, Embedded},
    clock,
    config::{self, BusSettings, Detect, Watch},
    detect::{self, Detectors, Keep, Signal},
    http_client,
    intake::{
        logs, metrics,
        telemetry::{self, Kind, Limits},
        watches::{self, Puller},
    },
    model::{AnomalyEvent, AnomalyKind, Coverage, Telemetry},
    store::{Store, partitions},
};
use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::peers::Prometheus;

struct Running {
    bus: Arc<dyn Bus>,
    detectors: Detectors,
    found: JoinHandle<Vec<AnomalyEvent>>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(settings: &Detect) -> Self {
        Self::start_with(settings, None)
    }

    fn start_with(settings: &Detect, keep: Option<Keep>) -> Self {
        let bus: Arc<dyn Bus> = Arc::new(Embedded::new(&settings.bus));
        let (sender, mut signals) = mpsc::channel(100);
        let found = tokio::spawn(async move {
            let mut found = Vec::new();
            while let Some(signal) = signals.recv().await {
                match signal {
                    Signal::Anomaly(event) => found.push(event),
                    Signal::Durable(asked) => asked.send(()).expect("it waits"),
                }
            }
            found
        });
        let deps = detect::Deps {
            bus: bus.clone(),
            settings: settings.clone(),
            signals: sender,
            left_open: vec![],
            keep,
            calls: Default::default(),
        };
        let (detectors, stop) = (Detectors::new(deps), CancellationToken::new());
        let task = tokio::spawn({
            let (detectors, stop) = (detectors.clone(), stop.clone());
            async move { detectors.run(stop).await }
        });
        Self { bus, detectors, found, stop, task }
    }

    async fn send_logs(&self, body: String) -> telemetry::Counts {
        let limits = Limits::new(&Detect::default(), clock::now());
        let parsed = logs::parse(body.as_bytes(), "application/x-ndjson", &limits).expect("lines");
        telemetry::accept(&telemetry::Deps { bus: self.bus.clone() }, Kind::Logs, parsed).await
    }

    async fn send_metric(&self, value: f64) -> telemetry::Counts {
        let limits = Limits::new(&Detect::default(), clock::now());
        let body = format!(r#"[{{"name":"latency_seconds","service":"shop","value":{value}}}]"#);
        let parsed = metrics::parse(body.as_bytes(), "application/json", &limits).expect("an array");
        telemetry::accept(&telemetry::Deps { bus: self.bus.clone() }, Kind::Metrics, parsed).await
    }

    fn coverage(&self, service: &str) -> Coverage {
        let now = clock::now();
        self.detectors.recent(service, clock::before(now, Duration::from_secs(600)), now).coverage
    }

    async fn stop(self) -> Vec<AnomalyEvent> {
        let Self { found, stop, task, detectors, .. } = self;
        stop.cancel();
        task.await.expect("no panic").expect("it ends well");
        drop(detectors);
        found.await.expect("no panic")
    }

    /// Ends as a kill does: nothing more is saved.
    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }

    /// The templates of a service in the last ten minutes.
    fn templates(&self, service: &str) -> Vec<String> {
        let now = clock::now();
        let recent = self.detectors.recent(service, clock::before(now, Duration::from_secs(600)), now);
        let mut templates: Vec<String> = recent.templates.into_iter().map(|t| t.template).collect();
        templates.sort();
        templates
    }
}

#[tokio::test]
async fn a_failing_service_is_seen_in_its_logs_and_metrics_within_seconds() {
    let settings = Detect { warm_up: Duration::from_secs(2), ..Detect::default() };
    let running = Running::start(&settings);
    for turn in 0..30 {
        let counts =
            running.send_logs(format!(r#"{{"service":"shop","msg":"GET /items/{turn} 200"}}"#)).await;
        assert_eq!((counts.accepted, counts.status()), (1, 200));
        running.send_metric(0.1 + f64::from(turn % 3) / 100.0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let broke = clock::now();
    for turn in 0..25 {
        let lines = format!(
            r#"{{"service":"shop","level":"error","msg":"connection refused to 10.0.0.{turn}:5432"}}"#
        );
        running.send_logs(format!("{lines}\n{lines}")).await;
        running.send_metric(2.0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(running.coverage("shop"), Coverage::Known);
    let recent =
        running.detectors.recent("shop", clock::before(broke, Duration::from_secs(60)), Timestamp::MAX);
    assert_eq!(recent.errors.len(), 50);
    assert_eq!(recent.templates[0].template, "connection refused to <*>");
    let events = running.stop().await;
    let kinds: Vec<_> = events.iter().map(|e| e.kind).collect();
    for kind in [AnomalyKind::LogNovelty, AnomalyKind::LogBurst, AnomalyKind::Metric] {
        assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_whole_and_the_sender_told_to_come_again() {
    let bus = Arc::new(Embedded::new(&BusSettings { partitions: 1, max_records: 3, max_bytes: 1 << 20 }));
    let deps = telemetry::Deps { bus: bus.clone() };
    let limits = Limits::new(&Detect::default(), clock::now());
    let body = br#"[{"msg":"a"},{"msg":"b"},{"no":"message"}]"#;
    let parse = || logs::parse(body, "application/json", &limits).expect("an array");
    let first = telemetry::accept(&deps, Kind::Logs, parse()).await;
    assert_eq!((first.accepted, first.rejected, first.dropped, first.status()), (2, 1, 0, 200));
    let second = telemetry::accept(&deps, Kind::Logs, parse()).await;
    assert_eq!((second.accepted, second.rejected, second.dropped, second.status()), (0, 1, 2, 503));
    assert_eq!(bus.depth(), 2, "nothing was lost, nothing is counted twice");
}

#[tokio::test]
async fn an_anomaly_left_open_by_a_restart_is_ended_when_it_does_not_come_again() {
    let settings = Detect { adapt_after: Duration::from_millis(200), ..Detect::default() };
    let bus = Arc::new(Embedded::new(&settings.bus));
    let (sender, mut signals) = mpsc::channel(10);
    let left = AnomalyEvent {
        kind: AnomalyKind::Metric,
        key: "metric/shop/1".into(),
        service: "shop".into(),
        severity: aiops::model::Severity::Warning,
        title: "latency".into(),
        detail: serde_json::json!({}),
        started_at: clock::now(),
        ended_at: None,
    };
    let deps = detect::Deps {
        bus,
        settings,
        signals: sender,
        left_open: vec![left],
        keep: None,
        calls: Default::default(),
    };
    let detectors = Detectors::new(deps);
    let stop = CancellationToken::new();
    let run = detectors.run(stop.clone());
    let check = async {
        let event = tokio::time::timeout(Duration::from_secs(10), signals.recv()).await.expect("in time");
        let Some(Signal::Anomaly(event)) = event else { panic!("no end") };
        assert!(event.ended_at.is_some());
        assert_eq!(event.detail["ended"], "not seen again after a restart");
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(run, check);
    ended.expect("it ends well");
}

/// Until everything that was judged before is saved.
async fn saved(store: &Store) {
    let from = clock::now();
    for _ in 0..500 {
        let mut tx = store.read().await.expect("the store answers");
        if partitions::saved(&mut tx, 0).await.expect("a row").at.is_some_and(|at| at > from) {
            return;
        }
        drop(tx);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing is saved");
}

#[tokio::test]
async fn what_the_embedded_service_learned_outlives_a_stop_and_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::scratch(dir.path()).await.expect("a store");
    let bus = BusSettings { partitions: 1, ..BusSettings::default() };
    let settings = Detect { save_every: Duration::from_millis(50), bus, ..Detect::default() };
    let start = || Running::start_with(&settings, Some(Keep::Alone(store.clone())));
    let back = async |templates: &[&str]| {
        let running = start();
        for _ in 0..500 {
            if running.detectors.has_heard() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(running.templates("shop"), templates, "at once, before anything came");
        let now = clock::now();
        let recent = running.detectors.recent("shop", clock::before(now, Duration::from_secs(600)), now);
        assert_eq!(recent.series.len(), 1, "the series too");
        let Coverage::Unknown { reason } = recent.coverage else { panic!("a restart is a gap") };
        assert!(reason.to_string().contains("aiops was restarted"), "{reason}");
        running
    };
    let running = start();
    for turn in 0..5 {
        running.send_logs(format!(r#"{{"service":"shop","msg":"order {turn} of 17 shipped"}}"#)).await;
        running.send_metric(0.5).await;
    }
    settled(&running).await;
    // One more begins the save that is waited for.
    running.send_metric(0.6).await;
    saved(&store).await;
    running.kill().await;

    let running = back(&["order <*> of <*> shipped"]).await;
    running.send_logs(r#"{"service":"shop","msg":"the cellar is dry"}"#.into()).await;
    settled(&running).await;
    assert_eq!(running.stop().await, [], "what goes on as it did is no anomaly");

    let running = back(&["order <*> of <*> shipped", "the cellar is dry"]).await;
    running.stop().await;
}

fn puller(url: &str, running: &Running, service: &str, query: &str) -> Puller {
    let prometheus = config::Prometheus { url: url.into(), ..config::Prometheus::default() };
    let deps = watches::Deps {
        http: http_client::new(),
        prometheus,
        breakers: Breakers::new(&config::Breaker::default()),
        bus: running.bus.clone(),
    };
    let watch = Watch {
        name: format!("{service}_watch"),
        name_label: if service == "named" { "__name__".into() } else { String::new() },
        query: query.into(),
        service: service.into(),
        service_label: String::new(),
        every: Duration::from_secs(1),
    };
    Puller::new(deps, watch)
}

/// Waits until the detectors have worked off the bus.
async fn settled(running: &Running) {
    for _ in 0..200 {
        if running.bus.depth() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the bus is not worked off");
}

#[tokio::test]
async fn a_watch_without_an_answer_is_unknown_until_prometheus_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut prometheus = Prometheus::start("global: {}\n", dir.path()).await;
    let running = Running::start(&Detect::default());
    let unknown = |service: &str, part: &str| match running.coverage(service) {
        Coverage::Unknown { reason } => assert!(reason.contains(part), "{reason}"),
        Coverage::Known => panic!("{service} should be unknown: {part}"),
    };

    puller(&prometheus.url, &running, "empty", "vector(1) > 2").pull().await;
    puller(&prometheus.url, &running, "wrong", "sum(").pull().await;
    puller(&prometheus.url, &running, "nan", "vector(0) / 0").pull().await;
    let mut shop = puller(&prometheus.url, &running, "shop", "vector(7)");
    shop.pull().await;
    settled(&running).await;
    unknown("empty", "watch empty_watch since ");
    unknown("empty", "the answer has no series");
    unknown("wrong", "Prometheus refuses the query: ");
    unknown("nan", "the value is not finite");
    assert_eq!(running.coverage("shop"), Coverage::Known);
    let now = clock::now();
    let recent =
        running.detectors.recent("shop", clock::before(now, Duration::from_secs(60)), Timestamp::MAX);
    assert_eq!((recent.series[0].name.as_str(), recent.series[0].last), ("shop_watch", 7.0));

    prometheus.child.stop();
    shop.pull().await;
    settled(&running).await;
    unknown("shop", "Prometheus cannot be reached: ");
    prometheus.child.restart().await;
    shop.pull().await;
    settled(&running).await;
    assert_eq!(running.coverage("shop"), Coverage::Known, "it answers again");
    assert_eq!(running.stop().await, [], "what is unknown is no anomaly");
}

#[tokio::test]
async fn what_prometheus_scraped_is_heard_once_and_at_its_own_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let prometheus = Prometheus::of_itself("2s", dir.path()).await;
    let running = Running::start(&Detect::default());
    let mut sampled = puller(&prometheus.url, &running, "sampled", "up # each target");
    let mut computed = puller(&prometheus.url, &running, "computed", "up + 0");
    let several = r#"{__name__=~"up|process_max_fds"} # two of them"#;
    let mut nameless = puller(&prometheus.url, &running, "nameless", several);
    let mut named = puller(&prometheus.url, &running, "named", several);
    let mut seldom = puller(&prometheus.url, &running, "seldom", "up");
    let begun = clock::now();
    let heard = |service: &str| {
        let from = clock::before(begun, Duration::from_secs(60));
        running.detectors.recent(service, from, Timestamp::MAX).series
    };
    for _ in 0..300 {
        for puller in [&mut sampled, &mut computed, &mut nameless, &mut named] {
            puller.pull().await;
        }
        if heard("sampled").first().is_some_and(|series| series.count >= 4) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seldom.pull().await;
    settled(&running).await;
    let one = |service: &str| match heard(service).as_slice() {
        [series] => series.clone(),
        other => panic!("{service}: {other:?}"),
    };
    let sampled = one("sampled");
    assert!(one("computed").count > 2 * sampled.count, "{} of {}", one("computed").count, sampled.count);
    let at = sampled.last_at.as_millisecond();
    let times = prometheus.scraped_at("up").await;
    assert!(times.contains(&at), "{at} of {times:?}");
    // One more may have come since.
    let is_each_once = |count: usize| (sampled.count..=sampled.count + 1).contains(&count);
    assert!(is_each_once(times.len()), "{} of {times:?}", sampled.count);
    assert!(is_each_once(one("seldom").count), "asked once, it hears what was scraped before too");
    let nameless = one("nameless");
    assert!(is_each_once(nameless.count) && nameless.min > 1.0, "one of the metrics: {nameless:?}");
    let told: Vec<_> = heard("named").iter().map(|s| (s.name.clone(), is_each_once(s.count))).collect();
    assert_eq!(told, [("process_max_fds".to_owned(), true), ("up".to_owned(), true)]);
    assert_eq!(running.stop().await, []);
}
