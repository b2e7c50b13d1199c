//! API tokens.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        State,
        auth::{Admin, As},
        body,
        problem::{Problem, ProblemDocument, Result},
    },
    model::Role,
    store::{
        Page, audit,
        tokens::{self, Token},
    },
};

/// A token to be made.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// 1 to 64 letters, digits, `-`, `_` and `.`; shown wherever its holder does something.
    name: String,
    role: Role,
}

/// A new token, shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct Made {
    name: String,
    role: Role,
    token: String,
}

/// All tokens, without their secrets; also revoked ones.
#[utoipa::path(tag = "tokens", security(("token" = ["admin"])),
    responses((status = 200, body = Page<Token>), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/tokens")]
pub async fn list(state: web::Data<State>, _caller: As<Admin>) -> Result<web::Json<Page<Token>>> {
    let mut tx = state.deps.store.read().await?;
    Ok(web::Json(Page { items: tokens::list(&mut tx).await?, next: None }))
}

/// Makes a token.
#[utoipa::path(tag = "tokens", request_body = NewToken, security(("token" = ["admin"])),
    responses((status = 201, body = Made), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/tokens")]
pub async fn create(
    state: web::Data<State>,
    caller: As<Admin>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let NewToken { name, role } = body::required(&state, &request, payload).await?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(Problem::bad_request("name must be 1 to 64 letters, digits, -, _ and ."));
    }
    let secret = crate::ids::secret();
    let mut tx = state.deps.store.write().await?;
    match tokens::insert(&mut tx, &name, role, &secret).await {
        Err(e) if e.is_conflict() => {
            return Err(Problem::conflict(format!(
                "there is a token {name} already; revoked names stay taken"
            )));
        }
        outcome => outcome?,
    }
    let detail = serde_json::json!({"role": role});
    audit::add(&mut tx, &caller.0, "token.create", &format!("token:{name}"), &detail).await?;
    tx.commit().await?;
    Ok(HttpResponse::Created().json(Made { name, role, token: secret }))
}

/// Revokes a token.
#[utoipa::path(tag = "tokens", params(("name" = String, Path)), security(("token" = ["admin"])),
    responses((status = 204), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[delete("/api/v1/tokens/{name}")]
pub async fn revoke(
    state: web::Data<State>,
    caller: As<Admin>,
    name: web::Path<String>,
) -> Result<HttpResponse> {
    let mut tx = state.deps.store.write().await?;
    if !tokens::revoke(&mut tx, &name).await? {
        return Err(Problem::not_found(format!("there is no token {:?} that could be revoked", *name)));
    }
    audit::add(&mut tx, &caller.0, "token.revoke", &format!("token:{name}"), &serde_json::json!({})).await?;
    tx.commit().await?;
    state.logins.forget(&name);
    Ok(HttpResponse::NoContent().finish())
}
