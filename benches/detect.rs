//! Speed of the telemetry road on one core: parsing, template mining, metric judging, and all of it together.

use std::hint::black_box;

use aiops::{
    bus::Record,
    config::Detect,
    detect::{Allowed, Metric, Partition, templates::Miner},
    intake::{logs, metrics, telemetry::Limits},
    model::Sample,
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
        let (mut metric, allowed) = (Metric::default(), Allowed::new(&Detect::default(), 1));
        let mut at = 0;
        b.iter(|| {
            for value in &values {
                at += 1_000_000;
                black_box(metric.push(at, *value, &allowed));
            }
        });
    });
    group.finish();
}

/// As many series as the default settings allow, each with a sample every 15 seconds: most of it is memory that is far away.
fn many_series(c: &mut Criterion) {
    const SERIES: usize = 100_000;
    let settings = Detect { max_series: 1000, ..Detect::default() };
    let mut samples: Vec<Record> = (0..SERIES)
        .map(|i| {
            Record::Sample(Sample {
                at: now(),
                name: "http_request_duration_seconds".into(),
                service: format!("service-{}", i % 100),
                labels: [
                    ("path".into(), format!("/items/{i}")),
                    ("instance".into(), "10.0.0.17:8080".into()),
                ]
                .into(),
                value: 0.0,
            })
        })
        .collect();
    let before = resident();
    let mut partition = Partition::new(&settings, 1);
    let mut round = 0_u64;
    let mut judge_all = |partition: &mut Partition| {
        round += 1;
        let mut events = Vec::new();
        for (i, record) in samples.iter_mut().enumerate() {
            let Record::Sample(sample) = record else { continue };
            sample.at += std::time::Duration::from_secs(15);
            sample.value = ((round * 7919 + i as u64) % 101) as f64;
            partition.record(record, sample_time(record), &mut events);
        }
        black_box(events.len());
    };
    // All have left their first hundred values, and what those need beside.
    (0..110).for_each(|_| judge_all(&mut partition));
    assert_eq!(partition.sizes(now())[2], SERIES as i64);
    let bytes = resident().saturating_sub(before) / SERIES as u64;
    eprintln!("metrics: {bytes} bytes of memory for each of {SERIES} series, name and labels included");

    let mut group = c.benchmark_group("metrics");
    group.throughput(Throughput::Elements(SERIES as u64));
    group.sample_size(20);
    group.bench_function("detect, 100,000 series", |b| b.iter(|| judge_all(&mut partition)));
    let saved = partition.save().expect("packed");
    eprintln!("metrics: {} bytes of saved state for each of {SERIES} series", saved.len() / SERIES);
    group.bench_function("save 100,000 series", |b| b.iter(|| partition.save().expect("packed").len()));
    group.bench_function("restore 100,000 series", |b| {
        b.iter(|| Partition::restore(&saved, &settings, 1).expect("unpacked").sizes(now()))
    });
    group.finish();
}

fn sample_time(record: &Record) -> Timestamp {
    match record {
        Record::Sample(sample) => sample.at,
        _ => now(),
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number");
    pages * 4096
}

criterion_group!(benches, log_road, metric_road, many_series);
criterion_main!(benches);
