//! PromQL watches: puts configured questions to Prometheus again and again and hands the answers to the bus as samples.
//!
//! No answer, an empty one and one without numbers are a [`Gap`]: what the watch would have shown is unknown, and diagnoses
//! of the service say so until it answers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    logs, metrics as pushed,
    telemetry::{self, Kind, Parsed},
    timestamps::{self, Time},
};
use crate::{
    breaker::{Breakers, CallError, Dependency},
    bus::{Bus, Record},
    clock,
    config::{Prometheus, Watch},
    metrics,
    model::{Gap, Sample},
};

/// What the watches need.
#[derive(Clone)]
pub struct Deps {
    pub http: reqwest::Client,
    pub prometheus: Prometheus,
    pub breakers: Breakers,
    pub bus: Bus,
}

crate::model::words!(
    /// What became of one question; a metric label.
    Pull {
        Answered = "answered",
        Empty = "empty",
        Failed = "failed",
    }
);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// Prometheus understood, and refuses: our query is wrong, Prometheus is well.
    #[error("Prometheus refuses the query: {0}")]
    Query(String),
    #[error("Prometheus answered {0}")]
    Status(u16),
    #[error("asking Prometheus: {0}")]
    Transport(#[from] reqwest::Error),
    #[error("Prometheus' answer is not what its API promises: {0}")]
    Answer(String),
}

/// An answer larger than this is an error, not a watch.
const MAX_ANSWER: usize = 4 << 20;

