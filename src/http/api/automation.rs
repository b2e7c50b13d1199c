//! The kill switch: stops everything that acts by itself, and lets it go on.

use actix_web::{HttpRequest, post, web};
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        State,
        auth::{As, Operator},
        body,
        problem::{ProblemDocument, Result},
    },
    steer,
    store::flags,
};

/// Why it is stopped, or started.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Switch {
    reason: Option<String>,
}

/// Whether automation acts.
#[derive(Serialize, utoipa::ToSchema)]
struct Automation {
    /// Who stopped it, when and why; null while it acts.
    stopped: Option<serde_json::Value>,
}

/// Stops automation: no step of any playbook starts any more, wherever it was allowed.
#[utoipa::path(tag = "automation", request_body = Option<Switch>, security(("token" = ["operator"])),
    responses((status = 200, body = Automation), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/automation/stop")]
pub async fn stop(
    state: web::Data<State>,
    caller: As<Operator>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Automation>> {
    let Switch { reason } = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    steer::stop_automation(&mut tx, &caller.0, &reason.unwrap_or_default()).await?;
    let stopped = flags::get(&mut tx, flags::STOPPED).await?;
    tx.commit().await?;
    Ok(web::Json(Automation { stopped }))
}

/// Lets automation act again.
#[utoipa::path(tag = "automation", request_body = Option<Switch>, security(("token" = ["operator"])),
    responses((status = 200, body = Automation), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/automation/start")]
pub async fn start(
    state: web::Data<State>,
    caller: As<Operator>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Automation>> {
    let _: Switch = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    steer::start_automation(&mut tx, &caller.0).await?;
    tx.commit().await?;
    Ok(web::Json(Automation { stopped: None }))
}
