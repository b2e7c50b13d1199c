//! Slack's interactivity: presses of buttons, signed by Slack, taken durably and answered at once.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, post, web};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    State,
    problem::{Problem, ProblemDocument, Result},
};
use crate::{
    clock,
    intake::slack::{self, Answer},
};

pub fn routes(config: &mut ServiceConfig) {
    config.service(interactive);
}

/// Button presses from Slack, by its signature (`X-Slack-Signature`); needs `notify.slack.signing_secret`.
#[utoipa::path(tag = "intake", request_body(content_type = "application/x-www-form-urlencoded"),
    responses((status = 200), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/webhooks/slack/interactive")]
async fn interactive(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let Some(deps) = &state.deps.slack else {
        return Err(Problem::not_found("Slack's buttons are off: set notify.slack.signing_secret").closing());
    };
    let body = state.bodies.read(&request, payload, state.settings.http.max_body).await?;
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let press = slack::Request {
        timestamp: header("x-slack-request-timestamp"),
        signature: header("x-slack-signature"),
        body: body.bytes(),
    };
    match slack::handle(deps, press, clock::now()).await? {
        Answer::Taken => Ok(HttpResponse::Ok().finish()),
        Answer::Unverified(why) => Err(Problem::new(StatusCode::UNAUTHORIZED, why.to_string())),
        Answer::Malformed => Err(Problem::bad_request("this is signed, but it is no press of a button")),
    }
}
