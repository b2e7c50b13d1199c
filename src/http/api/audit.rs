//! The audit trail.

use actix_web::{HttpRequest, get, web};
use serde::Deserialize;

use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{ProblemDocument, Result},
        query,
    },
    store::{Page, audit},
};

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// At most 1,000; 100 if absent.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Who did what, the newest first. Each entry carries the hash of the one before.
#[utoipa::path(tag = "audit", params(Filter), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<audit::Entry>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/audit")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<audit::Entry>>> {
    let filter: Filter = query::parse(&request)?;
    let limit = query::limit(filter.limit)?;
    let cursor = filter.cursor.map(|c| c.parse().map_err(|_| query::bad_cursor())).transpose()?;
    let mut tx = state.deps.store.read().await?;
    Ok(web::Json(audit::list(&mut tx, limit, cursor).await?))
}
