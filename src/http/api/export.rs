//! The copy of our own records in a search index.

use actix_web::{post, web};
use serde::Serialize;

use crate::{
    http::{
        State,
        auth::{As, Operator},
        problem::{ProblemDocument, Result},
    },
    store::{audit, exports},
};

/// How much is tried again.
#[derive(Serialize, utoipa::ToSchema)]
struct Retried {
    tried_again: u64,
}

/// Tries records again that the index refused, after its templates were mended.
#[utoipa::path(tag = "status", security(("token" = ["operator"])),
    responses((status = 200, body = Retried), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/export/retry")]
pub async fn retry(state: web::Data<State>, caller: As<Operator>) -> Result<web::Json<Retried>> {
    let mut tx = state.deps.store.write().await?;
    let tried_again = exports::retry(&mut tx).await?;
    let detail = serde_json::json!({ "tried_again": tried_again });
    audit::add(&mut tx, &caller.0, "export.retry", "export", &detail).await?;
    tx.commit().await?;
    Ok(web::Json(Retried { tried_again }))
}
