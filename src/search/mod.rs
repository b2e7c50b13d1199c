//! Log search: one interface over Elasticsearch and OpenSearch (`elastic`) and over the lines that came through our own intake
//! (`lite`, SQLite FTS5), for people, chats and diagnoses. What it hands on is masked, bounded and one line a message.
//!
//! A question is a typed structure. Whatever a person or a log line contributes is a value in it, and becomes no part of a query
//! language: words are words, and `*` is an asterisk.

pub mod elastic;
mod lite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    breaker::Breakers,
    clock,
    config::Settings,
    metrics,
    model::{LogLevel, LogRecord, Phrase, Said, Span},
    redact,
};

pub use lite::{FILE as KEPT_FILE, Lite, Picked, Sink, each_kept};

crate::model::words!(
    /// Who is asked; a metric label.
    Backend {
        Sqlite = "sqlite",
        Elasticsearch = "elasticsearch",
    }
);

/// Bytes of a message that are handed on.
pub const MAX_MESSAGE: usize = 4096;
/// Lines of one page at most.
pub const MAX_LINES: usize = 1000;

/// Which lines are wanted: all that is given must fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub service: Option<String>,
    /// Half open.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Words that all occur in the message, in any order and in any case. Empty: any message.
    pub text: String,
    /// This level and worse.
    pub level: Option<LogLevel>,
    pub trace: Option<String>,
    /// At most so many, and at most [`MAX_LINES`].
    pub limit: usize,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl Wanted {
    /// Everything between two times.
    pub fn between(from: Timestamp, to: Timestamp) -> Self {
        let limit = 100;
        Self { service: None, from, to, text: String::new(), level: None, trace: None, limit, cursor: None }
    }
}

/// One log line that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// None: it named no level that we know.
    pub level: Option<LogLevel>,
    /// Secrets masked, at most 4,096 bytes.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// One page of lines, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// Where the next page begins.
    pub next: Option<String>,
    /// What the answer leaves out although it was asked for.
    pub gaps: Vec<Said>,
}

/// Two stretches of time that meet at `onset`: what is usual before it, and what there is since.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Around {
    pub from: Timestamp,
    pub onset: Timestamp,
    pub to: Timestamp,
}

impl Around {
    pub fn before(&self) -> Duration {
        clock::between(self.from, self.onset)
    }
    pub fn since(&self) -> Duration {
        clock::between(self.onset, self.to)
    }
}

/// Lines of one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Count {
    pub lines: u64,
    /// At level error and worse.
    pub errors: u64,
}

/// How many lines there were over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    pub before: Count,
    pub since: Count,
    /// How much of the time before the onset is covered; the records may not reach so far back.
    pub covered: Duration,
    /// The beginning of each step with its lines; empty steps are left out.
    pub steps: Vec<(Timestamp, Count)>,
    pub gaps: Vec<Said>,
}

/// How often a run of words occurs before the onset, and since.
pub type Occurrences = (u64, u64);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The cursor is not one of this backend.
    #[error("the cursor is not one of this list")]
    Cursor,
    /// There is nobody to ask, nobody answers, or the question is refused.
    #[error("{0}")]
    Unavailable(Said),
}

impl From<Phrase> for SearchError {
    fn from(phrase: Phrase) -> Self {
        Self::Unavailable(phrase.into())
    }
}

/// A place where log lines are found. The caller bounds the time.
#[async_trait]
pub trait LogSearch: Send + Sync {
    fn backend(&self) -> Backend;
    async fn lines(&self, wanted: &Wanted) -> Result<Lines, SearchError>;
    /// Lines of a service over time, in steps.
    async fn rate(&self, service: &str, around: Around, step: Duration) -> Result<Rate, SearchError>;
    /// How often each of these runs of words occurs in the service's messages.
    async fn occurrences(
        &self,
        service: &str,
        around: Around,
        texts: &[String],
    ) -> Result<Vec<Occurrences>, SearchError>;
}

/// Log search as the settings make it; cheap to clone. The default has nobody to ask.
#[derive(Clone, Default)]
pub struct Logs {
    search: Option<Arc<dyn LogSearch>>,
    sink: Option<Sink>,
    /// The setting that would bring it.
    missing: &'static str,
}

