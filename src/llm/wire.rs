//! What the providers share: reading a bounded body, and turning a status into a failure.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::Failure;
use crate::redact;

/// How long the HTTP client waits by itself: longer than the breaker, whose time-out is the one that is told and counted. The
/// client's default would cut a long answer short.
pub(super) fn patience(limit: Duration) -> Duration {
    limit * 2
}

/// No answer that we ask for comes near it.
const MAX_BODY: usize = 1 << 20;

/// Sends, reads at most 1 MiB, and gives the JSON of a 2xx answer.
pub(super) async fn send(http: &reqwest::Client, request: reqwest::Request) -> Result<Value, Failure> {
    let response = http.execute(request).await.map_err(refused)?;
    let status = response.status();
    let body = read(response).await?;
    if !status.is_success() {
        return Err(failure(status, &body));
    }
    serde_json::from_slice(&body).map_err(|e| Failure::Garbled(format!("no JSON in it ({e})")))
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let broken = |e: reqwest::Error| Failure::Garbled(format!("it broke off ({})", short(&cause(&e))));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Err(Failure::Garbled(format!("longer than {MAX_BODY} bytes")));
        }
    }
    Ok(body)
}

/// The URL stays out of it: it may carry credentials.
pub(super) fn refused(e: reqwest::Error) -> Failure {
    Failure::Refused(short(&cause(&e)))
}

/// The innermost cause says most: "Connection refused (os error 111)".
fn cause(e: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = e;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// OpenAI and its imitators say `{"error": {"message", "code"}}`, Ollama `{"error": "…"}`.
fn failure(status: StatusCode, body: &[u8]) -> Failure {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &json["error"];
    let said = error["message"].as_str().or_else(|| error.as_str()).unwrap_or_default();
    let code = error["code"].as_str().or_else(|| error["type"].as_str()).unwrap_or_default();
    let text = match said {
        "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        said => short(said),
    };
    match status.as_u16() {
        401 | 403 => Failure::Unauthorised(text),
        404 => Failure::UnknownModel(text),
        429 => Failure::RateLimited(text),
        400 | 413 if is_too_long(code, said) => Failure::PromptTooLong(text),
        n => Failure::Server(n, text),
    }
}

fn is_too_long(code: &str, said: &str) -> bool {
    matches!(code, "context_length_exceeded" | "exceed_context_size_error" | "string_above_max_length")
        || said.contains("context length")
        || said.contains("context size")
}

/// Others' words, fit to be shown: one line, cut, secrets masked.
pub(super) fn short(text: &str) -> String {
    let line = text.split(char::is_control).find(|l| !l.trim().is_empty()).unwrap_or_default().trim();
    redact::mask(redact::cut(line, 200))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::AttemptResult;

    #[test]
    fn statuses_and_bodies_become_failures() {
        let key = r#"{"error":{"message":"Incorrect API key provided: sk-abcdefghijklmnopqrstuv"}}"#;
        let cases = [
            (401, key, AttemptResult::Unauthorised),
            (
                404,
                r#"{"error":"model \"nope\" not found, try pulling it first"}"#,
                AttemptResult::UnknownModel,
            ),
            (429, r#"{"error":{"message":"slow down"}}"#, AttemptResult::RateLimited),
            (
                400,
                r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#,
                AttemptResult::PromptTooLong,
            ),
            (
                400,
                r#"{"error":{"message":"x","type":"exceed_context_size_error"}}"#,
                AttemptResult::PromptTooLong,
            ),
            (400, r#"{"error":{"message":"bad schema"}}"#, AttemptResult::ServerError),
            (502, "<html>", AttemptResult::ServerError),
        ];
        for (status, body, expected) in cases {
            let f = failure(StatusCode::from_u16(status).expect("a status"), body.as_bytes());
            assert_eq!(f.result(), expected, "{f}");
            assert!(!f.to_string().contains("sk-abc"), "{f}");
        }
    }
}
