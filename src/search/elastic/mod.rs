//! Elasticsearch and OpenSearch: log search where the logs are, and indices for our own records. The only module that knows the
//! client library.
//!
//! Pages are cut by `search_after` over the time alone, with the ids that were shown of the last moment left out: a point in time
//! (`_pit`) is Elasticsearch's alone, and would not survive a restart.

mod answer;
mod bulk;
mod query;
mod setup;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use elasticsearch::{
    Elasticsearch,
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method, Url,
        headers::{CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, TransportBuilder},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Around, Backend, Lines, LogSearch, Occurrences, Rate, SearchError, Wanted};
use crate::{
    breaker::{Breakers, CallError, Dependency},
    config,
    model::{Phrase, Said, Span},
    redact,
};
pub use bulk::{Document, Put};
pub use setup::{FieldState, Part, PartState, Server, keyword_of};

/// Larger answers are not read.
const MAX_BODY: usize = 32 << 20;
const MAX_TEXT: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);
/// Ids of one moment that a cursor carries; of a moment with more lines, the rest is left out and told.
const MAX_SKIP: usize = 200;

/// Why a call gave no value. Texts go on after "Elasticsearch" and carry no credentials.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ElasticError {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It understood, and refuses.
    #[error("answered {0}: {1}")]
    Status(u16, String),
    #[error("answered with more than {MAX_BODY} bytes")]
    TooLong,
    #[error("gave an answer that its API does not promise: {0}")]
    Answer(String),
}

impl ElasticError {
    /// Whether it is unwell or overloaded, rather than our question wrong: what a breaker counts.
    fn is_its_fault(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Answer(_) | Self::Status(429 | 500.., _))
    }
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status(404, _))
    }
}

/// The Elasticsearch of the settings; cheap to clone.
#[derive(Clone)]
pub struct Elastic {
    nodes: Arc<[Elasticsearch]>,
    /// The node that answered last.
    current: Arc<AtomicUsize>,
    settings: Arc<config::Elasticsearch>,
    breakers: Breakers,
}