impl Logs {
    /// Opens what the settings name: Elasticsearch before the embedded index. The second part is what keeps that up to date, to be
    /// run until the end.
    pub async fn open(
        settings: &Settings,
        breakers: &Breakers,
    ) -> anyhow::Result<(Self, Option<lite::Writer>)> {
        if settings.elasticsearch.is_on() {
            let elastic = elastic::Elastic::new(&settings.elasticsearch, breakers)?;
            return Ok((Self::over(Arc::new(elastic)), None));
        }
        if !settings.store.url.is_empty() {
            // A file beside each replica would show one replica's share of the lines as if it were all of them.
            return Ok((Self { missing: "elasticsearch.urls", ..Self::default() }, None));
        }
        if !settings.logs.keep {
            return Ok((Self { missing: "logs.keep", ..Self::default() }, None));
        }
        let (lite, sink, writer) = Lite::open(&settings.data_dir, &settings.logs).await?;
        Ok((Self { search: Some(Arc::new(lite)), sink: Some(sink), missing: "" }, Some(writer)))
    }

    /// Nothing is kept, and nothing is searched.
    pub fn none() -> Self {
        Self { missing: "logs.keep", ..Self::default() }
    }

    /// Over one backend alone.
    pub fn over(search: Arc<dyn LogSearch>) -> Self {
        Self { search: Some(search), sink: None, missing: "" }
    }

    pub fn backend(&self) -> Option<Backend> {
        self.search.as_ref().map(|s| s.backend())
    }

    /// Chooses which of these lines will be kept, if any are; they are kept by [`Picked::keep`].
    pub fn pick(&self, records: &[LogRecord]) -> Picked {
        self.sink.as_ref().map_or_else(Picked::default, |sink| sink.pick(records))
    }

    /// For `/api/v1/status`.
    pub fn report(&self) -> serde_json::Value {
        match (&self.search, &self.sink) {
            (None, _) => serde_json::json!({ "backend": null, "missing": self.missing }),
            (Some(search), sink) => serde_json::json!({
                "backend": search.backend(),
                "kept": sink.as_ref().map(Sink::report),
            }),
        }
    }

    /// One page, the newest first.
    pub async fn lines(&self, wanted: &Wanted, within: Duration) -> Result<Lines, SearchError> {
        let wanted = Wanted { limit: wanted.limit.clamp(1, MAX_LINES), ..wanted.clone() };
        let search = self.search()?;
        let mut found = ask(search.backend(), within, search.lines(&wanted)).await?;
        found.lines.iter_mut().for_each(tidy);
        Ok(found)
    }

    pub async fn rate(
        &self,
        service: &str,
        around: Around,
        step: Duration,
        within: Duration,
    ) -> Result<Rate, SearchError> {
        let search = self.search()?;
        ask(search.backend(), within, search.rate(service, around, step)).await
    }

    pub async fn occurrences(
        &self,
        service: &str,
        around: Around,
        texts: &[String],
        within: Duration,
    ) -> Result<Vec<Occurrences>, SearchError> {
        let search = self.search()?;
        ask(search.backend(), within, search.occurrences(service, around, texts)).await
    }

    fn search(&self) -> Result<&dyn LogSearch, SearchError> {
        let missing = || Phrase::NotConfigured { setting: self.missing.into() };
        self.search.as_deref().ok_or_else(|| missing().into())
    }
}

async fn ask<T>(
    backend: Backend,
    within: Duration,
    question: impl Future<Output = Result<T, SearchError>>,
) -> Result<T, SearchError> {
    let asked = tokio::time::timeout(within, question).await;
    let answer = asked.unwrap_or_else(|_| Err(Phrase::TimedOut { after: Span(within) }.into()));
    let result = match &answer {
        Ok(_) => "ok",
        Err(SearchError::Cursor) => "refused",
        Err(SearchError::Unavailable(_)) => "failed",
    };
    metrics::LOG_SEARCHES.with_label_values(&[backend.as_str(), result]).inc();
    answer
}

/// Masked, then cut: a cut secret may no longer look like one. One line, nothing in it that steers a terminal.
fn tidy(line: &mut Line) {
    line.message = one_line(&line.message, MAX_MESSAGE);
    line.service = one_line(&line.service, 200);
    line.host = one_line(&line.host, 200);
    line.trace_id = line.trace_id.take().map(|id| one_line(&id, 100));
}

fn one_line(text: &str, max: usize) -> String {
    let masked = redact::mask(text);
    redact::cut(&masked, max).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
