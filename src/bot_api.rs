//! Telegram's Bot API: one call, with its errors told apart. Hands answers to the channel and to the intake.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::config::Telegram;

/// A bot. The token is part of every URL, so no error of the HTTP client is passed on with its URL.
#[derive(Clone)]
pub struct BotApi {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
}

/// Why a call did not work. Texts never carry the token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// No answer, or none that the Bot API would give.
    #[error("Telegram could not be reached: {0}")]
    Unreachable(String),
    #[error("Telegram answered {code}: {description}")]
    Answered {
        code: i64,
        description: String,
        /// How long to leave the chat alone (429).
        retry_after: Option<Duration>,
        /// The group became a supergroup with this id.
        migrated_to: Option<i64>,
    },
}

#[derive(Deserialize)]
struct Envelope<T> {
    ok: bool,
    result: Option<T>,
    #[serde(default)]
    error_code: i64,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

/// The answer to `getMe`, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
pub struct Me {
    pub id: i64,
    #[serde(default)]
    pub username: String,
}

impl BotApi {
    pub fn new(settings: &Telegram) -> Self {
        Self {
            http: crate::http_client::new(),
            base: format!("{}/bot{}", settings.api.trim_end_matches('/'), settings.token.expose()),
            timeout: settings.timeout,
        }
    }

    pub async fn me(&self) -> Result<Me, ApiError> {
        self.call("getMe", &serde_json::json!({})).await
    }

    /// Calls a method with its parameters as JSON.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, parameters: &Value) -> Result<T, ApiError> {
        self.call_within(method, parameters, self.timeout).await
    }

    /// The same with a time limit of its own, for long polls.
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: &Value,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        let request = self.http.post(format!("{}/{method}", self.base)).timeout(timeout).json(parameters);
        let unreachable = |e: reqwest::Error| ApiError::Unreachable(crate::http_client::reason(e));
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        let envelope: Envelope<T> = serde_json::from_slice(&body).map_err(|e| {
            ApiError::Unreachable(format!("HTTP {status} with something else than its JSON: {e}"))
        })?;
        match envelope {
            Envelope { ok: true, result: Some(result), .. } => Ok(result),
            refused => Err(ApiError::Answered {
                code: if refused.error_code == 0 { i64::from(status.as_u16()) } else { refused.error_code },
                description: refused.description,
                retry_after: refused.parameters.retry_after.map(Duration::from_secs),
                migrated_to: refused.parameters.migrate_to_chat_id,
            }),
        }
    }
}
