//! The routes by which alerts, changes, logs and metrics come in. 2xx only after what was sent is durable (telemetry: on
//! the bus); 503, never 429, when it cannot be taken.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, post, web};
use serde::Serialize;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    State, auth,
    body::{self, Body},
    problem::{Problem, ProblemDocument, Result},
};
use crate::{
    clock,
    intake::{
        alert, alertmanager, changes,
        commit::Road,
        generic, logs, metrics as samples, prometheus,
        telemetry::{self, BadBody, Counts, Kind, Limits, Parsed},
        traces,
    },
    metrics,
    model::{AlertEvent, LogRecord, Sample, Severity, TraceSpan},
    search::Picked,
};

pub fn routes(config: &mut ServiceConfig) {
    config
        .service(alertmanager_webhook)
        .service(prometheus_alerts)
        .service(generic_webhook)
        .service(post_changes)
        .service(post_logs)
        .service(post_metrics)
        .service(post_traces);
}

/// How much of a delivery is durable now.
#[derive(Serialize, utoipa::ToSchema)]
struct Accepted {
    accepted: usize,
}

/// Alertmanager's webhook, version 4.
///
/// Each alert counts by itself; repeats and HA peers are harmless. 503 means that nothing was taken: send it again.
#[utoipa::path(tag = "intake", request_body(content_type = "application/json"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, body = Accepted), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/webhooks/alertmanager")]
async fn alertmanager_webhook(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    auth::admit(&state, &request, alertmanager::SOURCE).await?;
    let body = read_alerts(&state, &request, payload, Road::Alertmanager).await?;
    let text = glance(&state, Road::Alertmanager, &body)?;
    let events = refused(Road::Alertmanager, alertmanager::parse(text, clock::now()))?;
    commit(&state, Road::Alertmanager, events).await
}

/// What Prometheus sends to an Alertmanager: this takes the place of one.
#[utoipa::path(tag = "intake", request_body(content_type = "application/json"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, body = Accepted), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v2/alerts")]
async fn prometheus_alerts(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    auth::admit(&state, &request, prometheus::SOURCE).await?;
    let body = read_alerts(&state, &request, payload, Road::Prometheus).await?;
    let text = glance(&state, Road::Prometheus, &body)?;
    let timeout = state.settings.intake.resolve_timeout;
    let events = refused(Road::Prometheus, prometheus::parse(text, clock::now(), timeout))?;
    commit(&state, Road::Prometheus, events).await
}

