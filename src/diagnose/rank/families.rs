//! Series as instrumented programs export them, read as what they measure: of a histogram or a summary of Prometheus
//! (`_bucket`, `_sum`, `_count`: <https://prometheus.io/docs/concepts/metric_types/>) the mean and how many there were, of
//! counters (`_total`) what they count. Values of counters are rates.

use std::borrow::Cow;

use super::hash::Map;
use crate::model::case::{CaseSeries, Sym};

/// What a metric's name says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sort {
    /// CPU, memory and whatever else a service uses up.
    Resource,
    Latency,
    Errors,
    /// The other way round: availability, success rates.
    Successes,
    /// Requests, bytes: what others ask of it.
    Load,
}

fn sort_of(metric: &str) -> Sort {
    let has = |words: &[&str]| words.iter().any(|w| metric.contains(w));
    if has(&["cpu", "memory", "mem_", "disk", "heap", "thread", "goroutine", "fd"]) {
        Sort::Resource
    } else if has(&["latency", "duration", "response_time"]) {
        Sort::Latency
    } else if has(&["availability", "success"]) {
        Sort::Successes
    } else if has(&["error", "fail", "restart", "oom"]) {
        Sort::Errors
    } else {
        Sort::Load
    }
}

/// What a series tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// What its name says.
    Itself,
    /// How many there were a second.
    Count,
    /// The mean of what was counted, by the reading at this place.
    MeanOf(usize),
}

/// What a service sends of one quantity, with its labels.
#[derive(Debug, PartialEq)]
pub struct Reading<'a> {
    pub service: Sym,
    /// As it is shown: with labels.
    pub title: &'a str,
    /// Of the family: without labels and without `_sum`, `_count`, `_total`.
    pub name: &'a str,
    pub tells: Tells,
    /// It counts what went wrong.
    pub failed: bool,
    pub points: Cow<'a, [(i64, f64)]>,
}

impl Reading<'_> {
    pub fn sort(&self) -> Sort {
        match self.tells {
            _ if self.failed => Sort::Errors,
            // What a counter counts says its name: seconds of a processor, restarts.
            Tells::Count if !split(self.title).0.ends_with("_total") => Sort::Load,
            _ => sort_of(self.name),
        }
    }

    /// Of requests that it makes, not of those that it answers.
    pub fn of_client(&self) -> bool {
        self.name.contains("client")
    }
}

/// In the order of services and titles. Buckets are left out: they tell nothing that the mean doesn't.
pub fn read(series: &[CaseSeries]) -> Vec<Reading<'_>> {
    let mut readings: Vec<Reading<'_>> = series.iter().filter_map(reading).collect();
    readings.sort_by(|a, b| (a.service, a.title).cmp(&(b.service, b.title)));
    let end = |r: &Reading<'_>, end: &str| split(r.title).0.strip_prefix(r.name) == Some(end);
    let counts: Map<_, usize> =
        readings.iter().enumerate().filter(|(_, r)| end(r, "_count")).map(|(i, r)| (key(r), i)).collect();
    for i in 0..readings.len() {
        if let Some(&count) = counts.get(&key(&readings[i])).filter(|_| end(&readings[i], "_sum")) {
            readings[i].points = Cow::Owned(quotients(&readings[i].points, &readings[count].points));
            readings[i].tells = Tells::MeanOf(count);
            readings[i].failed = false;
        }
    }
    readings
}

fn reading(s: &CaseSeries) -> Option<Reading<'_>> {
    let (whole, labels) = split(&s.metric);
    let name = ["_bucket", "_sum", "_count", "_total"].iter().find_map(|end| whole.strip_suffix(end));
    let tells = match name.map(|name| &whole[name.len()..]) {
        None => Tells::Itself,
        Some("_bucket") => return None,
        Some(_) => Tells::Count,
    };
    let name = name.unwrap_or(whole);
    let failed =
        tells == Tells::Count && (["error", "fail"].iter().any(|word| name.contains(word)) || is_5xx(labels));
    Some(Reading {
        service: s.service,
        title: &s.metric,
        name,
        tells,
        failed,
        points: Cow::Borrowed(&s.points),
    })
}

