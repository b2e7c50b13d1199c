//! Runs: plans under way and done, with their journals.

use actix_web::{HttpRequest, get, post, web};
use serde::Deserialize;

use crate::{
    http::{
        State,
        auth::{As, Operator, Viewer},
        body,
        problem::{Problem, ProblemDocument, Result},
        query,
    },
    model::Run,
    steer,
    store::{Page, Tx, runs},
};

/// Which runs to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// `running`, `needs_human`, `verifying`, `rolling_back`, `succeeded`, `failed`, `rolled_back` or `cancelled`.
    state: Option<String>,
}

/// Runs, the newest first.
#[utoipa::path(tag = "runs", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Run>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/runs")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Run>>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let wanted = query::word("state", filter.state.as_deref())?;
    page.answer(&state, async |tx, limit, cursor: Option<query::Id>| {
        Ok(runs::list(tx, wanted, limit, cursor.as_deref()).await?)
    })
    .await
}

/// One run with its journal.
#[utoipa::path(tag = "runs", params(("id" = String, Path)), security(("token" = ["viewer"])),
    responses((status = 200, body = Run), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/runs/{id}")]
pub async fn show(
    state: web::Data<State>,
    _caller: As<Viewer>,
    id: web::Path<String>,
) -> Result<web::Json<Run>> {
    let mut tx = state.deps.store.read().await?;
    Ok(web::Json(find(&mut tx, &id).await?))
}

/// What to do with a run that waits for a human.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Settle {
    answer: steer::Answer,
}

/// Answers a run that waits for a human: a step's outcome is unknown, or the kill switch stopped it.
#[utoipa::path(tag = "runs", params(("id" = String, Path)), request_body = Settle, security(("token" = ["operator"])),
    responses((status = 200, body = Run), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/runs/{id}/settle")]
pub async fn settle(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Run>> {
    let Settle { answer } = body::required(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    steer::settle_step(&mut tx, &id, answer, &caller.0).await?;
    let run = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(web::Json(run))
}

/// Why, for the others.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Cancel {
    /// A sentence; it is shown on the timeline.
    reason: Option<String>,
}

/// Stops a run before its next step, and cuts off a step under way within a second. It is `cancelled` then, or `needs_human` if
/// nobody knows whether that step was done; 409 if it is over already. Nothing is undone.
#[utoipa::path(tag = "runs", params(("id" = String, Path)), request_body = Option<Cancel>, security(("token" = ["operator"])),
    responses((status = 200, body = Run), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/runs/{id}/cancel")]
pub async fn cancel(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Run>> {
    let Cancel { reason } = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    steer::cancel_run(&mut tx, &id, &caller.0, &reason.unwrap_or_default()).await?;
    let run = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(web::Json(run))
}

async fn find(tx: &mut Tx, id: &str) -> Result<Run> {
    runs::get(tx, id).await?.ok_or_else(|| Problem::not_found(format!("there is no run {id:?}")))
}