/// A webhook of one's own, read by `intake.sources.{source}.mapping` of the settings.
#[utoipa::path(tag = "intake", request_body(content_type = "application/json"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    params(("source" = String, Path, description = "The source's name in the settings")),
    responses((status = 200, body = Accepted), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/webhooks/{source}")]
async fn generic_webhook(
    state: web::Data<State>,
    request: HttpRequest,
    source: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse> {
    auth::admit(&state, &request, &source).await?;
    let doors = state.doors.get();
    let mapping = doors.mapping(&source).ok_or_else(|| {
        Problem::not_found(format!(
            "there is no source {:?}; add it to intake.sources with a mapping",
            *source
        ))
        .closing()
    })?;
    let body = read_alerts(&state, &request, payload, Road::Generic).await?;
    let events = refused(Road::Generic, generic::parse(body.text()?, &source, mapping, clock::now()))?;
    commit(&state, Road::Generic, events).await
}

/// Deploys and configuration changes: one object or an array of them.
#[utoipa::path(tag = "intake", request_body(content = changes::NewChange), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, body = Accepted), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/changes")]
async fn post_changes(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    auth::admit(&state, &request, "changes").await?;
    let body = read_json(&state, &request, payload).await?;
    let changes = refused(Road::Changes, changes::parse(body.text()?, clock::now()))?;
    let accepted = changes.len();
    state.deps.committer.changes(changes).await?;
    Ok(HttpResponse::Ok().json(Accepted { accepted }))
}

/// Log records: a JSON array of objects, or one object per line; ECS names and plain ones.
#[utoipa::path(tag = "intake", request_body(content_type = "application/json"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, body = Counts), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/logs")]
async fn post_logs(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let of: OfService<LogRecord> = |record| &record.service;
    let pick = |records: &[LogRecord]| state.deps.logs.pick(records);
    telemetry(&state, &request, payload, Kind::Logs, logs::parse, of, pick).await
}

/// Metric samples: a JSON array of objects, or one object per line.
#[utoipa::path(tag = "intake", request_body(content_type = "application/json"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, body = Counts), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/metrics")]
async fn post_metrics(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let of: OfService<Sample> = |sample| &sample.service;
    telemetry(&state, &request, payload, Kind::Metrics, samples::parse, of, |_| Picked::default()).await
}

/// Spans by OTLP over HTTP, in protobuf or JSON, as OpenTelemetry's exporters and collectors send them.
///
/// The answer is an `ExportTraceServiceResponse` in the form of the question; `partialSuccess` says what was refused. 503
/// means that nothing was taken: send it again.
#[utoipa::path(tag = "intake", request_body(content_type = "application/x-protobuf"), security(("source" = []), ("source_basic" = []), ("token" = ["intake"])),
    responses((status = 200, content_type = "application/x-protobuf"), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/v1/traces")]
async fn post_traces(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    auth::admit(&state, &request, Kind::Traces.as_str()).await?;
    let Some(protobuf) = traces::is_protobuf(content_type(&request)) else {
        let detail = "expected application/x-protobuf or application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).closing());
    };
    let pick = |_: &[TraceSpan]| Picked::default();
    let counts = take(&state, &request, payload, Kind::Traces, traces::parse, None, pick).await?;
    // OTLP wants 200 where the body could be read, also if every span was refused.
    if counts.dropped > 0 {
        return Err(full(&counts));
    }
    let kind = if protobuf { "application/x-protobuf" } else { "application/json" };
    Ok(HttpResponse::Ok().content_type(kind).body(traces::answer(&counts, protobuf)))
}

/// Reads a body with alerts, unless none would be taken whatever is in it.
async fn read_alerts(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    road: Road,
) -> Result<Body> {
    admitted(state, road, || true, || 0).map_err(Problem::closing)?;
    read_json(state, request, payload).await
}

/// The text of a body with alerts, unless it can be seen without parsing that it would not be taken.
fn glance<'a>(state: &State, road: Road, body: &'a Body) -> Result<&'a str> {
    let text = body.text()?;
    admitted(state, road, || alert::may_be_critical(text), || alert::count_unread(text))?;
    Ok(text)
}

/// Counts what overload refuses.
fn admitted(
    state: &State,
    road: Road,
    is_critical: impl FnOnce() -> bool,
    items: impl FnOnce() -> usize,
) -> Result<()> {
    state.deps.admission.alerts(is_critical).map_err(|overloaded| {
        metrics::INTAKE_SHED.with_label_values(&[road.as_str()]).inc_by(items() as u64);
        metrics::OVERLOAD_REFUSED.with_label_values(&[road.as_str()]).inc();
        overloaded.into()
    })
}

async fn read_json(state: &State, request: &HttpRequest, payload: web::Payload) -> Result<Body> {
    body::json(request)?;
    state.bodies.read_packed(request, payload, state.settings.http.max_intake_body).await
}

/// Counts a body that cannot be read.
fn refused<T, E>(road: Road, parsed: Result<T, E>) -> Result<T, E> {
    if parsed.is_err() {
        metrics::INTAKE_REJECTED.with_label_values(&[road.as_str()]).inc();
    }
    parsed
}

async fn commit(state: &State, road: Road, events: Vec<AlertEvent>) -> Result<HttpResponse> {
    let accepted = events.len();
    if accepted > 0 {
        let is_critical = |event: &AlertEvent| Severity::of(&event.labels) == Severity::Critical;
        admitted(state, road, || events.iter().any(is_critical), || accepted)?;
    }
    state.deps.committer.alerts(road, events).await?;
    Ok(HttpResponse::Ok().json(Accepted { accepted }))
}

/// Reads a body with its content type within limits.
type Parse<T> = fn(&[u8], &str, &Limits) -> Result<Parsed<T>, BadBody>;

/// The service that a record is about.
type OfService<T> = fn(&T) -> &str;

/// Records are refused one by one; only when none is usable, or the bus is full, is the answer an error. `pick` chooses what is
/// kept for search of those that the bus takes.
async fn telemetry<T: Into<crate::bus::Record>>(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    kind: Kind,
    parse: Parse<T>,
    service: OfService<T>,
    pick: impl FnOnce(&[T]) -> Picked,
) -> Result<HttpResponse> {
    auth::admit(state, request, kind.as_str()).await?;
    let counts = take(state, request, payload, kind, parse, Some(service), pick).await?;
    match counts.status() {
        200 => Ok(HttpResponse::Ok().json(counts)),
        _ => Err(full(&counts)),
    }
}

/// What is answered where nothing was taken.
fn full(counts: &Counts) -> Problem {
    let detail = match counts.status() {
        503 => "the queue to the detectors is full; nothing was taken, send it again",
        _ => "no record could be used; errors says why",
    };
    let status = StatusCode::from_u16(counts.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let members = serde_json::to_value(counts).expect("counts serialise");
    Problem::new(status, detail).with_members(members)
}

fn content_type(request: &HttpRequest) -> &str {
    request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// Puts a body of telemetry from somebody who was admitted on the bus. Without `service`, overload leaves nothing out of it: half a trace misleads.
async fn take<T: Into<crate::bus::Record>>(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    kind: Kind,
    parse: Parse<T>,
    service: Option<OfService<T>>,
    pick: impl FnOnce(&[T]) -> Picked,
) -> Result<Counts> {
    state.deps.admission.telemetry().map_err(|overloaded| {
        metrics::OVERLOAD_REFUSED.with_label_values(&[kind.as_str()]).inc();
        Problem::from(overloaded).closing()
    })?;
    let body = state
        .bodies
        .leaving_room()
        .read_packed(request, payload, state.settings.http.max_intake_body)
        .await?;
    let limits = Limits::new(&state.settings.detect, clock::now());
    let mut parsed = parse(body.bytes(), content_type(request), &limits).map_err(|e| {
        metrics::INTAKE_REJECTED.with_label_values(&[kind.as_str()]).inc();
        Problem::bad_request(e.to_string())
    })?;
    let deps = telemetry::Deps { bus: state.deps.bus.clone() };
    let sampled_out = service.map_or(0, |of| state.deps.admission.sample(&mut parsed.records, of));
    metrics::INTAKE_SAMPLED_OUT.with_label_values(&[kind.as_str()]).inc_by(sampled_out as u64);
    let picked = pick(&parsed.records);
    let counts = Counts { sampled_out, ..telemetry::accept(&deps, kind, parsed).await };
    // What was refused comes again.
    if counts.dropped == 0 {
        picked.keep();
    }
    Ok(counts)
}
