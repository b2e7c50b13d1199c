//! The audit trail.

use actix_web::{HttpRequest, get, web};

use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{ProblemDocument, Result},
        query,
    },
    store::{Page, audit},
};

/// Who did what, the newest first. Each entry carries the hash of the one before.
#[utoipa::path(tag = "audit", params(query::Paging), security(("token" = ["viewer"])),
    responses((status = 200, body = Page<audit::Entry>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/audit")]
pub async fn list(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<web::Json<Page<audit::Entry>>> {
    let (query::NoFilter {}, page) = query::list(&request)?;
    page.answer(&state, async |tx, limit, cursor| Ok(audit::list(tx, limit, cursor).await?)).await
}
