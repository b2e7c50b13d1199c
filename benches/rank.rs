//! Speed of a ranking: what a diagnosis waits for when much is kept in memory.

use std::hint::black_box;

use aiops::{
    diagnose::rank::rank,
    model::case::{Case, CaseLine, CaseSeries, CaseSpan, Gravity},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const MINUTE: i64 = 60_000_000;

/// Half an hour and five minutes of a call tree of twenty services, two spans and two lines for each, the last one failing in
/// the window.
fn case(traces: u64) -> Case {
    let mut case = Case { from: 30 * MINUTE, to: 35 * MINUTE, ..Case::default() };
    let services: Vec<_> = (0..20).map(|i| case.names.sym(&format!("svc-{i}"))).collect();
    let operations: Vec<_> = (0..20).map(|i| case.names.sym(&format!("POST /{i}"))).collect();
    let wait = case.names.sym("call");
    case.alert_service = services[0];
    case.topology = services.windows(2).map(|w| (w[0], w[1])).collect();
    case.templates = (0..60).map(|i| format!("statement {i} about <*>")).collect();
    for trace in 0..traces {
        let at = (trace * 35 * MINUTE as u64 / traces) as i64;
        for (depth, &service) in services.iter().enumerate() {
            let id = (trace * 40 + 2 * depth as u64) * 0x9e37_79b9 + 7;
            let (start, duration) = (at + depth as i64 * 500, 40_000 - depth as i64 * 1500);
            let parent = if depth == 0 { 0 } else { (trace * 40 + 2 * depth as u64 - 1) * 0x9e37_79b9 + 7 };
            let error = at >= case.from && depth == 19 && trace % 3 == 0;
            let span = CaseSpan {
                trace: trace + 1,
                id,
                parent,
                service,
                operation: operations[depth],
                start,
                duration,
                error,
                peer: None,
            };
            case.spans.push(span);
            if depth < 19 {
                let id = (trace * 40 + 2 * depth as u64 + 1) * 0x9e37_79b9 + 7;
                case.spans.push(CaseSpan {
                    id,
                    parent: span.id,
                    operation: wait,
                    start: start + 200,
                    duration: duration - 400,
                    ..span
                });
            }
            for i in 0..2 {
                let template = (3 * depth + if error { 2 } else { i }) as u32;
                let gravity = if error { Gravity::Error } else { Gravity::Ordinary };
                case.lines.push(CaseLine { at: start + 100, service, gravity, template, span: id, trace: 0 });
            }
        }
    }
    for &service in &services {
        for metric in ["cpu", "memory", "latency_avg", "requests"] {
            let points = (0..140).map(|i| (i * MINUTE / 4, 10.0 + (i * 7 % 11) as f64)).collect();
            case.series.push(CaseSeries { service, metric: metric.into(), points });
        }
    }
    case
}

fn ranking(c: &mut Criterion) {
    let mut group = c.benchmark_group("rank");
    group.sample_size(10);
    for traces in [100, 1000, 2500] {
        let case = case(traces);
        assert_eq!(rank(&case).ranked[0].service, "svc-19", "it finds the fault that it is measured with");
        group.throughput(Throughput::Elements(case.spans.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{} spans", case.spans.len())), |b| {
            b.iter(|| black_box(rank(&case)));
        });
    }
    group.finish();
}

/// What the detectors keep of 20,000 series of a hundred services: 64 samples, one each 15 s; one service uses ever more CPU.
fn metrics_alone() -> Case {
    let mut case = Case { from: 12 * MINUTE, to: 16 * MINUTE, ..Case::default() };
    for service in 0..100 {
        let name = case.names.sym(&format!("svc-{service}"));
        for n in 0..200 {
            let metric = format!("cpu_seconds{{pod=\"{n}\"}}");
            let more = |at: i64| if service == 7 && n < 3 && at >= case.from { 30.0 } else { 0.0 };
            let value = |i: i64| (i * MINUTE / 4, 10.0 + ((i * 7 + n) % 11) as f64 + more(i * MINUTE / 4));
            let points = (0..64).map(value).collect();
            case.series.push(CaseSeries { service: name, metric, points });
        }
    }
    case
}

fn many_series(c: &mut Criterion) {
    let mut group = c.benchmark_group("rank");
    group.sample_size(10);
    let case = metrics_alone();
    assert_eq!(rank(&case).ranked[0].service, "svc-7", "it finds the fault that it is measured with");
    group.throughput(Throughput::Elements(case.series.len() as u64));
    group.bench_function("20000 series", |b| b.iter(|| black_box(rank(&case))));
    group.finish();
}

criterion_group!(benches, ranking, many_series);
criterion_main!(benches);
