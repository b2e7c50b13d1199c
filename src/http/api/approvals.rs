//! Approvals: what waits for a human.

use actix_web::{HttpRequest, get, web};
use serde::Deserialize;

use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{Problem, Result},
        query,
    },
    model::Approval,
    store::{Page, approvals},
};

/// Which approvals to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// At most 1,000; 100 if absent.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// `pending`, `approved`, `rejected`, `expired` or `superseded`.
    state: Option<String>,
}

/// Approvals, the newest first, each with its exact plan.
#[utoipa::path(tag = "approvals", params(Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Approval>), (status = "default", body = Problem, content_type = "application/problem+json")))]
#[get("/api/v1/approvals")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Approval>>> {
    let filter: Filter = query::parse(&request)?;
    let limit = query::limit(filter.limit)?;
    let wanted = query::word("state", filter.state.as_deref())?;
    let cursor = query::id_cursor(filter.cursor.as_deref())?;
    let mut tx = state.deps.store.read().await?;
    Ok(web::Json(approvals::list(&mut tx, wanted, limit, cursor).await?))
}
