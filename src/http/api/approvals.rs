//! Approvals: what waits for a human.

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
    model::Approval,
    steer,
    store::{Page, Tx, approvals},
};

/// Which approvals to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// `pending`, `approved`, `rejected`, `expired` or `superseded`.
    state: Option<String>,
}

/// Approvals, the newest first, each with its exact plan.
#[utoipa::path(tag = "approvals", params(query::Paging, Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Approval>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/approvals")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Approval>>> {
    let (filter, page) = query::list::<Filter>(&request)?;
    let wanted = query::word("state", filter.state.as_deref())?;
    page.answer(&state, async |tx, limit, cursor: Option<query::Id>| {
        Ok(approvals::list(tx, wanted, limit, cursor.as_deref()).await?)
    })
    .await
}

/// An answer to a question about one exact plan.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// Of the plan that was shown: another plan is not meant. Absent: the plan as it stands.
    plan_hash: Option<String>,
    /// A sentence for the others.
    reason: Option<String>,
}

/// An approved plan is a run from then on.
#[derive(Serialize, utoipa::ToSchema)]
struct Approved {
    approval: Approval,
    run_id: String,
}

/// Says yes to exactly the plan that was shown, once; 409 if it was answered, has expired, or is another plan.
#[utoipa::path(tag = "approvals", params(("id" = String, Path)), request_body = Option<Answer>, security(("token" = ["operator"])),
    responses((status = 200, body = Approved), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/approvals/{id}/approve")]
pub async fn approve(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Approved>> {
    let Answer { plan_hash, .. } = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    let shown = match plan_hash {
        Some(hash) => hash,
        None => find(&mut tx, &id).await?.plan_hash,
    };
    let run_id = steer::approve(&mut tx, &id, &caller.0, &shown).await?;
    let approval = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(web::Json(Approved { approval, run_id }))
}

/// Says no, once. The same plan is not proposed again for this incident.
#[utoipa::path(tag = "approvals", params(("id" = String, Path)), request_body = Option<Answer>, security(("token" = ["operator"])),
    responses((status = 200, body = Approval), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/approvals/{id}/reject")]
pub async fn reject(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<Approval>> {
    let Answer { plan_hash, reason } = body::optional(&state, &request, payload).await?;
    let mut tx = state.deps.store.write().await?;
    let known = find(&mut tx, &id).await?.plan_hash;
    if plan_hash.is_some_and(|hash| hash != known) {
        return Err(Problem::conflict("you were shown another plan than this one; look at it again"));
    }
    steer::reject(&mut tx, &id, &caller.0, &reason.unwrap_or_default()).await?;
    let approval = find(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(web::Json(approval))
}

async fn find(tx: &mut Tx, id: &str) -> Result<Approval> {
    approvals::get(tx, id).await?.ok_or_else(|| Problem::not_found(format!("there is no approval {id:?}")))
}
