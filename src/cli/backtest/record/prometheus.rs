//! Samples for a recording: what Prometheus would have answered to the watches of the settings, asked as a range instead of
//! again and again.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;

use super::bounds::Bounds;
use crate::{
    config::{self, Settings, Watch},
    http_client,
    intake::watches::{Identities, Identity, News},
    model::Sample,
    prometheus_api::{ApiError, PrometheusApi, Series, Span},
    replay::{Files, Kind, Lines},
};

/// Prometheus refuses more than 11,000 points of a series at a time.
const MOST_STEPS: i64 = 5000;
/// For one answer; the client has a bound of its own at the same time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a question is put to a Prometheus that is unwell.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Default)]
pub struct Recorded {
    pub samples: u64,
    /// Values that are no finite numbers, and values of series that name no service or that only their metric's name tells from
    /// another: a watch does not take them either.
    pub left_out: u64,
    /// Watches to which there was no answer at all.
    pub empty: Vec<String>,
}

/// Writes a file for each watch.
pub async fn record(
    settings: &Settings,
    server: &config::Prometheus,
    (from, to): (Timestamp, Timestamp),
    files: &mut Files,
    bounds: &mut Bounds,
) -> anyhow::Result<Recorded> {
    let http = http_client::new();
    let prometheus = PrometheusApi::new(&http, server);
    let mut all = Recorded::default();
    for watch in &settings.detect.watches {
        let mut file = files.add(Kind::Watches)?;
        file.head(watch)?;
        let asking = || format!("asking Prometheus for the watch {}", watch.name);
        let left_out = one(&prometheus, watch, (from, to), &mut file, bounds).await.with_context(asking)?;
        let samples = file.end()?;
        if samples == 0 {
            all.empty.push(watch.name.clone());
        }
        all.samples += samples;
        all.left_out += left_out;
    }
    Ok(all)
}

/// The answers to one watch, in pieces that are as long as answers may be; how many values were left out.
async fn one(
    prometheus: &PrometheusApi<'_>,
    watch: &Watch,
    (from, to): (Timestamp, Timestamp),
    file: &mut Lines,
    bounds: &mut Bounds,
) -> anyhow::Result<u64> {
    let pace = (watch.every.as_secs_f64().round() as i64).max(1);
    let steps = |at: Timestamp| at.as_millisecond().div_euclid(pace * 1000);
    let (mut start, end) = (steps(from) * pace, (steps(to) + 1) * pace);
    // Seconds of one answer.
    let mut most = MOST_STEPS * pace;
    let mut left_out = 0;
    let (mut asks, mut news) = (Asks::default(), News::default());
    while start < end {
        let step = asks.step(pace);
        let length = most.min(end - start);
        let span = Span { start, end: start + length - step, step: step.unsigned_abs() };
        match bounds.wait(ask(prometheus, &watch.query, span, &mut asks)).await? {
            Ok(series) => {
                let (mut samples, out) = samples(watch, series);
                samples.retain(|sample| (from..to).contains(&sample.at) && news.is(sample));
                bounds.take(samples.len() as u64)?;
                samples.iter().try_for_each(|sample| file.add(sample))?;
                left_out += out;
                start += length;
            }
            // For good: each answer that is too long is a long one.
            Err(Refused::TooMuch(_)) if length > asks.step(pace) => {
                let step = asks.step(pace);
                most = (length / step / 2 * step).max(step);
            }
            Err(Refused::TooMuch(why) | Refused::For(why)) => return Err(why),
        }
    }
    Ok(left_out)
}

/// What a query asks for, once answers have shown what it is.
#[derive(Clone, Copy, Default, PartialEq)]
enum Asks {
    #[default]
    Unknown,
    /// What is computed at each step.
    Values,
    /// What was scraped, whenever that was.
    Scraped,
}

impl Asks {
    /// Seconds that an answer is about at least.
    fn step(self, pace: i64) -> i64 {
        if self == Self::Scraped { 1 } else { pace }
    }

    /// Asks for the values at the steps of the span, or for what was scraped from its start until a step behind its end.
    async fn put(
        self,
        prometheus: &PrometheusApi<'_>,
        query: &str,
        span: Span,
    ) -> Result<Vec<Series>, ApiError> {
        match self {
            // What is there only behind the last step shows what it is too.
            Self::Unknown => {
                return prometheus.range(query, Span { end: span.end + span.step as i64, ..span }).await;
            }
            Self::Values => return prometheus.range(query, span).await,
            Self::Scraped => {}
        }
        let (start, end) = (span.start as f64, (span.end + span.step as i64) as f64);
        // A second too much: whether a range's beginning belongs to it depends on the version.
        let mut answer = prometheus.scraped(query, end, (end - start) as u64 + 1).await?;
        for series in &mut answer {
            series.values.retain(|(at, _)| (start..end).contains(at));
        }
        Ok(answer)
    }

