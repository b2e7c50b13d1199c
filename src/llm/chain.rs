//! Asks one tier after the other until an answer is accepted; every tier has its deadline, breaker, places and budget.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{Answer, AttemptResult, Failure, Finish, Link, Prompt, Rejection, TABLE, budget};
use crate::{
    breaker::{Breakers, CallError, Dependency},
    config, metrics,
    model::{Attempt, Phrase, Said, Span, Tier},
    store::Store,
};

/// The prompt for one tier, with what the answer will be checked against.
pub struct Question<C> {
    pub prompt: Prompt,
    pub context: C,
}

/// What became of a question.
#[derive(Debug)]
pub struct Asked<T> {
    pub answered: Option<Answered<T>>,
    /// Every tier that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// Of all attempts, failed ones included.
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub cost_usd: f64,
}

/// An accepted answer.
#[derive(Debug)]
pub struct Answered<T> {
    pub value: T,
    pub tier: Tier,
    pub model: String,
    pub latency_ms: u64,
}

/// The tiers that the settings turn on.
pub struct Chain {
    links: Vec<(Link, Semaphore)>,
    store: Store,
    breakers: Breakers,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    tokens_in: u64,
    tokens_out: u64,
}

/// Why one tier gave nothing: how metrics count it, how people read it, and what it took if that is known.
struct Stop {
    result: AttemptResult,
    text: Said,
    usage: Usage,
}

impl Chain {
    pub fn new(settings: &config::Llm, http: &reqwest::Client, store: Store, breakers: Breakers) -> Self {
        let links = TABLE.iter().filter_map(|make| make(settings, http));
        let links = links
            .map(|link| (Semaphore::new(link.limits.concurrency), link))
            .map(|(places, link)| (link, places));
        Self { links: links.collect(), store, breakers }
    }

    /// No model at all.
    pub fn none(store: Store, breakers: Breakers) -> Self {
        Self { links: Vec::new(), store, breakers }
    }

    /// True if no tier is turned on.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether each tier's server is there and has its model.
    pub async fn reach(&self) -> Vec<(Dependency, Result<(), String>)> {
        let mut found = Vec::with_capacity(self.links.len());
        for (link, _) in &self.links {
            found.push((link.name, link.reach().await));
        }
        found
    }

    /// Asks until `accept` takes an answer. `question` makes the prompt for a tier's limits; its context goes to `accept`
    /// together with the text of the answer; its error is a prompt that does not fit the tier. Fails only if the store fails.
    pub async fn ask<C, T>(
        &self,
        question: impl Fn(&config::Limits) -> anyhow::Result<Question<C>>,
        accept: impl Fn(&C, &str) -> Result<T, Rejection>,
    ) -> anyhow::Result<Asked<T>> {
        let mut asked =
            Asked { answered: None, attempts: Vec::new(), tokens_in: 0, tokens_out: 0, cost_usd: 0.0 };
        for (link, places) in &self.links {
            let start = Instant::now();
            let question = match question(&link.limits) {
                Ok(question) => question,
                Err(e) => {
                    let text = Failure::PromptTooLong(format!("{e:#}")).said();
                    asked.count(
                        link,
                        AttemptResult::PromptTooLong,
                        text.into(),
                        Usage::default(),
                        start.elapsed(),
                    );
                    continue;
                }
            };
            let one =
                self.ask_one(link, places, &question.prompt, |text| accept(&question.context, text)).await?;
            let took = start.elapsed();
            match one {
                Ok((value, answer)) => {
                    asked.count(link, AttemptResult::Answered, "answered".into(), Usage::of(&answer), took);
                    let latency_ms = took.as_millis() as u64;
                    asked.answered =
                        Some(Answered { value, tier: link.tier, model: answer.model, latency_ms });
                    break;
                }
                Err(stop) => {
                    tracing::warn!(provider = %link.name, result = %stop.result, why = %stop.text, "a language model is of no help");
                    asked.count(link, stop.result, stop.text, stop.usage, took);
                }
            }
        }
        Ok(asked)
    }

