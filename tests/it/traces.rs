//! Spans on their way in, and what they are good for: the call graph, and the suspect of a diagnosis.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde_json::{Value, json};

use crate::{peers, server::Running, service::Service};

const SOON: Duration = Duration::from_secs(60);

async fn send(service: &Service, spans: Vec<(&str, Value)>) -> Value {
    let of = |(name, span): (&str, Value)| {
        let attributes = json!([{"key": "service.name", "value": {"stringValue": name}}]);
        json!({"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span]}]})
    };
    let body = json!({"resourceSpans": spans.into_iter().map(of).collect::<Vec<_>>()});
    service.post("/v1/traces", &body).await
}

fn span(trace: u64, id: u64, parent: u64, name: &str, start: Timestamp, ms: i64) -> Value {
    let nanos = |at: Timestamp| at.as_nanosecond().to_string();
    json!({
        "traceId": format!("{trace:032x}"),
        "spanId": format!("{id:016x}"),
        "parentSpanId": if parent == 0 { String::new() } else { format!("{parent:016x}") },
        "name": name,
        "kind": 2,
        "startTimeUnixNano": nanos(start),
        "endTimeUnixNano": nanos(start + SignedDuration::from_millis(ms)),
    })
}

/// A request through three services; the bank takes so long.
fn request(n: u64, at: Timestamp, bank: i64) -> Vec<(&'static str, Value)> {
    let later = |ms| at + SignedDuration::from_millis(ms);
    let jitter = (n % 5) as i64;
    vec![
        ("front", span(n, 3 * n, 0, "POST /buy", at, bank + 30 + jitter)),
        ("orders", span(n, 3 * n + 1, 3 * n, "POST /orders", later(10), bank + 15)),
        ("bank", span(n, 3 * n + 2, 3 * n + 1, "POST /transfer", later(15), bank + jitter)),
    ]
}

async fn metric(service: &Service, name: &str) -> f64 {
    let answer = peers::http().get(format!("{}/metrics", service.url)).send().await.expect("answers");
    let text = answer.text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

pub async fn until_metric(service: &Service, name: &str, at_least: f64) {
    for _ in 0..600 {
        if metric(service, name).await >= at_least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} is {} and not {at_least}", metric(service, name).await);
}

pub async fn fire(service: &Service, name: &str, of: &str, since: Timestamp) {
    let labels = json!({"alertname": name, "service": of, "severity": "critical"});
    service.post("/api/v2/alerts", &json!([{"labels": labels, "startsAt": since.to_string()}])).await;
}

#[tokio::test]
async fn spans_teach_who_calls_whom_and_name_the_suspect_of_an_incident() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = Service::start_in(dir.path(), "").await;
    let now = aiops::clock::now();
    let onset = now - SignedDuration::from_mins(4);
    let mut n = 0;
    for minute in 0..24 {
        let mut spans = Vec::new();
        for second in (0..60).step_by(6) {
            n += 1;
            let at = onset + SignedDuration::from_secs((minute - 20) * 60 + second);
            spans.extend(request(n, at, if minute < 20 { 5 } else { 80 }));
        }
        assert_eq!(send(&service, spans).await, json!({}));
    }
    until_metric(&service, "aiops_detect_traces_kept_items", 24.0 * 30.0).await;
    until_metric(&service, "aiops_detect_calls_kept", 2.0).await;

    fire(&service, "SlowBuying", "front", onset).await;
    let list = "/api/v1/incidents";
    let id = service
        .until(SOON, list, "an incident", |list| list["items"][0]["id"].as_str().map(str::to_owned))
        .await;
    let path = format!("/api/v1/incidents/{id}");
    let claims = service
        .until(SOON, &path, "a diagnosis", |incident| {
            let text = incident["diagnoses"].to_string();
            text.contains("It began in").then_some(text)
        })
        .await;
    assert!(claims.contains("It began in bank: "), "{claims}");
    assert!(claims.contains("slow in 40 of 40 requests, usually in 0 of 200"), "{claims}");

    // No topology is set: only the spans say that orders is called by front.
    fire(&service, "SlowOrders", "orders", onset).await;
    service
        .until(SOON, &path, "the second alert in the same incident", |incident| {
            (incident["alert_count"] == 2).then_some(())
        })
        .await;
}

#[tokio::test]
async fn who_calls_whom_is_known_again_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = "detect: {save_every: 200ms}\n";
    let mut service = Service::start_in(dir.path(), settings).await;
    let before = aiops::clock::now() - SignedDuration::from_mins(20);
    for n in 1..=30 {
        assert_eq!(send(&service, request(n, before, 5)).await, json!({}));
    }
    until_metric(&service, "aiops_detect_calls_saved_total", 2.0).await;
    service.child.kill();
    let service = Service::start_in(dir.path(), settings).await;
    until_metric(&service, "aiops_detect_calls_kept", 2.0).await;
    let now = aiops::clock::now();
    fire(&service, "SlowBuying", "front", now).await;
    fire(&service, "SlowOrders", "orders", now).await;
    let list = "/api/v1/incidents";
    service
        .until(SOON, list, "one incident of both", |list| {
            let all = list["items"].as_array()?;
            (all.len() == 1 && all[0]["alert_count"] == 2).then_some(())
        })
        .await;
}

/// Carries requests of the exporter, which has no reactor on its thread, to ours.
#[derive(Debug)]
struct OnRuntime(reqwest::Client, tokio::runtime::Handle);

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for OnRuntime {
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<bytes::Bytes>,
    ) -> Result<opentelemetry_http::Response<bytes::Bytes>, opentelemetry_http::HttpError> {
        let http = self.0.clone();
        let send = async move {
            let answer = http.execute(request.try_into()?).await?;
            let response = opentelemetry_http::Response::builder().status(answer.status());
            Ok(response.body(answer.bytes().await?)?)
        };
        self.1.spawn(send).await?
    }
}

fn sdk(url: &str) -> SdkTracerProvider {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime(peers::http(), tokio::runtime::Handle::current()))
        .with_endpoint(format!("{url}/v1/traces"))
        .build()
        .expect("an exporter");
    let resource = Resource::builder().with_service_name("shop").build();
    SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_opentelemetry_sdk_exports_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = Service::start_in(dir.path(), "").await;
    let provider = sdk(&service.url);
    let tracer = provider.tracer("test");
    for _ in 0..5 {
        tracer.build(SpanBuilder::from_name("GET /orders/17")).end();
    }
    let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await.expect("no panic");
    ended.expect("everything was exported");
    until_metric(&service, "aiops_detect_traces_kept_items", 5.0).await;
    assert_eq!(metric(&service, "aiops_intake_items_total{kind=\"traces\"}").await, 5.0);
}

#[tokio::test]
async fn a_body_that_is_no_otlp_is_refused_and_says_why() {
    let running = Running::start().await;
    let post = async |kind: &str, body: &str| {
        running.send("POST", "/v1/traces", &[("content-type", kind)], body.as_bytes()).await
    };
    let stranger = [("content-type", "text/plain"), ("authorization", "Bearer no-such-token-no-such-token")];
    let answer = running.send("POST", "/v1/traces", &stranger, b"{}").await;
    answer.is_problem(401, "Authorization: Bearer");
    post("text/plain", "{}").await.is_problem(415, "expected application/x-protobuf or application/json");
    post("application/json", "[").await.is_problem(400, "this is no ExportTraceServiceRequest");
    post("application/x-protobuf", "junk").await.is_problem(400, "this is no ExportTraceServiceRequest");
    assert_eq!(post("application/json", "{}").await.status, 200);
}
