//! The language models that improve a diagnosis. None is asked until its `model` is set.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// The chain: the OpenAI-compatible server first, then Ollama.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Llm {
    pub openai: OpenAi,
    pub ollama: Ollama,
}

/// Any server with `/chat/completions` and `response_format: json_schema`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAi {
    /// Base URL, `/v1` included.
    pub url: String,
    /// Empty: no `Authorization` header is sent.
    pub key: Secret,
    /// Empty: this tier is off.
    pub model: String,
    pub limits: Limits,
    /// Merged into every request: `{temperature: 0.2, reasoning_effort: low}`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// Ollama's own API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ollama {
    /// Base URL, without `/api`.
    pub url: String,
    /// Empty: this tier is off.
    pub model: String,
    pub limits: Limits,
    /// Context length that the model is loaded with; prompt and answer must fit.
    pub num_ctx: u32,
}

/// What one tier may take and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// For one answer, waiting for a free place included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Prompt and answer together, per day in UTC; 0: no limit.
    pub tokens_per_day: u64,
    /// The prompt is made to fit by leaving out the least relevant evidence.
    pub prompt_tokens: usize,
    /// A longer answer is cut off by the server and counts as a failure.
    pub answer_tokens: u32,
    /// USD for a million tokens.
    pub price_in: f64,
    pub price_out: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(45),
            concurrency: 2,
            tokens_per_day: 0,
            prompt_tokens: 4000,
            answer_tokens: 1000,
            price_in: 0.0,
            price_out: 0.0,
        }
    }
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            url: "https://api.openai.com/v1".into(),
            key: Secret::default(),
            model: String::new(),
            limits: Limits::default(),
            extra: serde_json::Map::new(),
        }
    }
}

impl Default for Ollama {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:11434".into(),
            model: String::new(),
            limits: Limits::default(),
            num_ctx: 8192,
        }
    }
}

/// Keys of a request that `extra` must not replace: they carry what we check the answer against.
const OURS: [&str; 5] = ["model", "messages", "response_format", "stream", "tools"];

impl Check for Llm {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let (openai, ollama) = (&self.openai, &self.ollama);
        check::url(&format!("{at}.openai.url"), &openai.url, problems);
        check::url(&format!("{at}.ollama.url"), &ollama.url, problems);
        openai.limits.check(&format!("{at}.openai.limits"), problems);
        ollama.limits.check(&format!("{at}.ollama.limits"), problems);
        if !openai.model.is_empty() && openai.key.is_empty() && openai.is_official() {
            problems.push(Problem::new(
                format!("{at}.openai.key"),
                "must be set: api.openai.com refuses requests without one",
            ));
        }
        for key in OURS.iter().filter(|k| openai.extra.contains_key(**k)) {
            problems.push(Problem::new(
                format!("{at}.openai.extra"),
                format!("must not set {key}: the service sets it itself"),
            ));
        }
        let needed = ollama.limits.prompt_tokens + ollama.limits.answer_tokens as usize;
        if needed > ollama.num_ctx as usize {
            problems.push(Problem::new(
                format!("{at}.ollama.num_ctx"),
                format!("must be at least {needed}, the sum of prompt_tokens and answer_tokens: Ollama cuts the prompt silently otherwise"),
            ));
        }
    }
}

impl OpenAi {
    /// True for OpenAI's own server, which names some fields differently from its imitators.
    pub fn is_official(&self) -> bool {
        reqwest::Url::parse(&self.url).is_ok_and(|u| u.host_str() == Some("api.openai.com"))
    }
}

impl Check for Limits {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
        if self.concurrency == 0 {
            problems.push(Problem::new(format!("{at}.concurrency"), "must be at least 1"));
        }
        if self.prompt_tokens < 1000 {
            problems.push(Problem::new(
                format!("{at}.prompt_tokens"),
                "must be at least 1000: instructions alone take several hundred",
            ));
        }
        if self.answer_tokens < 100 {
            problems.push(Problem::new(format!("{at}.answer_tokens"), "must be at least 100"));
        }
        for (name, price) in [("price_in", self.price_in), ("price_out", self.price_out)] {
            if !(price.is_finite() && price >= 0.0) {
                problems.push(Problem::new(
                    format!("{at}.{name}"),
                    "must be 0 or more, in USD for a million tokens",
                ));
            }
        }
    }
}
