//! Language models: one trait, one table of providers, and the chain that asks them in order. Hands on an accepted answer, or
//! for every tier the reason why there is none.
//!
//! A model is a helper that may say anything. What it says is text until the caller's check accepts it.

pub mod budget;
mod chain;
mod failure;
mod ollama;
mod openai;
mod wire;

use std::time::Duration;

use async_trait::async_trait;

use crate::{breaker::Dependency, config, model};

pub use chain::{Answered, Asked, Chain, Question};
pub use failure::{AttemptResult, Failure, Rejection};

/// What a model is asked. The schema is enforced by the server as far as it can; the caller checks again.
#[derive(Clone, Debug)]
pub struct Prompt {
    pub system: String,
    pub user: String,
    /// JSON Schema of the answer.
    pub schema: serde_json::Value,
}

impl Prompt {
    /// An estimate that errs on the high side: a token is rarely shorter than three bytes.
    pub fn tokens(&self) -> usize {
        tokens(&self.system) + tokens(&self.user) + tokens(&self.schema.to_string())
    }
}

/// See [`Prompt::tokens`].
pub fn tokens(text: &str) -> usize {
    text.len().div_ceil(3)
}

/// What a model said, as it said it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    /// The model as the server names it.
    pub model: String,
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub finish: Finish,
}

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    Stop,
    /// At the token limit: the text is a fragment.
    Length,
    /// A content filter, or something that we did not ask for.
    Other(String),
}

/// A language model server.
#[async_trait]
pub trait Provider: Send + Sync {
    /// One request, no retries. The caller ends it early by dropping the future.
    async fn complete(&self, prompt: &Prompt) -> Result<Answer, Failure>;
    /// Whether the server is there and has the model; for `aiops check`.
    async fn reach(&self) -> Result<(), Failure>;
}

/// One provider with its settings, as the chain holds it.
struct Link {
    name: Dependency,
    tier: model::Tier,
    provider: Box<dyn Provider>,
    limits: config::Limits,
}

/// Makes a link if the settings turn it on.
type Make = fn(&config::Llm, &reqwest::Client) -> Option<Link>;

/// Every provider, in the order of asking.
const TABLE: &[Make] = &[openai::link, ollama::link];

/// Asks the server of every tier that is turned on; for `aiops check`, which has no chain.
pub async fn reach(settings: &config::Llm, http: &reqwest::Client) -> Vec<(Dependency, Result<(), String>)> {
    let mut found = Vec::new();
    for link in TABLE.iter().filter_map(|make| make(settings, http)) {
        found.push((link.name, link.reach().await));
    }
    found
}

impl Link {
    async fn reach(&self) -> Result<(), String> {
        match tokio::time::timeout(Duration::from_secs(5), self.provider.reach()).await {
            Ok(reached) => reached.map_err(|f| f.to_string()),
            Err(_) => Err("timed out after 5s".into()),
        }
    }
}