impl Elastic {
    /// Reads the certificate file; reaches nobody.
    pub fn new(settings: &config::Elasticsearch, breakers: &Breakers) -> anyhow::Result<Self> {
        crate::http_client::install_tls();
        let nodes =
            settings.urls.iter().map(|url| node(url, settings)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            nodes: nodes.into(),
            current: Arc::default(),
            settings: Arc::new(settings.clone()),
            breakers: breakers.clone(),
        })
    }

    /// For requests that nobody waits for and that write much: they may take longer.
    pub fn patient(mut self) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        settings.timeout = settings.timeout.max(PATIENCE);
        self
    }

    /// A call through the breaker, within the settings' timeout.
    async fn guarded<T>(
        &self,
        call: impl Future<Output = Result<T, ElasticError>>,
    ) -> Result<T, CallError<ElasticError>> {
        let breaker = self.breakers.of(Dependency::Elasticsearch);
        breaker.call(self.settings.timeout, ElasticError::is_its_fault, call).await
    }

    /// Asks the node that answered last, then the others, if it cannot be reached: what is asked may be asked twice.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Bytes)>,
    ) -> Result<T, ElasticError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut last = ElasticError::Unreachable("there is no node".into());
        for turn in 0..self.nodes.len() {
            let index = (first + turn) % self.nodes.len();
            match self.ask(&self.nodes[index], method, path, query, body.clone()).await {
                Err(e @ ElasticError::Unreachable(_)) => last = e,
                answer => {
                    self.current.store(index, Ordering::Relaxed);
                    let bytes = answer?;
                    return serde_json::from_slice(&bytes)
                        .map_err(|e| ElasticError::Answer(brief(&e.to_string())));
                }
            }
        }
        Err(last)
    }

    async fn ask(
        &self,
        node: &Elasticsearch,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Bytes, ElasticError> {
        let mut headers = HeaderMap::new();
        if let Some((kind, _)) = &body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let body = body.map(|(_, bytes)| bytes);
        let timeout = Some(self.settings.timeout);
        let answer =
            node.send(method, path, headers, Some(query), body, timeout).await.map_err(unreachable)?;
        let status = answer.status_code().as_u16();
        let too_long = |length: u64| length > MAX_BODY as u64;
        if answer.content_length().is_some_and(too_long) {
            return Err(ElasticError::TooLong);
        }
        let bytes = answer.bytes().await.map_err(unreachable)?;
        match status {
            200..300 if too_long(bytes.len() as u64) => Err(ElasticError::TooLong),
            200..300 => Ok(bytes),
            status => Err(ElasticError::Status(status, refusal(&bytes))),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ElasticError> {
        self.call(method, path, &[], Some((JSON, json(body)))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ElasticError> {
        self.call(Method::Get, path, &[], None).await
    }

    /// Asks the log indices. Those that are not there are no error, and none at all is a gap.
    async fn search(&self, mut body: query::Search<'_>) -> Result<answer::Answer, SearchError> {
        // It stops a little before we would stop waiting, and gives what it has.
        body.timeout = format!("{}ms", (self.settings.timeout * 9 / 10).as_millis());
        let path = format!("{}/_search", encoded(&self.settings.logs.index));
        let options = [("ignore_unavailable", "true"), ("allow_no_indices", "true")];
        let call = self.call(Method::Post, &path, &options, Some((JSON, json(&body))));
        self.guarded(call).await.map_err(|e| why(e).into())
    }
}

const JSON: &str = "application/json";

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("queries and documents serialise to JSON").into()
}

fn node(url: &str, settings: &config::Elasticsearch) -> anyhow::Result<Elasticsearch> {
    let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(Url::parse(url)?))
        .disable_proxy()
        .enable_meta_header(false);
    let auth = &settings.auth;
    if !auth.api_key.is_empty() {
        transport = transport.auth(Credentials::EncodedApiKey(auth.api_key.expose().to_owned()));
    } else if !auth.user.is_empty() {
        transport = transport.auth(Credentials::Basic(auth.user.clone(), auth.password.expose().to_owned()));
    }
    if !settings.ca_file.as_os_str().is_empty() {
        let at = || format!("elasticsearch.ca_file: {}", settings.ca_file.display());
        let pem = std::fs::read(&settings.ca_file).with_context(at)?;
        let certificates = Certificate::from_pem(&pem).with_context(at)?;
        transport = transport.cert_validation(CertificateValidation::Full(certificates));
    }
    Ok(Elasticsearch::new(transport.build().context("elasticsearch")?))
}

/// A name in a path: a colon would make it another server's URL.
fn encoded(name: &str) -> String {
    name.replace(':', "%3A").replace('+', "%2B")
}

#[async_trait]
impl LogSearch for Elastic {
    fn backend(&self) -> Backend {
        Backend::Elasticsearch
    }

    async fn lines(&self, wanted: &Wanted) -> Result<Lines, SearchError> {
        let cursor = wanted.cursor.as_deref().map(Cursor::read).transpose()?;
        let (after, skip) = cursor.map_or((None, Vec::new()), |c| (Some(c.after), c.skip));
        let fields = &self.settings.logs.fields;
        let answer = self.search(query::lines(fields, wanted, after, &skip)).await?;
        let mut gaps = answer.gaps(&self.settings.logs.index);
        let mut hits = answer.hits.hits;
        let more = hits.len() > wanted.limit;
        hits.truncate(wanted.limit);
        let next = if more { Cursor::after(&hits, after, skip, &mut gaps) } else { None };
        let lines = hits.into_iter().filter_map(|hit| hit.line(fields)).collect();
        Ok(Lines { lines, next: next.map(|c| c.text()), gaps })
    }

    async fn rate(&self, service: &str, around: Around, step: Duration) -> Result<Rate, SearchError> {
        let answer = self.search(query::rate(&self.settings.logs.fields, service, around, step)).await?;
        let gaps = answer.gaps(&self.settings.logs.index);
        if answer.is_of_nobody() {
            return Ok(Rate { gaps, ..Rate::default() });
        }
        answer.rate(around, gaps).ok_or_else(no_aggregation)
    }

    async fn occurrences(
        &self,
        service: &str,
        around: Around,
        texts: &[String],
    ) -> Result<Vec<Occurrences>, SearchError> {
        let fields = &self.settings.logs.fields;
        let answer = self.search(query::occurrences(fields, service, around, texts)).await?;
        if answer.is_of_nobody() {
            return Ok(vec![(0, 0); texts.len()]);
        }
        answer.occurrences().ok_or_else(no_aggregation)
    }
}

fn no_aggregation() -> SearchError {
    Phrase::AnswerNotPromised { why: "it holds no aggregation".into() }.into()
}

/// Where a page ends: everything under `after` comes, but for those that were shown of the same moment.
#[derive(Deserialize, Serialize)]
struct Cursor {
    after: i64,
    skip: Vec<String>,
}

impl Cursor {
    /// After these hits. `search_after` leaves out what is equal to its value, so it is one more than the last moment.
    fn after(
        hits: &[answer::Hit],
        before: Option<i64>,
        shown: Vec<String>,
        gaps: &mut Vec<Said>,
    ) -> Option<Self> {
        let last = hits.last()?.sorted_by()?;
        let after = last.checked_add(1)?;
        let mut skip = if before == Some(after) { shown } else { Vec::new() };
        skip.extend(hits.iter().filter(|h| h.sorted_by() == Some(last)).map(|h| h.id.clone()));
        if skip.len() > MAX_SKIP {
            gaps.push(Phrase::MomentCutShort { most: MAX_SKIP as i64 }.into());
            return Some(Self { after: last, skip: Vec::new() });
        }
        Some(Self { after, skip })
    }

    fn text(&self) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        URL_SAFE_NO_PAD.encode(json(self))
    }

    fn read(text: &str) -> Result<Self, SearchError> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SearchError::Cursor)?;
        let cursor: Self = serde_json::from_slice(&bytes).map_err(|_| SearchError::Cursor)?;
        if cursor.skip.len() > MAX_SKIP { Err(SearchError::Cursor) } else { Ok(cursor) }
    }
}

