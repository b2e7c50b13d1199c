//! Samples for a recording: what Prometheus would have answered to the watches of the settings, asked as a range instead of
//! again and again.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;

use super::bounds::Bounds;
use crate::{
    config::{self, Settings, Watch},
    http_client,
    intake::watches::{Identities, News},
    model::Sample,
    prometheus_api::{ApiError, PrometheusApi, Series, Span, sampled::Asks},
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
    let step = (watch.every.as_secs_f64().round() as i64).max(1);
    let next_step = |at: Timestamp| (at.as_millisecond() + step * 1000 - 1).div_euclid(step * 1000) * step;
    let (mut start, end) = (next_step(from), next_step(to));
    let (mut steps, mut left_out) = (MOST_STEPS, 0);
    let (mut asks, mut news) = (Asks::default(), News::default());
    while start < end {
        let count = steps.min((end - start) / step);
        let span = Span { start, end: start + (count - 1) * step, step: step.unsigned_abs() };
        match bounds.wait(ask(prometheus, &watch.query, span, &mut asks)).await? {
            Ok(series) => {
                let (mut samples, out) = samples(watch, series);
                samples.retain(|sample| sample.at >= from && news.is(sample));
                bounds.take(samples.len() as u64)?;
                samples.iter().try_for_each(|sample| file.add(sample))?;
                left_out += out;
                start += count * step;
            }
            // For good: each answer that is too long is a long one.
            Err(Refused::TooMuch(_)) if count > 1 => steps = count / 2,
            Err(Refused::TooMuch(why) | Refused::For(why)) => return Err(why),
        }
    }
    Ok(left_out)
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
        let asked = tokio::time::timeout(PATIENCE, prometheus.range(&asks.question(query), span)).await;
        let error = match asked {
            Ok(Ok(series)) if asks.again(Ok(&series)) => continue,
            Ok(Ok(series)) => return Ok(asks.read(series)),
            Ok(Err(error)) => error,
            Err(_) => {
                let patience = humantime::format_duration(PATIENCE);
                return Err(Refused::TooMuch(anyhow!("Prometheus gave no answer within {patience}")));
            }
        };
        match error {
            ApiError::TooLong => return Err(Refused::TooMuch(anyhow!("Prometheus {error}"))),
            // Its bound on what a query may load (`--query.max-samples`).
            ApiError::Refused(ref why) if why.contains("too many samples") => {
                return Err(Refused::TooMuch(anyhow!("Prometheus {error}")));
            }
            error if asks.again(Err(&error)) => {}
            error if error.is_its_fault() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            error => return Err(Refused::For(anyhow!("Prometheus {error}"))),
        }
    }
}

/// The samples of an answer in the order of their times, and how many values are none.
fn samples(watch: &Watch, series: Vec<Series>) -> (Vec<Sample>, u64) {
    let (mut all, mut left_out) = (Vec::new(), 0);
    let mut identities = Identities::default();
    for Series { metric, values } in series {
        let Ok((service, labels)) = identities.next(watch, metric) else {
            left_out += values.len() as u64;
            continue;
        };
        for (at, text) in values {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
            let at = Timestamp::from_millisecond((at * 1000.0).round() as i64).ok();
            match (value, at) {
                (Some(value), Some(at)) => all.push(Sample {
                    at,
                    name: watch.name.clone(),
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
