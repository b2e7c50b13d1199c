//! When the values of an answer were sampled.
//!
//! Prometheus answers a selector with the newest sample of up to five minutes ago, under the time of the question. Who asks more
//! often than it scrapes hears a sample twice, and takes a counter for one that stands still at each second turn; who asks
//! for a sum and for a count with a scrape between hears of two moments. PromQL's `timestamp` tells them apart:
//! <https://prometheus.io/docs/prometheus/latest/querying/functions/#timestamp>.

use std::{borrow::Cow, collections::HashMap};

use super::{ApiError, Series};
use crate::model::Labels;

/// The label that the times in an answer have.
const LABEL: &str = "aiops";

/// What is asked of a query, once answers have shown what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Asks {
    #[default]
    Unknown,
    /// Values that are computed at the time of the question.
    Values,
    /// Samples, with the times at which they were taken.
    Samples,
}

impl Asks {
    pub fn question(self, query: &str) -> Cow<'_, str> {
        if self == Self::Samples { with_times(query).into() } else { query.into() }
    }

    /// Learns from an answer. Whether to ask again, in another way.
    pub fn again(&mut self, answer: Result<&[Series], &ApiError>) -> bool {
        let (asks, again) = match (*self, answer) {
            (Self::Unknown, Ok(answer @ [_, ..])) if answer.iter().all(is_sample) => (Self::Samples, true),
            (Self::Unknown, Ok([_, ..])) => (Self::Values, false),
            // Series that have nothing but their names to tell them apart have no names together with their times.
            (Self::Samples, Err(ApiError::Refused(_) | ApiError::TooLong)) => (Self::Values, true),
            (asks, _) => (asks, false),
        };
        *self = asks;
        again
    }

    /// What was answered to the question.
    pub fn read(self, answer: Vec<Series>) -> Vec<Series> {
        if self == Self::Samples { at_their_times(answer) } else { answer }
    }
}

/// It has the name of a metric, as samples do and what is computed does not.
fn is_sample(series: &Series) -> bool {
    series.metric.contains_key("__name__")
}

/// A question for the values and, in the same moment, for their times. The query has lines of its own, for it may end with a
/// comment.
fn with_times(query: &str) -> String {
    format!("(\n{query}\n) or label_replace(timestamp(\n{query}\n), \"{LABEL}\", \"sampled\", \"\", \"\")")
}

/// The values under the times at which they were sampled; under those of the question where nothing tells.
fn at_their_times(answer: Vec<Series>) -> Vec<Series> {
    let (times, mut values): (Vec<_>, Vec<_>) =
        answer.into_iter().partition(|series| series.metric.contains_key(LABEL));
    let of = |mut metric: Labels| {
        metric.remove("__name__");
        metric.remove(LABEL);
        metric
    };
    let times: HashMap<Labels, HashMap<u64, f64>> = times
        .into_iter()
        .map(|Series { metric, values }| {
            let read = |(asked, text): (f64, String)| Some((asked.to_bits(), text.parse().ok()?));
            (of(metric), values.into_iter().filter_map(read).collect())
        })
        .collect();
    for Series { metric, values } in &mut values {
        let Some(times) = times.get(&of(metric.clone())) else { continue };
        for (at, _) in values {
            *at = times.get(&at.to_bits()).copied().unwrap_or(*at);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &str, values: &[(f64, &str)]) -> Series {
        Series {
            metric: serde_json::from_str(labels).expect("labels"),
            values: values.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
        }
    }

    #[test]
    fn values_stand_at_the_times_at_which_they_were_sampled() {
        let answer = vec![
            series(r#"{"__name__":"up","job":"a"}"#, &[(15.0, "1"), (30.0, "1"), (45.0, "0")]),
            series(r#"{"__name__":"up","job":"b"}"#, &[(30.0, "1")]),
            series(r#"{"aiops":"sampled","job":"a"}"#, &[(15.0, "2.5"), (30.0, "2.5"), (45.0, "32.5")]),
        ];
        let read = Asks::Samples.read(answer);
        assert_eq!(
            read,
            [
                series(r#"{"__name__":"up","job":"a"}"#, &[(2.5, "1"), (2.5, "1"), (32.5, "0")]),
                series(r#"{"__name__":"up","job":"b"}"#, &[(30.0, "1")]),
            ]
        );
    }

    #[test]
    fn samples_are_asked_with_their_times_and_what_is_computed_without() {
        let mut asks = Asks::default();
        let sample = [series(r#"{"__name__":"up"}"#, &[])];
        assert!(!asks.again(Ok(&[])) && asks.question("up") == "up");
        assert!(asks.again(Ok(&sample)) && asks.question("up").contains("timestamp(\nup\n)"));
        assert!(!asks.again(Ok(&sample)) && !asks.again(Ok(&[])), "from now on");
        assert!(!asks.again(Err(&ApiError::Unreachable(String::new()))) && asks == Asks::Samples);
        assert!(asks.again(Err(&ApiError::Refused("same labelset".into()))) && asks.question("up") == "up");
        assert!(!asks.again(Ok(&sample)) && asks == Asks::Values, "for good");
        let mut asks = Asks::default();
        assert!(!asks.again(Ok(&[series("{}", &[]), sample[0].clone()])) && asks == Asks::Values);
    }
}