/// What the parts of one histogram have in common.
fn key<'a>(r: &Reading<'a>) -> (Sym, &'a str, &'a str) {
    (r.service, r.name, split(r.title).1)
}

/// `name{labels}`.
fn split(title: &str) -> (&str, &str) {
    title.find('{').map_or((title, ""), |at| title.split_at(at))
}

/// Whether the labels say that a server failed: `code="503"`, `http_response_status_code="500"`, `status="5xx"`.
fn is_5xx(labels: &str) -> bool {
    labels.trim_matches(['{', '}']).split(',').filter_map(|label| label.split_once("=\"")).any(
        |(key, value)| {
            let value = value.trim_end_matches('"');
            (key.ends_with("code") || key.ends_with("status")) && value.len() == 3 && value.starts_with('5')
        },
    )
}

/// Sums by counts of about the same time, where there were any.
fn quotients(sums: &[(i64, f64)], counts: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let step = match sums {
        [first, .., last] => (last.0 - first.0) / (sums.len() as i64 - 1),
        _ => 0,
    };
    let near = |at: i64| {
        let i = counts.partition_point(|c| c.0 < at);
        let around = counts[i.saturating_sub(1)..counts.len().min(i + 1)].iter();
        around.min_by_key(|c| (c.0 - at).abs()).filter(|c| (c.0 - at).abs() <= step / 2)
    };
    let quotient = |&(at, sum): &(i64, f64)| near(at).filter(|c| c.1 > 0.0).map(|c| (at, sum / c.1));
    sums.iter().filter_map(quotient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(metric: &str, values: &[f64]) -> CaseSeries {
        let points = values.iter().enumerate().map(|(i, v)| (i as i64 * 15, *v)).collect();
        CaseSeries { service: 0, metric: metric.into(), points }
    }

    #[test]
    fn histograms_and_counters_are_read_as_what_they_measure() {
        let all = [
            series(r#"http_request_duration_seconds_sum{code="200"}"#, &[1.0, 4.0, 0.0]),
            series(r#"http_request_duration_seconds_count{code="200"}"#, &[10.0, 20.0, 0.0]),
            series(r#"http_request_duration_seconds_count{code="503"}"#, &[0.0, 1.0, 0.0]),
            series(r#"http_request_duration_seconds_bucket{code="200",le="0.1"}"#, &[9.0]),
            series("db_errors_total", &[0.0]),
            series("queue_length", &[3.0]),
            series("gc_seconds_sum", &[0.1]),
        ];
        let readings = read(&all);
        let told: Vec<_> = readings.iter().map(|r| (r.name, r.tells, r.failed)).collect();
        let request = "http_request_duration_seconds";
        assert_eq!(
            told,
            [
                ("db_errors", Tells::Count, true),
                ("gc_seconds", Tells::Count, false),
                (request, Tells::Count, false),
                (request, Tells::Count, true),
                (request, Tells::MeanOf(2), false),
                ("queue_length", Tells::Itself, false),
            ]
        );
        assert_eq!(*readings[4].points, [(0, 0.1), (15, 0.2)], "none where there were none");
        let sorts = [
            ("process_cpu_seconds_total", Sort::Resource),
            ("kube_pod_container_status_restarts_total", Sort::Errors),
            ("http_requests_total", Sort::Load),
            ("http_request_duration_seconds_count", Sort::Load),
        ];
        for (metric, sort) in sorts {
            assert_eq!(read(&[series(metric, &[1.0])])[0].sort(), sort, "{metric}");
        }
        assert!(is_5xx(r#"{method="GET",http_response_status_code="500"}"#) && is_5xx(r#"{status="5xx"}"#));
        assert!(!is_5xx(r#"{code="200",size="512"}"#) && !is_5xx(""));
    }
}
