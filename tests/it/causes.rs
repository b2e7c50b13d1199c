//! Faults in the services of a small shop that really runs: what its logs, metrics and spans tell a real `aiops serve`, and
//! whom the diagnosis of the alert names.

mod scraped;
mod shop;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shop::{Fault, Told};

use crate::{
    service::Service,
    traces::{fire, until_metric},
};

const SOON: Duration = Duration::from_secs(60);
/// Spans in one request of an exporter.
const AT_ONCE: usize = 400;

/// How telemetry reaches the service: by the public roads, a source after the other.
async fn send(service: &Service, told: &Told) {
    for samples in told.metrics.chunks(AT_ONCE) {
        let body: Vec<&Value> = samples.iter().map(|s| &s.1).collect();
        service.post("/api/v1/metrics", &json!(body)).await;
    }
    for lines in told.logs.chunks(AT_ONCE) {
        let body: Vec<&Value> = lines.iter().map(|l| &l.1).collect();
        service.post("/api/v1/logs", &json!(body)).await;
    }
    for spans in told.spans.chunks(AT_ONCE) {
        let of = |(_, name, span): &(i64, &str, Value)| {
            let attributes = json!([{"key": "service.name", "value": {"stringValue": name}}]);
            json!({"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span]}]})
        };
        let body = json!({"resourceSpans": spans.iter().map(of).collect::<Vec<_>>()});
        assert_eq!(service.post("/v1/traces", &body).await, json!({}));
    }
    until_metric(service, "aiops_detect_traces_kept_items", (told.spans.len() + told.logs.len()) as f64)
        .await;
}

/// The facts of the ranking that the alert's diagnosis cites, the first suspect first; none where it is not clear.
async fn suspects(fault: Fault, buys: [i64; 2]) -> Vec<Value> {
    suspects_after(fault, buys, false).await
}

/// The same, where the service is stopped and started between the telemetry and the alert.
async fn suspects_after(fault: Fault, buys: [i64; 2], restart: bool) -> Vec<Value> {
    let onset: Timestamp = aiops::clock::now() - SignedDuration::from_mins(4);
    let told = {
        let _alone = shop::one_at_a_time().lock().await;
        tokio::task::spawn_blocking(move || shop::run(fault, onset, buys)).await.expect("the shop runs")
    };
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = Service::start_in(dir.path(), "").await;
    send(&service, &told).await;
    if restart {
        service.child.restart().await;
        let kept = (told.spans.len() + told.logs.len()) as f64;
        until_metric(&service, "aiops_detect_traces_kept_items", kept).await;
    }
    fire(&service, "CustomersWait", "front", onset).await;
    first_ranked(&service).await
}

/// Of the incident that an alert opened.
async fn first_ranked(service: &Service) -> Vec<Value> {
    let list = "/api/v1/incidents";
    let id = service
        .until(SOON, list, "the alert's incident", |list| {
            let all = list["items"].as_array().into_iter().flatten();
            let ours = |i: &&Value| i["alert_count"].as_i64() > Some(0);
            all.filter(ours).find_map(|i| i["id"].as_str().map(str::to_owned))
        })
        .await;
    let path = format!("/api/v1/incidents/{id}");
    // The ranking is asked in the same diagnosis as the alert itself.
    let evidence = service
        .until(SOON, &path, "a diagnosis of the alert", |incident| {
            let all = incident["evidence"].as_array()?.clone();
            let diagnosed = incident["diagnoses"].as_array().is_some_and(|d| !d.is_empty());
            (diagnosed && all.iter().any(|e| e["kind"] == "alert")).then_some(all)
        })
        .await;
    let mut ranked: Vec<Value> = evidence.into_iter().filter(|e| e["kind"] == "ranking").collect();
    ranked.sort_by_key(|e| e["data"]["place"].as_i64());
    ranked
}

/// The service is named first, for this kind of reason, and the reason says this.
async fn names(fault: Fault, culprit: &str, kinds: &[&str], says: &str) {
    let ranked = suspects(fault, [6, 6]).await;
    let first = ranked.first().unwrap_or_else(|| panic!("{fault:?}: no clear cause"));
    assert_eq!(first["service"], culprit, "{fault:?}: {ranked:#?}");
    for kind in kinds {
        let reasons = first["data"]["reasons"].as_array().expect("reasons");
        assert!(reasons.iter().any(|r| r == kind), "{fault:?}: no {kind} in {first:#}");
    }
    let said = first["summary"].as_str().expect("a sentence");
    assert!(said.contains(says), "{fault:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_found_where_it_was_thrown_and_not_where_it_was_passed_on() {
    names(Fault::Exception("bank"), "bank", &["behaviour"], "cannot read the book").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_an_incident_forgets_no_request_and_no_line() {
    let ranked = suspects_after(Fault::Exception("bank"), [6, 6], true).await;
    let first = ranked.first().expect("a clear cause");
    assert_eq!(first["service"], "bank", "{ranked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_and_one_that_computes_are_slow_by_themselves() {
    names(Fault::Delay("payments"), "payments", &["slow"], "slow").await;
    names(Fault::Cpu("stock"), "stock", &["slow", "metric"], "cpu_seconds").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_grows_is_found_though_nobody_feels_it_yet() {
    names(Fault::Memory("orders"), "orders", &["metric"], "memory_bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_found_at_the_service_behind_it() {
    names(Fault::Network("payments"), "payments", &["edge"], "payments").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_that_are_lost_are_missed() {
    names(Fault::LostLogs("stock"), "stock", &["behaviour"], "missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_before_the_only_connection_is_the_fault_of_whose_it_is() {
    names(Fault::Pool("orders"), "orders", &["slow"], "slow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_sends_no_spans_is_found_by_what_its_callers_tell() {
    names(Fault::Delay("ledger"), "ledger", &["edge"], "ledger").await;
    names(Fault::Exception("ledger"), "ledger", &["behaviour"], "error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_minutes_and_other_customers_have_no_clear_cause() {
    assert_eq!(suspects(Fault::None, [6, 6]).await, Vec::<Value>::new());
    assert_eq!(suspects(Fault::None, [3, 8]).await, Vec::<Value>::new());
}
