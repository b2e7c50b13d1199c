//! Prometheus' HTTP API, as far as it is used: instant and range queries, and the expressions of its alerting rules. Hands
//! its answers to steps, evidence and watches, with its errors told apart and in the same words.
//!
//! A query is always one parameter, never a part of a URL's text. Callers bound the time, by the breaker or by themselves.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};

use crate::{config, model::Labels, redact};

/// Larger answers are refused.
pub const MAX_BODY: usize = 8 << 20;
/// What is kept of an error's text.
const MAX_TEXT: usize = 150;

/// The Prometheus of the settings.
pub struct PrometheusApi<'a> {
    http: &'a reqwest::Client,
    settings: &'a config::Prometheus,
}

/// Why a question was not answered. Each text goes on after "Prometheus", and carries neither URL nor credentials.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    #[error("is not configured (prometheus.url)")]
    NotConfigured,
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It understood, and refuses: the question is wrong, Prometheus is well.
    #[error("refuses the query: {0}")]
    Refused(String),
    #[error("answered {0}: {1}")]
    Status(u16, String),
    #[error("answered with more than {MAX_BODY} bytes")]
    TooLong,
    #[error("gave something else than {0}")]
    WrongType(&'static str),
    #[error("gave an answer that its API does not promise: {0}")]
    Answer(String),
}

impl ApiError {
    /// Whether Prometheus is unwell, rather than our question or our credentials wrong: what a breaker counts.
    pub fn is_its_fault(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Status(500.., _) | Self::Answer(_))
    }

    /// Whether less may be had: the answer is too long, or beyond what Prometheus may load for one (`--query.max-samples`).
    pub fn is_too_much(&self) -> bool {
        match self {
            Self::TooLong => true,
            Self::Refused(why) => why.contains("too many samples"),
            _ => false,
        }
    }
}

/// A series with its value at one time: seconds since the epoch, and the number as Prometheus writes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sample {
    pub metric: Labels,
    pub value: (f64, String),
}

/// A series over time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Series {
    pub metric: Labels,
    pub values: Vec<(f64, String)>,
}

impl Series {
    /// It has the name of a metric, as what was scraped does, and what is computed does not.
    pub fn is_scraped(&self) -> bool {
        self.metric.contains_key("__name__")
    }
}

impl From<Sample> for Series {
    fn from(Sample { metric, value }: Sample) -> Self {
        Self { metric, values: vec![value] }
    }
}

/// What a range query asks: seconds since the epoch, and between two points.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub start: i64,
    pub end: i64,
    pub step: u64,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
    Matrix(Vec<Series>),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    query: String,
}

impl<'a> PrometheusApi<'a> {
    pub fn new(http: &'a reqwest::Client, settings: &'a config::Prometheus) -> Self {
        Self { http, settings }
    }

    /// The query's value now: a vector, or a scalar as a vector of one without labels.
    pub async fn instant(&self, query: &str) -> Result<Vec<Sample>, ApiError> {
        let request = self.http.post(self.url("/api/v1/query")?).form(&[("query", query)]);
        vector(self.ask(request).await?)
    }

    /// The query's values over time.
    pub async fn range(&self, query: &str, span: Span) -> Result<Vec<Series>, ApiError> {
        let (start, end, step) = (span.start.to_string(), span.end.to_string(), span.step.to_string());
        let form = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        match self.ask(self.http.post(self.url("/api/v1/query_range")?).form(&form)).await? {
            Data::Matrix(series) => Ok(series),
            _ => Err(ApiError::WrongType("a range of values")),
        }
    }

    /// What was scraped of a selector in so many seconds up to `at`, in seconds since the epoch, each sample at its own time:
    /// Prometheus answers [`Self::instant`] and [`Self::range`] with the newest sample of up to five minutes ago, under the time
    /// of the question. What is no selector is refused.
    pub async fn scraped(&self, selector: &str, at: f64, seconds: u64) -> Result<Vec<Series>, ApiError> {
        // The selector has lines of its own, for it may end with a comment.
        let (query, at) = (format!("{selector}\n[{seconds}s]"), at.to_string());
        let form = [("query", query.as_str()), ("time", &at)];
        match self.ask(self.http.post(self.url("/api/v1/query")?).form(&form)).await? {
            Data::Matrix(series) => Ok(series),
            _ => Err(ApiError::WrongType("samples")),
        }
    }

    /// The expressions of the alerting rules that have one of these names.
    pub async fn rules(&self, names: &[&str]) -> Result<BTreeSet<String>, ApiError> {
        let names = names.iter().map(|name| ("rule_name[]", *name));
        let parameters: Vec<_> = std::iter::once(("type", "alert")).chain(names).collect();
        let request = self.http.get(self.url("/api/v1/rules")?).query(&parameters);
        let Groups { groups } = self.ask(request).await?;
        Ok(groups.into_iter().flat_map(|g| g.rules).map(|r| r.query).collect())
    }

