//! Speed of the telemetry road on one core: parsing, template mining, metric judging, and all of it together.

use std::hint::black_box;

use aiops::{
    bus::Record,
    config::Detect,
    detect::{Metric, Partition, templates::Miner},
    intake::{logs, metrics, telemetry::Limits},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;

const LINES: usize = 10_000;

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().expect("a valid time")
}

/// Lines of some forty statements with numbers, names and addresses in them.
fn messages() -> Vec<String> {
    let verbs = ["accepted", "rejected", "queued", "shipped", "cancelled", "refunded", "packed", "returned"];
    let names = ["ann", "bob", "carol", "dave", "erin"];
    let line = |i: usize| {
        let (verb, name) = (verbs[i / 5 % verbs.len()], names[i / 7 % names.len()]);
        match i % 5 {
            0 => format!("order {i} {verb} for customer {name} in {}ms", i % 97),
            1 => format!("GET /api/v1/items/{i}?page={} HTTP/1.1 200 {verb}", i % 13),
            2 => format!("connection from 10.0.{}.{}:{} {verb}", i % 250, i % 199, 1024 + i % 5000),
            3 => format!("cache {verb}: key=\"session:{i:x}\" ttl={}s", i % 600),
            _ => format!("worker {} {verb} job 550e8400-e29b-41d4-a716-{:012x}", i % 16, i),
        }
    };
    (0..LINES).map(line).collect()
}

/// The same lines as a shipper sends them, a second of event time for every thousand.
fn body() -> String {
    let line = |(i, message): (usize, &String)| {
        let at = 1_795_255_200_000 - LINES + i;
        serde_json::json!({"@timestamp": at, "service": {"name": "shop"}, "host": {"name": "n1"},
            "log": {"level": "info"}, "message": message})
        .to_string()
    };
    messages().iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn log_road(c: &mut Criterion) {
    let (body, messages) = (body(), messages());
    let limits = Limits::new(&Detect::default(), now());
    let parse = || logs::parse(body.as_bytes(), "application/x-ndjson", &limits).expect("lines").records;
    let records: Vec<Record> = parse().into_iter().map(Record::Log).collect();

    let mut group = c.benchmark_group("logs");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("parse", |b| b.iter(|| black_box(parse())));
    group.bench_function("mine", |b| {
        let mut miner = Miner::new(500);
        b.iter(|| messages.iter().map(|m| miner.add(m.as_bytes()).template).fold(0, u64::wrapping_add));
    });
    group.bench_function("detect", |b| {
        let fresh = || Partition::new(&Detect::default(), 1);
        b.iter_batched(fresh, |partition| judge(partition, &records), BatchSize::LargeInput);
    });
    group.bench_function("parse, mine and detect", |b| {
        let fresh = || Partition::new(&Detect::default(), 1);
        b.iter_batched(
            fresh,
            |partition| {
                let records: Vec<Record> = parse().into_iter().map(Record::Log).collect();
                judge(partition, &records)
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn judge(mut partition: Partition, records: &[Record]) -> Partition {
    let mut events = Vec::new();
    records.iter().for_each(|record| partition.record(record, now(), &mut events));
    black_box(events);
    partition
}

fn metric_road(c: &mut Criterion) {
    let values: Vec<f64> =
        (0..LINES).map(|i| (i as f64 * 0.37).sin() + (i * 7919 % 101) as f64 / 50.0).collect();
    let body = serde_json::json!(
        values
            .iter()
            .map(|v| serde_json::json!({"name": "latency", "service": "shop", "value": v}))
            .collect::<Vec<_>>()
    )
    .to_string();
    let limits = Limits::new(&Detect::default(), now());

    let mut group = c.benchmark_group("metrics");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("parse", |b| {
        b.iter(|| black_box(metrics::parse(body.as_bytes(), "application/json", &limits)));
    });
    group.bench_function("judge", |b| {
        let mut metric = Metric::default();
        let mut at = 0;
        b.iter(|| {
            for value in &values {
                at += 1_000_000;
                black_box(metric.push(at, *value, 3_600_000_000, 1.0));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, log_road, metric_road);
criterion_main!(benches);
