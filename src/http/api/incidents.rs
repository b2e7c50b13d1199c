//! Incidents: lists, and one with everything that belongs to it.

use actix_web::{HttpRequest, get, post, web};
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        State,
        auth::{As, Operator, Viewer},
        body,
        problem::{Problem, ProblemDocument, Result},
        query,
    },
    model::{Alert, Anomaly, Approval, Diagnosis, Evidence, Incident, Message, Run, TimelineEntry},
    steer,
    store::{
        Page, Tx, alerts, anomalies, approvals, diagnoses, evidence, incidents, messages, runs, timeline,
    },
};

/// Which incidents to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// `open`, `acknowledged` or `resolved`.
    state: Option<String>,
    /// `info`, `warning` or `critical`.
    severity: Option<String>,
    service: Option<String>,
    /// `true`: only those that are not resolved.
    #[serde(default)]
    open: bool,
}

/// An incident with everything that is known of it.
#[derive(Serialize, utoipa::ToSchema)]
struct Whole {
    #[serde(flatten)]
    incident: Incident,
    /// The newest 2,000 lines, oldest first.
    timeline: Vec<TimelineEntry>,
    alerts: Vec<Alert>,
    anomalies: Vec<Anomaly>,
    evidence: Vec<Evidence>,
    /// Oldest first; the last one is what people are shown.
    diagnoses: Vec<Diagnosis>,
    approvals: Vec<Approval>,
    runs: Vec<Run>,
    messages: Vec<Message>,
}

/// Incidents, the newest first.
#[utoipa::path(tag = "incidents", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Incident>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/incidents")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Incident>>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let wanted = incidents::Filter {
        state: query::word("state", filter.state.as_deref())?,
        severity: query::word("severity", filter.severity.as_deref())?,
        service: filter.service,
        open_only: filter.open,
    };
    page.answer(&state, async |tx, limit, cursor: Option<query::Id>| {
        Ok(incidents::list(tx, &wanted, limit, cursor.as_deref()).await?)
    })
    .await
}

/// One incident, by its id or by the ending of it that messages show.
#[utoipa::path(tag = "incidents", params(("id" = String, Path)), security(("token" = ["viewer"])),
    responses((status = 200, body = Whole), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/incidents/{id}")]
pub async fn show(
    state: web::Data<State>,
    _caller: As<Viewer>,
    id: web::Path<String>,
) -> Result<web::Json<Whole>> {
    let mut tx = state.deps.store.read().await?;
    let incident = find(&mut tx, &id).await?;
    let id = incident.id.as_str();
    Ok(web::Json(Whole {
        timeline: timeline::of(&mut tx, id).await?,
        alerts: alerts::of(&mut tx, id, 1000).await?,
        anomalies: anomalies::of(&mut tx, id).await?,
        evidence: evidence::of(&mut tx, id).await?,
        diagnoses: diagnoses::of(&mut tx, id).await?,
        approvals: approvals::of(&mut tx, id).await?,
        runs: runs::of(&mut tx, id).await?,
        messages: messages::of(&mut tx, id).await?,
        incident,
    }))
}

/// Why, for the others.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Because {
    /// A sentence; it is shown on the timeline.
    reason: Option<String>,
}

/// Says that somebody looks after an incident.
#[utoipa::path(tag = "incidents", params(("id" = String, Path)), request_body = Option<Because>, security(("token" = ["operator"])),
    responses((status = 200, body = Incident), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/incidents/{id}/ack")]
pub async fn ack(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Incident>> {
    let _: Because = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    let incident = steer::acknowledge(&mut tx, &id, &caller.0).await?;
    tx.commit().await?;
    Ok(web::Json(incident))
}

/// Says that an incident is over. It reopens if an alert of it fires again.
#[utoipa::path(tag = "incidents", params(("id" = String, Path)), request_body = Option<Because>, security(("token" = ["operator"])),
    responses((status = 200, body = Incident), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/incidents/{id}/resolve")]
pub async fn resolve(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Incident>> {
    let Because { reason } = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    let incident = steer::resolve(&mut tx, &id, &caller.0, &reason.unwrap_or_default()).await?;
    tx.commit().await?;
    Ok(web::Json(incident))
}

/// By id or unique ending; 404 otherwise.
pub async fn find(tx: &mut Tx, text: &str) -> Result<Incident> {
    let found = incidents::by_short_id(tx, text).await?;
    found.ok_or_else(|| Problem::not_found(format!("no incident, or more than one, has the id {text:?}")))
}
