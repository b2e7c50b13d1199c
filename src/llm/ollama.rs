//! Ollama's own API: `/api/chat` takes the JSON Schema as `format` and samples under it as a grammar.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Answer, Failure, Finish, Link, Prompt, Provider, wire};
use crate::{breaker::Dependency, config, model::Tier};

pub(super) fn link(settings: &config::Llm, http: &reqwest::Client) -> Option<Link> {
    let s = &settings.ollama;
    (!s.model.is_empty()).then(|| Link {
        name: Dependency::Ollama,
        tier: Tier::Local,
        provider: Box::new(Ollama { settings: s.clone(), http: http.clone() }),
        limits: s.limits.clone(),
    })
}

struct Ollama {
    settings: config::Ollama,
    http: reqwest::Client,
}

impl Ollama {
    fn post(&self, path: &str, body: &Value) -> Result<reqwest::Request, Failure> {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        let request = self.http.post(url).timeout(wire::patience(self.settings.limits.timeout)).json(body);
        request.build().map_err(wire::refused)
    }
}

#[async_trait]
impl Provider for Ollama {
    async fn complete(&self, prompt: &Prompt) -> Result<Answer, Failure> {
        let s = &self.settings;
        let body = json!({
            "model": s.model,
            "stream": false,
            "think": false,
            "keep_alive": "10m",
            "format": prompt.schema,
            // Without num_predict a confused model writes until the context is full.
            "options": {"temperature": 0, "num_ctx": s.num_ctx, "num_predict": s.limits.answer_tokens},
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
        });
        answer(&wire::send(&self.http, self.post("/api/chat", &body)?).await?)
    }

    async fn reach(&self) -> Result<(), Failure> {
        let body = json!({"model": self.settings.model});
        wire::send(&self.http, self.post("/api/show", &body)?).await.map(|_| ())
    }
}

fn answer(reply: &Value) -> Result<Answer, Failure> {
    let text = reply["message"]["content"].as_str();
    let text = text.ok_or_else(|| Failure::Garbled("no message.content".into()))?;
    let finish = match reply["done_reason"].as_str() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        other => Finish::Other(wire::short(other.unwrap_or("no done_reason"))),
    };
    Ok(Answer {
        text: text.into(),
        model: wire::short(reply["model"].as_str().unwrap_or_default()),
        tokens_in: reply["prompt_eval_count"].as_u64().unwrap_or(0),
        tokens_out: reply["eval_count"].as_u64().unwrap_or(0),
        finish,
    })
}
