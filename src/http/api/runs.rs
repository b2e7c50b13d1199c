//! Runs: plans under way and done, with their journals.

use actix_web::{HttpRequest, get, web};
use serde::Deserialize;

use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{Problem, Result},
        query,
    },
    model::Run,
    store::{Page, runs},
};

/// Which runs to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// At most 1,000; 100 if absent.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// `running`, `needs_human`, `verifying`, `rolling_back`, `succeeded`, `failed`, `rolled_back` or `cancelled`.
    state: Option<String>,
}

/// Runs, the newest first.
#[utoipa::path(tag = "runs", params(Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<Run>), (status = "default", body = Problem, content_type = "application/problem+json")))]
#[get("/api/v1/runs")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<Run>>> {
    let filter: Filter = query::parse(&request)?;
    let limit = query::limit(filter.limit)?;
    let wanted = query::word("state", filter.state.as_deref())?;
    let cursor = query::id_cursor(filter.cursor.as_deref())?;
    let mut tx = state.deps.store.read().await?;
    Ok(web::Json(runs::list(&mut tx, wanted, limit, cursor).await?))
}
