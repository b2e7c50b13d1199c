//! The kill switch: stops everything that acts by itself, and lets it go on.

use actix_web::{HttpRequest, post, web};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    http::{
        State,
        auth::{As, Operator},
        body,
        problem::{Problem, Result},
    },
    store::{audit, flags},
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
    responses((status = 200, body = Automation), (status = "default", body = Problem, content_type = "application/problem+json")))]
#[post("/api/v1/automation/stop")]
pub async fn stop(
    state: web::Data<State>,
    caller: As<Operator>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Automation>> {
    let Switch { reason } = body::optional(&state, &request, payload).await?;
    let value = serde_json::json!({"by": caller.0.to_string(), "reason": reason, "at": clock::now()});
    let mut tx = state.deps.store.write().await?;
    flags::set(&mut tx, flags::STOPPED, &value).await?;
    audit::add(&mut tx, &caller.0, "automation.stop", "automation", &value).await?;
    tx.commit().await?;
    Ok(web::Json(Automation { stopped: Some(value) }))
}

/// Lets automation act again.
#[utoipa::path(tag = "automation", security(("token" = ["operator"])),
    responses((status = 200, body = Automation), (status = "default", body = Problem, content_type = "application/problem+json")))]
#[post("/api/v1/automation/start")]
pub async fn start(state: web::Data<State>, caller: As<Operator>) -> Result<web::Json<Automation>> {
    let mut tx = state.deps.store.write().await?;
    flags::clear(&mut tx, flags::STOPPED).await?;
    audit::add(&mut tx, &caller.0, "automation.start", "automation", &serde_json::json!({})).await?;
    tx.commit().await?;
    Ok(web::Json(Automation { stopped: None }))
}
