//! Speed of reading alerts on one core: what Prometheus posts, and what Alertmanager does.

use std::{hint::black_box, time::Duration};

use aiops::intake::{alertmanager, prometheus};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().expect("a valid time")
}

fn alert(i: usize) -> Value {
    let pod = format!("svc-{:05}-7d9f8c-{i:010}", i % 50);
    json!({
        "labels": {"alertname": "HighErrorRate", "service": format!("svc-{:05}", i % 50), "severity": "warning",
            "namespace": "prod", "pod": pod, "instance": "10.1.7.12:9100", "job": "node"},
        "annotations": {"summary": "it answers with errors", "description": "more than 5% of requests failed for 5m"},
        "startsAt": "2026-11-21T09:59:00.123Z", "endsAt": "2026-11-21T10:04:00.123Z",
        "generatorURL": "http://prom:9090/graph?g0.expr=err",
    })
}

fn parse(c: &mut Criterion) {
    for count in [1, 1000] {
        let alerts: Vec<Value> = (0..count).map(alert).collect();
        let posted = Value::from(alerts.clone()).to_string();
        let alerts: Vec<Value> = alerts.into_iter().map(firing).collect();
        let webhook = json!({"version": "4", "receiver": "aiops", "status": "firing", "alerts": alerts,
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
            "groupKey": "{}:{}", "truncatedAlerts": 0});
        let webhook = webhook.to_string();
        let mut group = c.benchmark_group(format!("{count} alerts"));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function("prometheus", |b| {
            b.iter(|| {
                black_box(prometheus::parse(&posted, now(), Duration::from_secs(300)).expect("alerts"))
            });
        });
        group.bench_function("alertmanager", |b| {
            b.iter(|| black_box(alertmanager::parse(&webhook, now()).expect("a webhook")));
        });
        group.finish();
    }
}

fn firing(mut alert: Value) -> Value {
    alert["status"] = "firing".into();
    alert["fingerprint"] = "c5ddf555cbb2b91e".into();
    alert
}

criterion_group!(benches, parse);
criterion_main!(benches);