    /// Learns from an answer. Whether to ask again, in another way.
    fn again(&mut self, answer: &Result<Vec<Series>, ApiError>) -> bool {
        let (asks, again) = match (*self, answer) {
            (Self::Unknown, Ok(series)) if series.is_empty() => (Self::Unknown, false),
            (Self::Unknown, Ok(series)) if series.iter().all(Series::is_scraped) => (Self::Scraped, true),
            (Self::Unknown, Ok(_)) => (Self::Values, false),
            // No selector, though what it computes has names.
            (Self::Scraped, Err(error @ (ApiError::Refused(_) | ApiError::WrongType(_))))
                if !error.is_too_much() =>
            {
                (Self::Values, true)
            }
            (asks, _) => (asks, false),
        };
        *self = asks;
        again
    }
}

/// Why there is no answer.
enum Refused {
    /// To a shorter time there may be one.
    TooMuch(anyhow::Error),
    For(anyhow::Error),
}

/// Asks, and again if Prometheus is unwell.
async fn ask(
    prometheus: &PrometheusApi<'_>,
    query: &str,
    span: Span,
    asks: &mut Asks,
) -> Result<Vec<Series>, Refused> {
    let mut tries = 1;
    loop {
        let asked = tokio::time::timeout(PATIENCE, asks.put(prometheus, query, span)).await;
        let Ok(answer) = asked else {
            let patience = humantime::format_duration(PATIENCE);
            return Err(Refused::TooMuch(anyhow!("Prometheus gave no answer within {patience}")));
        };
        if asks.again(&answer) {
            continue;
        }
        match answer {
            Ok(series) => return Ok(series),
            Err(error) if error.is_too_much() => return Err(Refused::TooMuch(anyhow!("Prometheus {error}"))),
            Err(error) if error.is_its_fault() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(Refused::For(anyhow!("Prometheus {error}"))),
        }
    }
}

/// The samples of an answer in the order of their times, and how many values are none.
fn samples(watch: &Watch, series: Vec<Series>) -> (Vec<Sample>, u64) {
    let (mut all, mut left_out) = (Vec::new(), 0);
    let mut identities = Identities::default();
    for Series { metric, values } in series {
        let Ok(Identity { service, name, labels }) = identities.next(watch, metric) else {
            left_out += values.len() as u64;
            continue;
        };
        for (at, text) in values {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
            let at = Timestamp::from_millisecond((at * 1000.0).round() as i64).ok();
            match (value, at) {
                (Some(value), Some(at)) => all.push(Sample {
                    at,
                    name: name.clone(),
                    service: service.clone(),
                    labels: labels.clone(),
                    value,
                }),
                _ => left_out += 1,
            }
        }
    }
    // Stable: series stay in the order of the answer.
    all.sort_by_key(|sample| sample.at);
    (all, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_time_and_what_is_none_is_counted() {
        let watch: Watch =
            serde_json::from_str(r#"{"name":"p99","query":"q","service_label":"job"}"#).expect("a watch");
        let series = |labels: &str, values: &[(f64, &str)]| Series {
            metric: serde_json::from_str(labels).expect("labels"),
            values: values.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
        };
        let answer = vec![
            series(
                r#"{"__name__":"x","job":"shop","code":"500"}"#,
                &[(10.0, "1"), (20.0, "NaN"), (30.5, "2e3")],
            ),
            series(r#"{"job":"pay"}"#, &[(10.0, "-3"), (30.0, "+Inf")]),
            series("{}", &[(10.0, "1"), (20.0, "1")]),
            series(r#"{"__name__":"y","job":"shop","code":"500"}"#, &[(10.0, "7")]),
        ];
        let (samples, left_out) = samples(&watch, answer);
        assert_eq!(left_out, 5, "two that are not finite, two of no service, and one of another metric");
        let told: Vec<String> = samples
            .iter()
            .map(|s| format!("{} {} {} {}", s.at, s.service, s.labels.len(), s.value))
            .collect();
        assert_eq!(
            told,
            [
                "1970-01-01T00:00:10Z shop 2 1",
                "1970-01-01T00:00:10Z pay 1 -3",
                "1970-01-01T00:00:30.5Z shop 2 2000"
            ]
        );
    }
}