    fn url(&self, path: &str) -> Result<String, ApiError> {
        match self.settings.url.trim_end_matches('/') {
            "" => Err(ApiError::NotConfigured),
            base => Ok(format!("{base}{path}")),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ApiError> {
        let mut response = self.settings.auth.apply(request).send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(ApiError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        read(status, &body)
    }
}

fn vector(data: Data) -> Result<Vec<Sample>, ApiError> {
    match data {
        Data::Vector(samples) => Ok(samples),
        Data::Scalar(value) => Ok(vec![Sample { metric: Labels::new(), value }]),
        Data::Matrix(_) | Data::String(_) => Err(ApiError::WrongType("an instant vector or a scalar")),
    }
}

fn read<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T, ApiError> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        data: T,
    }
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    if (200..300).contains(&status) {
        let envelope = serde_json::from_slice::<Envelope<T>>(body);
        return envelope.map(|e| e.data).map_err(|e| ApiError::Answer(brief(&e.to_string())));
    }
    let said = serde_json::from_slice(body).ok().map(|r: Refusal| brief(&r.error));
    match (status, said) {
        (400 | 422, Some(said)) => Err(ApiError::Refused(said)),
        (_, Some(said)) => Err(ApiError::Status(status, said)),
        (_, None) => {
            let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
            Err(ApiError::Status(status, reason.unwrap_or("no reason given").to_owned()))
        }
    }
}

/// The innermost cause says what happened; those around it say that something did.
fn unreachable(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    let mut inner: &dyn std::error::Error = &error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    ApiError::Unreachable(brief(&inner.to_string()))
}

/// One line, masked before it is cut.
fn brief(text: &str) -> String {
    let line: String = redact::mask(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    redact::cut(line.trim(), MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn instant(status: u16, body: &[u8]) -> Result<Vec<Sample>, ApiError> {
        vector(read(status, body)?)
    }

    #[test]
    fn answers_are_read_as_the_api_promises() {
        let found = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a"},"value":[1795255200.5,"1"]},{"metric":{},"value":[1,"NaN"]}]}}"#;
        assert_eq!(instant(200, found).expect("a vector").len(), 2);
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1795255200,"3"]}}"#;
        assert_eq!(instant(200, scalar).expect("a scalar")[0].value.1, "3");
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert_eq!(instant(200, matrix), Err(ApiError::WrongType("an instant vector or a scalar")));
    }

    #[test]
    fn errors_say_whose_fault_it_is() {
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        let told = |status, body| {
            let error = instant(status, body).expect_err("no answer");
            (error.is_its_fault(), error.to_string())
        };
        assert_eq!(told(400, refused), (false, "refuses the query: parse error".into()));
        assert_eq!(told(503, refused), (true, "answered 503: parse error".into()));
        assert_eq!(told(401, b"<html>"), (false, "answered 401: Unauthorized".into()));
        assert_eq!(told(400, b"<html>"), (false, "answered 400: Bad Request".into()));
        let (its, text) = told(200, b"<html>");
        assert!(its && text.starts_with("gave an answer that its API does not promise: "), "{text}");
        let secret = br#"{"status":"error","error":"near\n password=hunter2hunter2"}"#;
        assert_eq!(told(422, secret).1, "refuses the query: near  password=***");
    }

    /// Answers one request with these bytes; gives what was asked.
    async fn once(answer: Vec<u8>) -> (config::Prometheus, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a request");
            let mut seen = vec![0; 64 << 10];
            let mut length = 0;
            while !String::from_utf8_lossy(&seen[..length]).contains("query=") {
                length += socket.read(&mut seen[length..]).await.expect("readable");
            }
            // The reader hangs up when it has had enough.
            let _ = socket.write_all(&answer).await;
            String::from_utf8_lossy(&seen[..length]).into_owned()
        });
        (config::Prometheus { url, ..Default::default() }, asked)
    }

    #[tokio::test]
    async fn a_query_is_one_parameter_whatever_stands_in_it() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (settings, asked) = once(answer.into_bytes()).await;
        let http = crate::http_client::new();
        let found = PrometheusApi::new(&http, &settings).instant("up&time=0#/../ x").await;
        assert_eq!(found, Ok(Vec::new()));
        let asked = asked.await.expect("it was asked");
        assert!(asked.starts_with("POST /api/v1/query HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with("query=up%26time%3D0%23%2F..%2F+x"), "{asked}");
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read_to_its_end() {
        let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        answer.resize(answer.len() + MAX_BODY + 1, b' ');
        let (settings, _asked) = once(answer).await;
        let http = crate::http_client::new();
        assert_eq!(PrometheusApi::new(&http, &settings).instant("up").await, Err(ApiError::TooLong));
    }

    #[tokio::test]
    async fn nobody_there_is_told_without_the_url() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://ann:hunter2@{}", listener.local_addr().expect("bound"));
        drop(listener);
        let http = crate::http_client::new();
        let settings = config::Prometheus { url, ..Default::default() };
        let error = PrometheusApi::new(&http, &settings).instant("up").await.expect_err("nobody is there");
        let text = error.to_string();
        assert!(error.is_its_fault() && text.starts_with("cannot be reached: Connection refused"), "{text}");
        let nowhere = config::Prometheus::default();
        let error = PrometheusApi::new(&http, &nowhere).instant("up").await;
        assert_eq!(error, Err(ApiError::NotConfigured));
    }
}
