//! Programs that tell of themselves as most do: by the client library of Prometheus, which scrapes them, and which the watches of
//! the settings ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus::{
    Counter, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    fakes::{self, Answer},
    peers::Prometheus,
    service::Service,
    traces::fire,
};

use super::first_ranked;

/// Each calls the next; what its framework calls the requests that it answers, and how they ended.
const SERVICES: [(&str, &str, [&str; 2]); 3] = [
    ("front", "http_server_requests_seconds", ["status", "uri"]),
    ("orders", "grpc_server_handling_seconds", ["grpc_code", "grpc_method"]),
    ("ledger", "http_request_duration_seconds", ["code", "path"]),
];
const EVERY: Duration = Duration::from_millis(50);
/// Until the fault, and with it.
const QUIET: Duration = Duration::from_secs(32);
const FAULTY: Duration = Duration::from_secs(10);

/// What a program exports.
#[derive(Clone)]
struct Exported {
    registry: Registry,
    requests: HistogramVec,
    jobs: HistogramVec,
    pool: Histogram,
    failed: IntCounterVec,
    cpu: Counter,
}

impl Exported {
    fn new((_, requests, labels): (&str, &str, [&str; 2])) -> Self {
        let registry = Registry::new();
        let histogram = |name: &str, of: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, name), of).expect("a histogram")
        };
        let exported = Self {
            requests: histogram(requests, &labels),
            jobs: histogram("batch_duration_seconds", &["job_name"]),
            pool: Histogram::with_opts(HistogramOpts::new("pool_acquire_seconds", "acquired")).expect("one"),
            failed: IntCounterVec::new(Opts::new("http_errors_total", "failed"), &["code"]).expect("one"),
            cpu: Counter::new("process_cpu_seconds_total", "cpu").expect("a counter"),
            registry,
        };
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(exported.requests.clone()),
            Box::new(exported.pool.clone()),
            Box::new(exported.jobs.clone()),
            Box::new(exported.failed.clone()),
            Box::new(exported.cpu.clone()),
        ];
        all.into_iter().for_each(|metric| exported.registry.register(metric).expect("registered once"));
        exported
    }

    fn serve(&self) -> fakes::Server {
        let registry = self.registry.clone();
        fakes::serve(move |_| {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
            async move { Answer::text(200, &text).with("content-type", "text/plain; version=0.0.4") }
        })
    }
}

/// Requests through all of them, one after the other; the last is slow from some moment on.
async fn requests(all: [Exported; 3], slow: Arc<AtomicBool>, end: CancellationToken) {
    let mut turns = tokio::time::interval(EVERY);
    for n in 0_u64.. {
        tokio::select! {
            () = end.cancelled() => return,
            _ = turns.tick() => {}
        }
        let jitter = (n * 7919 % 11) as f64 / 10_000.0;
        let mut seconds = if slow.load(Ordering::Relaxed) { 0.2 } else { 0.004 };
        let path = if n.is_multiple_of(3) { "/a" } else { "/b" };
        for (depth, exported) in all.iter().rev().enumerate() {
            seconds += 0.003 + jitter * (depth + 1) as f64;
            let code = if (n + depth as u64).is_multiple_of(50) { "404" } else { "200" };
            // A connection of a pool is had far more often than a request comes.
            (0..5).for_each(|_| exported.pool.observe(0.0001));
            exported.requests.with_label_values(&[code, path]).observe(seconds);
            exported.cpu.inc_by(0.001 + jitter / 10.0);
            if n.is_multiple_of(97) {
                exported.jobs.with_label_values(&["nightly"]).observe(3.0 + jitter * 1000.0);
                exported.failed.with_label_values(&["503"]).inc();
            }
        }
    }
}

/// One watch is about all that they export.
fn settings(prometheus: &str) -> String {
    let jobs = SERVICES.map(|(name, ..)| name).join("|");
    format!(
        "prometheus: {{url: \"{prometheus}\"}}\ncorrelate:\n  topology: {{front: [orders], orders: [ledger]}}\n\
         detect:\n  watches:\n    - name: all\n      name_label: __name__\n      service_label: job\n      every: 1s\n\
         \x20     query: '{{job=~\"{jobs}\", __name__!~\"scrape_.*|.*_bucket\"}}'\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_that_prometheus_scrapes_name_the_service_that_is_slow_by_itself() {
    let (end, slow) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let _end = end.clone().drop_guard();
    let all = SERVICES.map(Exported::new);
    let doors = all.each_ref().map(Exported::serve);
    tokio::spawn(requests(all, slow.clone(), end));
    let jobs: String = SERVICES
        .iter()
        .zip(&doors)
        .map(|((name, ..), door)| {
            let at = door.url.trim_start_matches("http://");
            format!("  - job_name: {name}\n    static_configs: [{{targets: [\"{at}\"]}}]\n")
        })
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}");
    let prometheus = Prometheus::start(&config, dir.path()).await;
    let service = Service::start_in(dir.path(), &settings(&prometheus.url)).await;

    tokio::time::sleep(QUIET).await;
    let onset: Timestamp = aiops::clock::now();
    slow.store(true, Ordering::Relaxed);
    tokio::time::sleep(FAULTY).await;
    fire(&service, "CustomersWait", "front", onset).await;
    let ranked: Vec<Value> = first_ranked(&service).await;
    let first = ranked.first().expect("a clear cause");
    assert_eq!(first["service"], "ledger", "{ranked:#?}");
    assert_eq!(first["data"]["reasons"], serde_json::json!(["impact"]), "{ranked:#?}");
}