/// The same words as the errors' own, so that they can be said in Russian.
fn why(error: CallError<ElasticError>) -> Phrase {
    match error {
        CallError::Open => Phrase::CircuitOpen {},
        CallError::ProbeBusy => Phrase::CircuitHalfOpen {},
        CallError::Timeout(after) => Phrase::TimedOut { after: Span(after) },
        CallError::Inner(ElasticError::Unreachable(why)) => Phrase::Unreachable { why },
        CallError::Inner(ElasticError::Status(429, why)) => Phrase::RateLimited { why },
        CallError::Inner(ElasticError::Status(400, why)) => Phrase::RefusesQuery { why },
        CallError::Inner(ElasticError::Status(401 | 403, why)) => Phrase::RefusesOurKey { why },
        CallError::Inner(ElasticError::Status(status, said)) => {
            Phrase::AnsweredBadly { status: status.to_string(), said }
        }
        CallError::Inner(ElasticError::TooLong) => Phrase::AnswerTooLong { bytes: MAX_BODY as i64 },
        CallError::Inner(ElasticError::Answer(why)) => Phrase::AnswerNotPromised { why },
    }
}

/// The innermost cause says what happened; those around it say that something did, and where.
fn unreachable(error: elasticsearch::Error) -> ElasticError {
    let mut inner: &dyn std::error::Error = &error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    ElasticError::Unreachable(brief(&inner.to_string()))
}

/// The reason in an error's body: the root cause's, which says what the outer one only announces.
fn refusal(body: &[u8]) -> String {
    let error: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &error["error"];
    let root = &error["root_cause"][0];
    let said = [&root["reason"], &error["reason"], error].into_iter().find_map(|v| v.as_str());
    let kind = [&root["type"], &error["type"]].into_iter().find_map(|v| v.as_str()).unwrap_or_default();
    match said {
        Some(said) if kind.is_empty() => brief(said),
        Some(said) => brief(&format!("{kind}: {said}")),
        None => "no reason given".into(),
    }
}

/// One line, masked before it is cut.
fn brief(text: &str) -> String {
    let line: String = redact::mask(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    redact::cut(line.trim(), MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_others_are_refused() {
        let cursor = Cursor { after: 1_800_000_000_001, skip: vec!["a".into(), "b".into()] };
        let read = Cursor::read(&cursor.text()).expect("ours");
        assert_eq!((read.after, read.skip), (cursor.after, cursor.skip));
        for wrong in ["", "zzz", "e30", "1.2"] {
            assert!(matches!(Cursor::read(wrong), Err(SearchError::Cursor)), "{wrong}");
        }
    }

    #[test]
    fn refusals_name_the_root_cause() {
        let body = br#"{"error":{"type":"search_phase_execution_exception","reason":"all shards failed",
            "root_cause":[{"type":"query_shard_exception","reason":"failed, token=s3cr3tvalue"}]},"status":400}"#;
        assert_eq!(refusal(body), "query_shard_exception: failed, token=***");
        assert_eq!(refusal(b"<html>"), "no reason given");
        assert_eq!(refusal(br#"{"error":"no handler found for uri"}"#), "no handler found for uri");
    }
}