/// Asks every watch at its pace until cancelled.
pub async fn run(deps: Deps, watches: Vec<Watch>, cancel: CancellationToken) {
    let mut tasks = JoinSet::new();
    for watch in watches {
        let (mut puller, cancel) = (Puller::new(deps.clone(), watch), cancel.clone());
        tasks.spawn(async move {
            let mut turns = tokio::time::interval(puller.watch.every);
            turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    _ = turns.tick() => puller.pull().await,
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!(error = %e, "a watch panicked; its question is not asked any more");
        }
    }
}

/// One watch with what it has heard so far.
pub struct Puller {
    deps: Deps,
    watch: Watch,
    /// Services that have answered before: whose silence can be missed.
    known: BTreeSet<String>,
    /// Whom a gap was reported for; none stands for everybody, as long as nobody is known.
    missing: BTreeMap<Option<String>, Timestamp>,
}

impl Puller {
    pub fn new(deps: Deps, watch: Watch) -> Self {
        let known = Some(watch.service.clone()).filter(|s| !s.is_empty()).into_iter().collect();
        Self { deps, watch, known, missing: BTreeMap::new() }
    }

    /// Asks once and publishes the answer, or that there is none.
    pub async fn pull(&mut self) {
        let now = clock::now();
        let (result, why) = match self.ask().await {
            Ok(answer) => {
                let parsed = self.samples(answer, now);
                let heard: BTreeSet<String> = parsed.records.iter().map(|s| s.service.clone()).collect();
                let result = if heard.is_empty() { Pull::Empty } else { Pull::Answered };
                let why = match parsed.errors.first() {
                    Some(error) => error.reason.clone(),
                    None => "the answer has no series".to_owned(),
                };
                self.publish(parsed, heard, now).await;
                (result, why)
            }
            Err(e) => (Pull::Failed, e.to_string()),
        };
        metrics::WATCH_PULLS.with_label_values(&[result.as_str()]).inc();
        if result != Pull::Answered {
            self.miss(self.known.clone(), &why, now).await;
        }
    }

    async fn ask(&self) -> Result<Vec<Series>, CallError<AskError>> {
        let ours = |e: &AskError| !matches!(e, AskError::Query(_));
        let timeout = self.deps.prometheus.timeout;
        self.deps.breakers.of(Dependency::Prometheus).call(timeout, ours, self.query(timeout)).await
    }

    async fn query(&self, timeout: Duration) -> Result<Vec<Series>, AskError> {
        let url = format!("{}/api/v1/query", self.deps.prometheus.url.trim_end_matches('/'));
        let request = self.deps.http.get(url).query(&[("query", &self.watch.query)]).timeout(timeout);
        // The URL could carry what people put into it; errors are shown.
        let response = self.deps.prometheus.auth.apply(request).send().await;
        let mut response = response.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(AskError::Answer(format!("longer than {MAX_ANSWER} bytes")));
            }
        }
        answer(response.status().as_u16(), &body)
    }

    fn samples(&self, series: Vec<Series>, now: Timestamp) -> Parsed<Sample> {
        let mut parsed = Parsed { records: vec![], rejected: 0, errors: vec![], replaced: 0, cut: 0 };
        for (index, series) in series.into_iter().enumerate() {
            match self.sample(series, now) {
                Ok(sample) => parsed.records.push(sample),
                Err(reason) => parsed.reject(index, reason),
            }
        }
        parsed
    }

    fn sample(&self, series: Series, now: Timestamp) -> Result<Sample, String> {
        let Series { mut metric, value: (at, value) } = series;
        let named = match self.watch.service_label.as_str() {
            "" => Some(self.watch.service.clone()),
            label => metric.get(label).cloned(),
        };
        let service =
            logs::name(named).ok_or_else(|| format!("a series has no label {}", self.watch.service_label))?;
        metric.remove("__name__");
        let at = match timestamps::read(&super::flatten::Scalar::Float(at)) {
            Time::At(at) => at,
            Time::Vague | Time::Unreadable => now,
        };
        let value = pushed::value(&serde_json::Value::String(value))?;
        Ok(Sample { at, name: self.watch.name.clone(), service, labels: metric, value })
    }

    /// Hands on what was heard, ends the gaps of those who were heard, and reports those who were not.
    async fn publish(&mut self, parsed: Parsed<Sample>, heard: BTreeSet<String>, now: Timestamp) {
        let deps = telemetry::Deps { bus: self.deps.bus.clone() };
        telemetry::accept(&deps, Kind::Watches, parsed).await;
        if heard.is_empty() {
            return;
        }
        let back: Vec<_> =
            self.missing.keys().filter(|s| s.as_ref().is_none_or(|s| heard.contains(s))).cloned().collect();
        for service in back {
            if self.tell(service.clone(), None, now).await {
                self.missing.remove(&service);
            }
        }
        let silent = self.known.difference(&heard).cloned().collect();
        self.miss(silent, "the answer has no series of it", now).await;
        self.known.extend(heard);
    }

    async fn miss(&mut self, services: BTreeSet<String>, why: &str, now: Timestamp) {
        let nobody = self.known.is_empty();
        for service in services.into_iter().map(Some).chain(nobody.then_some(None)) {
            let since = *self.missing.entry(service.clone()).or_insert(now);
            // Told again at every turn, so that a detector that forgot it hears of it.
            self.tell(service, Some(why.to_owned()), since).await;
        }
    }

    /// True if the bus took it; what it did not take is told again at the next turn.
    async fn tell(&self, service: Option<String>, reason: Option<String>, at: Timestamp) -> bool {
        let source = format!("watch {}", self.watch.name);
        let gap = Gap { at, service, source, reason };
        self.deps.bus.publish(vec![Record::Gap(gap)]).await.refused == 0
    }
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// Reads an instant query's answer: a vector, or a scalar as a vector of one.
fn answer(status: u16, body: &[u8]) -> Result<Vec<Series>, AskError> {
    #[derive(Deserialize)]
    #[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
    enum Data {
        Vector(Vec<Series>),
        Scalar((f64, String)),
        Matrix(serde::de::IgnoredAny),
        String(serde::de::IgnoredAny),
    }
    #[derive(Deserialize)]
    struct Wire {
        data: Option<Data>,
        #[serde(default)]
        error: String,
    }
    let wire: Result<Wire, _> = serde_json::from_slice(body);
    match (status, wire) {
        (400 | 422, Ok(wire)) => Err(AskError::Query(wire.error)),
        (200..=299, Ok(wire)) => match wire.data {
            Some(Data::Vector(series)) => Ok(series),
            Some(Data::Scalar(value)) => Ok(vec![Series { metric: BTreeMap::new(), value }]),
            _ => Err(AskError::Query("a watch needs an instant vector or a scalar".into())),
        },
        (200..=299, Err(e)) => Err(AskError::Answer(e.to_string())),
        (status, _) => Err(AskError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_the_api_promises() {
        let vector = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a"},"value":[1795255200.5,"1"]},{"metric":{},"value":[1,"NaN"]}]}}"#;
        assert_eq!(answer(200, vector).expect("a vector").len(), 2);
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1795255200,"3"]}}"#;
        assert_eq!(answer(200, scalar).expect("a scalar")[0].value.1, "3");
        let matrix = br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(matches!(answer(200, matrix), Err(AskError::Query(_))));
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(
            answer(400, refused).err().map(|e| e.to_string()).as_deref(),
            Some("Prometheus refuses the query: parse error")
        );
        assert!(matches!(answer(502, b"<html>"), Err(AskError::Status(502))));
        assert!(matches!(answer(200, b"<html>"), Err(AskError::Answer(_))));
    }
}