    async fn ask_one<T>(
        &self,
        link: &Link,
        places: &Semaphore,
        prompt: &Prompt,
        accept: impl Fn(&str) -> Result<T, Rejection>,
    ) -> anyhow::Result<Result<(T, Answer), Stop>> {
        let deadline = Instant::now() + link.limits.timeout;
        let Ok(place) = tokio::time::timeout_at(deadline, places.acquire()).await else {
            return Ok(Err(Stop::new(AttemptResult::Busy, Phrase::Busy {})));
        };
        let _place = place?;
        let estimate = prompt.tokens() as u64 + u64::from(link.limits.answer_tokens);
        let limit = link.limits.tokens_per_day;
        if let budget::Reserved::Exhausted(spent) =
            budget::reserve(&self.store, link.name, limit, estimate).await?
        {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let (spent, limit, estimate) = (number(spent), number(limit), number(estimate));
            let text = Phrase::OverBudget { spent, limit, estimate };
            return Ok(Err(Stop::new(AttemptResult::Budget, text)));
        }
        // A failed check must not hide what the answer took.
        let seen = Mutex::new(None);
        let call = async {
            let answer = link.provider.complete(prompt).await?;
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Usage::of(&answer));
            let value = check(&answer, accept)?;
            Ok((value, answer))
        };
        let rest = deadline.saturating_duration_since(Instant::now());
        let result = self.breakers.of(link.name).call(rest, Failure::trips, call).await;
        let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let taken = match &result {
            Err(CallError::Open | CallError::ProbeBusy) => 0,
            Err(CallError::Inner(f)) if f.is_free() => 0,
            // Where nobody told how much it took, the estimate stands.
            _ => seen.map_or(estimate, Usage::total),
        };
        if let Err(e) = budget::settle(&self.store, link.name, estimate, taken).await {
            tracing::warn!(provider = %link.name, error = %e, "the token budget keeps an estimate");
        }
        Ok(result.map_err(|e| Stop { usage: seen.unwrap_or_default(), ..Stop::of(e, link.limits.timeout) }))
    }
}

/// The answer is whole, and the caller accepts it.
fn check<T>(answer: &Answer, accept: impl Fn(&str) -> Result<T, Rejection>) -> Result<T, Failure> {
    match &answer.finish {
        Finish::Stop => Ok(accept(&answer.text)?),
        Finish::Length => Err(Failure::Truncated),
        Finish::Other(why) => Err(Failure::Declined(why.clone())),
    }
}

impl<T> Asked<T> {
    fn count(&mut self, link: &Link, result: AttemptResult, outcome: Said, usage: Usage, took: Duration) {
        let name = link.name.as_str();
        metrics::LLM_ATTEMPTS.with_label_values(&[name, result.as_str()]).inc();
        metrics::LLM_SECONDS.with_label_values(&[name]).observe(took.as_secs_f64());
        for (direction, tokens) in [("in", usage.tokens_in), ("out", usage.tokens_out)] {
            metrics::LLM_TOKENS.with_label_values(&[name, direction]).inc_by(tokens);
        }
        self.tokens_in += usage.tokens_in;
        self.tokens_out += usage.tokens_out;
        let (price_in, price_out) = (link.limits.price_in, link.limits.price_out);
        self.cost_usd += (usage.tokens_in as f64 * price_in + usage.tokens_out as f64 * price_out) / 1e6;
        let latency_ms = took.as_millis() as u64;
        self.attempts.push(Attempt { tier: link.tier, provider: name.into(), outcome, latency_ms });
    }
}

impl Usage {
    fn of(answer: &Answer) -> Self {
        Self { tokens_in: answer.tokens_in, tokens_out: answer.tokens_out }
    }
    fn total(self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }
}

impl Stop {
    fn new(result: AttemptResult, text: impl Into<Said>) -> Self {
        Self { result, text: text.into(), usage: Usage::default() }
    }
    fn of(e: CallError<Failure>, limit: Duration) -> Self {
        match e {
            CallError::Inner(f) => Self::new(f.result(), f.said()),
            // What was left after waiting for a place is not a number that anybody set.
            CallError::Timeout(_) => {
                Self::new(AttemptResult::TimedOut, Phrase::TimedOut { after: Span(limit) })
            }
            CallError::Open => Self::new(AttemptResult::CircuitOpen, Phrase::CircuitOpen {}),
            CallError::ProbeBusy => Self::new(AttemptResult::CircuitOpen, Phrase::CircuitHalfOpen {}),
        }
    }
}
