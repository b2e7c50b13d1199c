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

/// `name`: in small letters.
fn sort_of(name: &str) -> Sort {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    // Of names that people give to quantiles and delays: `checkout_p99`.
    let is = |words: &[&str]| name.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word));
    if has(&["cpu", "memory", "mem_", "disk", "heap", "thread", "goroutine", "fd"]) {
        Sort::Resource
    } else if has(&["latency", "duration", "response_time"]) {
        Sort::Latency
    } else if has(&["availability", "success"]) {
        Sort::Successes
    } else if has(&["error", "fail", "restart", "oom"]) {
        Sort::Errors
    } else if is(&["p50", "p75", "p90", "p95", "p99", "p999", "lag"]) {
        Sort::Latency
    } else {
        Sort::Load
    }
}

/// Units of time at the end of a mean's name: `http_server_requests_seconds`, `upstream_rq_time`.
const TIMES: [&str; 6] = ["seconds", "_ms", "_us", "_time", ".time", "millis"];

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
    /// The same in small letters, for the words in it.
    lower: Cow<'a, str>,
    pub tells: Tells,
    /// It counts what went wrong.
    pub failed: bool,
    pub sort: Sort,
    pub points: Cow<'a, [(i64, f64)]>,
}

impl Reading<'_> {
    /// Of requests that it makes, not of those that it answers.
    pub fn of_client(&self) -> bool {
        self.says(&["client"])
    }

    /// Of requests, as frameworks and proxies call them: `grpc_server_handled`, `rpc.server.duration`, `upstream_rq`.
    pub fn of_requests(&self) -> bool {
        self.says(&["request", "response", "rpc", "_rq"]) && !self.says(&["bytes", "size"])
    }

    /// The family's name in small letters.
    pub fn lower(&self) -> &str {
        &self.lower
    }

    pub fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.lower.contains(word))
    }

    fn find_sort(&self) -> Sort {
        match (self.tells, sort_of(&self.lower)) {
            _ if self.failed => Sort::Errors,
            // What a counter counts says its name: seconds of a processor, restarts.
            (Tells::Count, _) if !split(self.title).0.ends_with("_total") => Sort::Load,
            (Tells::MeanOf(_), Sort::Load) if TIMES.iter().any(|unit| self.lower.ends_with(unit)) => {
                Sort::Latency
            }
            (_, sort) => sort,
        }
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
    for reading in &mut readings {
        reading.sort = reading.find_sort();
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
    let lower = match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    };
    let wrong = ["error", "fail"].iter().any(|word| lower.contains(word));
    let failed = tells == Tells::Count && (wrong || is_failure(labels));
    Some(Reading {
        service: s.service,
        title: &s.metric,
        name,
        lower,
        tells,
        failed,
        sort: Sort::Load,
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

/// Codes of gRPC by which a server says that it failed; others blame the request:
/// <https://grpc.io/docs/guides/status-codes/>.
const GRPC: [(&str, &str); 6] = [
    ("2", "unknown"),
    ("4", "deadlineexceeded"),
    ("8", "resourceexhausted"),
    ("13", "internal"),
    ("14", "unavailable"),
    ("15", "dataloss"),
];

/// Whether the labels say that a server failed: `code="503"`, `http_response_status_code="500"`, `status="5xx"`,
/// `response_code_class="5"`, `grpc_code="Unavailable"`, `classification="failure"`.
fn is_failure(labels: &str) -> bool {
    labels.trim_matches(['{', '}']).split(',').filter_map(|label| label.split_once("=\"")).any(
        |(key, value)| {
            let value = value.trim_end_matches('"').to_ascii_lowercase().replace('_', "");
            let is_5xx = value.len() == 3 && value.starts_with('5');
            match key {
                "classification" => value == "failure",
                _ if key.contains("grpc") => GRPC.iter().any(|(n, word)| *n == value || *word == value),
                _ if key.ends_with("code_class") => value == "5",
                _ => (key.ends_with("code") || key.ends_with("status")) && is_5xx,
            }
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
            assert_eq!(read(&[series(metric, &[1.0])])[0].sort, sort, "{metric}");
        }
        for failed in [
            r#"{method="GET",http_response_status_code="500"}"#,
            r#"{status="5xx"}"#,
            r#"{envoy_response_code_class="5"}"#,
            r#"{grpc_code="DeadlineExceeded",grpc_method="Pay"}"#,
            r#"{rpc_grpc_status_code="14"}"#,
            r#"{classification="failure"}"#,
        ] {
            assert!(is_failure(failed), "{failed}");
        }
        for well in
            [r#"{code="200",size="512"}"#, r#"{grpc_code="NotFound"}"#, r#"{rpc_grpc_status_code="5"}"#, ""]
        {
            assert!(!is_failure(well), "{well}");
        }
    }

    #[test]
    fn times_are_known_by_their_units_and_by_what_people_call_them() {
        let mean = |name: &str| {
            let all = ["sum", "count"].map(|end| series(&format!("{name}_{end}"), &[1.0]));
            read(&all)[1].sort
        };
        for name in ["http_server_requests_seconds", "istio_request_time", "rpc_ms", "Pause.millis"] {
            assert_eq!(mean(name), Sort::Latency, "{name}");
        }
        assert_eq!(mean("http_response_size_bytes"), Sort::Load);
        let sort = |name: &str| read(&[series(name, &[1.0])])[0].sort;
        assert_eq!(sort("checkout_p99"), Sort::Latency);
        assert_eq!(sort("CPUUtilization"), Sort::Resource);
        assert_eq!(sort("feature_flags"), Sort::Load);
        assert_eq!(sort("process_start_time_seconds"), Sort::Load);
    }
}
