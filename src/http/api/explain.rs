//! Why something happened, or did not.

use actix_web::{get, web};
use serde::Serialize;

use super::incidents;
use crate::{
    http::{
        State,
        auth::{As, Viewer},
        problem::{Problem, ProblemDocument, Result},
    },
    model::{Alert, Decision, Incident},
    store::{
        alerts,
        decisions::{self, About},
    },
};

/// Every decision about an alert or an incident, oldest first.
#[derive(Serialize, utoipa::ToSchema)]
struct Explanation {
    /// The alert that was asked about.
    alert: Option<Alert>,
    /// The incident that was asked about, or that the alert belongs to.
    incident: Option<Incident>,
    items: Vec<Decision>,
    /// Always null: there are never more than 1,000.
    next: Option<String>,
}

/// Every decision with the clause that took it, about an alert (by its fingerprint) or an incident (by its id or the ending
/// that messages show); also the decisions to do nothing.
#[utoipa::path(tag = "explain", params(("what" = String, Path)), security(("token" = ["viewer"])),
    responses((status = 200, body = Explanation), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/explain/{what}")]
pub async fn explain(
    state: web::Data<State>,
    _caller: As<Viewer>,
    what: web::Path<String>,
) -> Result<web::Json<Explanation>> {
    let mut tx = state.deps.store.read().await?;
    let fingerprint = what.to_ascii_lowercase();
    if fingerprint.len() == 16 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()) {
        let alert = alerts::get(&mut tx, &fingerprint).await?;
        let items = decisions::of(&mut tx, About::alert(&fingerprint, None)).await?;
        if alert.is_none() && items.is_empty() {
            return Err(Problem::not_found(format!(
                "no alert with the fingerprint {fingerprint} was ever seen"
            )));
        }
        let incident = match alert.as_ref().and_then(|a| a.incident_id.as_deref()) {
            Some(id) => crate::store::incidents::get(&mut tx, id).await?,
            None => None,
        };
        return Ok(web::Json(Explanation { alert, incident, items, next: None }));
    }
    let incident = incidents::find(&mut tx, &what).await?;
    let items = decisions::of(&mut tx, About::incident(&incident.id)).await?;
    Ok(web::Json(Explanation { alert: None, incident: Some(incident), items, next: None }))
}
