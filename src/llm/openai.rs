//! Any server that speaks OpenAI's chat completions with `response_format: json_schema`: OpenAI, vLLM, llama.cpp, LM Studio.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_openai::{Client, config::OpenAIConfig, error::OpenAIError, middleware::HttpRequestFactory};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Answer, Failure, Finish, Link, Prompt, Provider, wire};
use crate::{breaker::Dependency, config, model::Tier};

pub(super) fn link(settings: &config::Llm, http: &reqwest::Client) -> Option<Link> {
    let s = &settings.openai;
    (!s.model.is_empty()).then(|| Link {
        name: Dependency::OpenAi,
        tier: Tier::Cloud,
        provider: Box::new(OpenAi::new(s.clone(), http.clone())),
        limits: s.limits.clone(),
    })
}

struct OpenAi {
    settings: config::OpenAi,
    client: Client<OpenAIConfig>,
    http: reqwest::Client,
}

impl OpenAi {
    fn new(settings: config::OpenAi, http: reqwest::Client) -> Self {
        let config = OpenAIConfig::new()
            .with_api_base(settings.url.trim_end_matches('/'))
            .with_api_key(settings.key.expose());
        let once = Once { http: http.clone(), settings: settings.clone() };
        let client = Client::build(http.clone(), config).with_http_service(once);
        Self { settings, client, http }
    }

    fn body(&self, prompt: &Prompt) -> Value {
        let s = &self.settings;
        let limit = if s.is_official() { "max_completion_tokens" } else { "max_tokens" };
        let mut body = json!({
            "model": s.model,
            "stream": false,
            limit: s.limits.answer_tokens,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "diagnosis", "strict": true, "schema": prompt.schema},
            },
        });
        body.as_object_mut().expect("an object was written above").extend(s.extra.clone());
        body
    }
}

#[async_trait]
impl Provider for OpenAi {
    async fn complete(&self, prompt: &Prompt) -> Result<Answer, Failure> {
        let reply: Value = self.client.chat().create_byot(self.body(prompt)).await.map_err(failure)?;
        answer(&reply)
    }

    async fn reach(&self) -> Result<(), Failure> {
        let request = self.http.get(format!("{}/models", self.settings.url.trim_end_matches('/')));
        let key = self.settings.key.expose();
        let request = if key.is_empty() { request } else { request.bearer_auth(key) };
        let reply = wire::send(&self.http, request.build().map_err(wire::refused)?).await?;
        let models = reply["data"].as_array().ok_or_else(|| Failure::Garbled("no list of models".into()))?;
        let wanted = self.settings.model.as_str();
        if models.iter().any(|m| m["id"] == wanted) {
            return Ok(());
        }
        Err(Failure::UnknownModel(format!("{wanted:?} is not in its list")))
    }
}

/// `choices[0]` and `usage`; a refusal takes the place of the content.
fn answer(reply: &Value) -> Result<Answer, Failure> {
    let choice = &reply["choices"][0];
    let message = &choice["message"];
    if let Some(refusal) = message["refusal"].as_str().filter(|r| !r.is_empty()) {
        return Err(Failure::Declined(wire::short(refusal)));
    }
    let finish = match choice["finish_reason"].as_str() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        other => Finish::Other(wire::short(other.unwrap_or("no finish_reason"))),
    };
    let text = message["content"].as_str();
    let text = text.ok_or_else(|| Failure::Garbled("no choices[0].message.content".into()))?;
    Ok(Answer {
        text: text.into(),
        model: wire::short(reply["model"].as_str().unwrap_or_default()),
        tokens_in: reply["usage"]["prompt_tokens"].as_u64().unwrap_or(0),
        tokens_out: reply["usage"]["completion_tokens"].as_u64().unwrap_or(0),
        finish,
    })
}

fn failure(e: OpenAIError) -> Failure {
    match e {
        OpenAIError::Boxed(inner) => match inner.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(other) => Failure::Garbled(wire::short(&other.to_string())),
        },
        OpenAIError::Reqwest(e) => wire::refused(e),
        other => Failure::Garbled(wire::short(&other.to_string())),
    }
}

/// Sends once and reads a bounded body. The client's own service retries by itself, reads without bound, and logs what it
/// cannot parse.
#[derive(Clone)]
struct Once {
    http: reqwest::Client,
    settings: config::OpenAi,
}

impl tower::Service<HttpRequestFactory> for Once {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let Self { http, settings } = self.clone();
        Box::pin(async move {
            let mut request = factory.build().await?;
            *request.timeout_mut() = Some(wire::patience(settings.limits.timeout));
            if settings.key.is_empty() {
                request.headers_mut().remove(reqwest::header::AUTHORIZATION);
            }
            let reply = wire::send(&http, request).await.map_err(|f| OpenAIError::Boxed(Box::new(f)))?;
            Ok(http::Response::new(reply.to_string()).into())
        })
    }
}
