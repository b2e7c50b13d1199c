//! Slack's Web API and incoming webhooks: one call each, with their errors told apart.

use std::time::Duration;

use serde_json::Value;

use crate::{config::Slack, http_client, model};

/// An app of one workspace.
#[derive(Clone)]
pub struct SlackApi {
    http: reqwest::Client,
    settings: Slack,
}

/// Why a call did not work. Texts never carry the token or the webhook's URL.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    #[error("Slack could not be reached: {0}")]
    Unreachable(String),
    #[error("Slack asks to slow down")]
    Slower(Duration),
    /// `ok: false`; Slack answers that with HTTP 200.
    #[error("Slack answered {0}")]
    Refused(String),
    #[error("Slack answered HTTP {0}: {1}")]
    Status(u16, String),
}

impl SlackApi {
    pub fn new(settings: &Slack) -> Self {
        Self { http: http_client::new(), settings: settings.clone() }
    }

    /// Calls a method of the Web API with JSON; the whole answer, which says `ok: true`.
    pub async fn call(&self, method: &str, parameters: &Value) -> Result<Value, ApiError> {
        let url = format!("{}/{method}", self.settings.api.trim_end_matches('/'));
        let request = self.http.post(url).bearer_auth(self.settings.token.expose());
        let body = self.send(request, parameters).await?;
        let answer: Value = serde_json::from_str(&body)
            .map_err(|e| ApiError::Unreachable(format!("something else than its JSON: {e}")))?;
        match (answer["ok"].as_bool(), answer["error"].as_str()) {
            (Some(true), _) => Ok(answer),
            (_, Some("ratelimited")) => Err(ApiError::Slower(DEFAULT_WAIT)),
            (_, error) => Err(ApiError::Refused(error.unwrap_or("neither ok nor an error").to_owned())),
        }
    }

    /// Posts to the incoming webhook, which answers `ok` and nothing to refer to.
    pub async fn webhook(&self, message: &Value) -> Result<(), ApiError> {
        self.send(self.http.post(self.settings.webhook.expose()), message).await.map(drop)
    }

    async fn send(&self, request: reqwest::RequestBuilder, json: &Value) -> Result<String, ApiError> {
        let unreachable = |e: reqwest::Error| ApiError::Unreachable(http_client::reason(e));
        let request = request.timeout(self.settings.timeout).json(json);
        let answer = request.send().await.map_err(unreachable)?;
        let (status, after) = (answer.status(), http_client::retry_after(&answer));
        let body = answer.text().await.map_err(unreachable)?;
        match status.as_u16() {
            200..=299 => Ok(body),
            429 => Err(ApiError::Slower(after.unwrap_or(DEFAULT_WAIT))),
            code => Err(ApiError::Status(code, body.chars().take(200).collect())),
        }
    }

    /// SHA-256 of the webhook's URL, 12 digits: tells two apart without telling either.
    pub fn webhook_name(&self) -> String {
        model::sha256_hex(self.settings.webhook.expose().as_bytes()).chars().take(12).collect()
    }
}

/// Where Slack says that it is too fast, and not for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
