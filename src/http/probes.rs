//! Probes and metrics.

use actix_web::{HttpRequest, HttpResponse, get, web};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    State, auth,
    problem::{Problem, ProblemDocument, Result},
};
use crate::{clock, metrics, store::inbox};

pub fn routes(config: &mut ServiceConfig) {
    config.service(live).service(ready).service(render_metrics);
}

/// 200 while the process answers at all.
#[utoipa::path(tag = "probes", security((), ("token" = ["viewer"])), responses((status = 200, body = String)))]
#[get("/livez")]
async fn live(state: web::Data<State>, request: HttpRequest) -> Result<&'static str> {
    auth::admit_probe(&state, &request).await?;
    Ok("ok\n")
}

/// 200 while the store answers, the pipeline works and deliveries do not age.
#[utoipa::path(tag = "probes", security((), ("token" = ["viewer"])),
    responses((status = 200, body = String), (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/readyz")]
async fn ready(state: web::Data<State>, request: HttpRequest) -> Result<&'static str> {
    auth::admit_probe(&state, &request).await?;
    let oldest = tokio::time::timeout(std::time::Duration::from_secs(2), oldest_delivery(&state))
        .await
        .map_err(|_| Problem::unavailable("the store does not answer within 2s"))??;
    let age = oldest.map_or(std::time::Duration::ZERO, |at| clock::between(at, clock::now()));
    if age > MOST_AGED {
        let age = humantime::format_duration(std::time::Duration::from_secs(age.as_secs()));
        return Err(Problem::unavailable(format!("the oldest delivery has waited for {age}")));
    }
    (state.deps.ready)().map_err(Problem::unavailable)?;
    Ok("ok\n")
}

const FRESH_WITHIN: std::time::Duration = std::time::Duration::from_millis(500);

/// A delivery that has waited for so long says that correlation stands still.
const MOST_AGED: std::time::Duration = std::time::Duration::from_secs(60);

async fn oldest_delivery(state: &State) -> Result<Option<jiff::Timestamp>> {
    Ok(inbox::backlog(&state.deps.store).await?.1)
}

/// All metrics in Prometheus' text format.
#[utoipa::path(tag = "probes", security((), ("token" = ["viewer"])), responses((status = 200, body = String)))]
#[get("/metrics")]
async fn render_metrics(state: web::Data<State>, request: HttpRequest) -> Result<HttpResponse> {
    auth::admit_probe(&state, &request).await?;
    // What waits is looked at anew: the last look may be seconds old. A store that hangs must not take the metrics with it.
    let backlog = inbox::backlog(&state.deps.store);
    if let Ok(Ok((depth, oldest))) = tokio::time::timeout(FRESH_WITHIN, backlog).await {
        let age = oldest.map_or(std::time::Duration::ZERO, |at| clock::between(at, clock::now()));
        metrics::INBOX_DEPTH.set(depth);
        metrics::INBOX_AGE_MS.set(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    }
    let text = metrics::render().map_err(|e| Problem::internal(&e))?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
