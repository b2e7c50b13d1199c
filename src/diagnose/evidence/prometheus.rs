//! What Prometheus shows around the onset: the queries of the settings, and the expressions of the rules behind the alerts.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName, promql};
use crate::{
    breaker::{CallError, Dependency},
    clock,
    model::{self, EvidenceKind, Labels, Phrase, Said},
    prometheus_api::{self, ApiError, PrometheusApi, Series, Span},
};

pub(super) struct Prometheus;

const SERIES_PER_QUERY: usize = 3;
const ALERT_EXPRESSIONS: usize = 3;
const POINTS: u64 = 60;

#[derive(Clone)]
struct Query {
    name: String,
    expr: String,
    /// Series that contradict these are of somebody else.
    labels: Labels,
    /// Behind an alert: a symptom. Otherwise somebody thought it telling.
    is_alert: bool,
}

#[async_trait]
impl Source for Prometheus {
    fn name(&self) -> SourceName {
        SourceName::Prometheus
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        if access.settings.prometheus.url.is_empty() || access.http.is_none() {
            return Ok(Found {
                facts: Vec::new(),
                missing: vec![Phrase::NotConfigured { setting: "prometheus.url".into() }.into()],
            });
        }
        let configured = ranges(configured(about, access), about, access);
        let behind_alerts = async {
            match behind_alerts(about, access).await {
                Ok((queries, missing)) => {
                    let mut found = ranges(queries, about, access).await;
                    found.missing.extend(missing);
                    found
                }
                Err(e) => Found { facts: Vec::new(), missing: vec![e] },
            }
        };
        let (mut found, more) = tokio::join!(configured, behind_alerts);
        found.facts.extend(more.facts);
        found.missing.extend(more.missing);
        // One word for one cause: five queries behind an open breaker are one gap.
        found.missing.sort_by(|a, b| a.as_str().cmp(b));
        found.missing.dedup();
        Ok(found)
    }
}

fn configured(about: &About, access: &Access) -> Vec<Query> {
    let s = &access.settings.diagnose.prometheus;
    let fill = |(name, template): (&String, &String)| Query {
        name: name.clone(),
        expr: promql::fill(template, &s.service_label, &about.incident.service),
        labels: Labels::new(),
        is_alert: false,
    };
    s.queries.iter().map(fill).collect()
}

/// Only an expression that is word for word one of Prometheus' own alerting rules is asked: an alert is somebody's input, and
/// input must not become a query.
async fn behind_alerts(about: &About, access: &Access) -> Result<(Vec<Query>, Vec<Said>), Said> {
    let mut wanted: Vec<(String, &crate::model::Alert)> = Vec::new();
    for alert in &about.alerts {
        if let Some(expr) = promql::expression(&alert.generator_url)
            && wanted.iter().all(|(seen, _)| *seen != expr)
            && wanted.len() < ALERT_EXPRESSIONS
        {
            wanted.push((expr, alert));
        }
    }
    if !access.settings.diagnose.prometheus.alert_expressions || wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let names: Vec<&str> = wanted.iter().map(|(_, a)| a.name()).collect();
    let rules = ask(access, async |prometheus| prometheus.rules(&names).await).await?;
    let (mut queries, mut missing) = (Vec::new(), Vec::new());
    for (expr, alert) in wanted {
        match rules.get(&expr) {
            Some(rule) => queries.push(Query {
                name: alert.name().to_owned(),
                expr: promql::without_threshold(rule).to_owned(),
                labels: alert.labels.clone(),
                is_alert: true,
            }),
            None => missing.push(Phrase::NotAmongRules { alert: alert.name().to_owned() }.into()),
        }
    }
    Ok((queries, missing))
}

async fn ranges(queries: Vec<Query>, about: &About, access: &Access) -> Found {
    let asked = queries.into_iter().map(|query| async move {
        let answer = range(&query, about, access).await;
        (query, answer)
    });
    let mut found = Found::default();
    for (query, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(series) => {
                let ours = series.into_iter().filter(|s| promql::agrees(&s.metric, &query.labels));
                let facts = ours.filter_map(|s| fact(&query, &s, about));
                found.facts.extend(facts.take(SERIES_PER_QUERY));
            }
            Err(reason) => found.missing.push(reason),
        }
    }
    found
}

async fn range(query: &Query, about: &About, access: &Access) -> Result<Vec<Series>, Said> {
    let from = clock::before(about.incident.started_at, access.settings.diagnose.look_back);
    let span = clock::between(from, about.now).as_secs().max(1);
    let step = span.div_ceil(POINTS).max(5);
    // The grid is laid from its end, which is the point that matters most, and is not cut to a second before now.
    let end = about.now.as_second() + 1;
    let start = end - (span.div_ceil(step) * step) as i64;
    let span = Span { start, end, step };
    ask(access, async |prometheus| prometheus.range(&query.expr, span).await).await
}

/// Half of the time for each of two requests in a row.
async fn ask<T>(
    access: &Access,
    question: impl AsyncFnOnce(PrometheusApi<'_>) -> Result<T, ApiError>,
) -> Result<T, Said> {
    let s = &access.settings.prometheus;
    let timeout =
        s.timeout.min(access.settings.diagnose.evidence_timeout * 9 / 20).max(Duration::from_millis(20));
    let Some(http) = &access.http else { return Err(why(CallError::Inner(ApiError::NotConfigured))) };
    let call = question(PrometheusApi::new(http, s));
    let answer = access.breakers.of(Dependency::Prometheus).call(timeout, ApiError::is_its_fault, call).await;
    answer.map_err(why)
}

/// The same words as the errors' own, so that they can be said in Russian.
fn why(error: CallError<ApiError>) -> Said {
    let phrase = match error {
        CallError::Open => Phrase::CircuitOpen {},
        CallError::ProbeBusy => Phrase::CircuitHalfOpen {},
        CallError::Timeout(after) => Phrase::TimedOut { after: model::Span(after) },
        CallError::Inner(ApiError::NotConfigured) => {
            Phrase::IsNotConfigured { setting: "prometheus.url".into() }
        }
        CallError::Inner(ApiError::Unreachable(why)) => Phrase::Unreachable { why },
        CallError::Inner(ApiError::Refused(why)) => Phrase::RefusesQuery { why },
        CallError::Inner(ApiError::Status(status, said)) => {
            Phrase::AnsweredBadly { status: status.to_string(), said }
        }
        CallError::Inner(ApiError::WrongType(_)) => Phrase::NoRange {},
        CallError::Inner(ApiError::TooLong) => {
            Phrase::AnswerTooLong { bytes: prometheus_api::MAX_BODY as i64 }
        }
        CallError::Inner(ApiError::Answer(why)) => Phrase::AnswerNotPromised { why },
    };
    phrase.into()
}

fn fact(query: &Query, series: &Series, about: &About) -> Option<Fact> {
    let onset = about.incident.started_at;
    let points: Vec<(f64, f64)> = series
        .values
        .iter()
        .filter_map(|(at, text)| Some((*at, text.parse::<f64>().ok().filter(|v| v.is_finite())?)))
        .collect();
    let shift = Shift::of(&points, onset)?;
    let labels: Vec<String> = series.metric.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let which = if labels.is_empty() { String::new() } else { format!(" {{{}}}", labels.join(", ")) };
    let (last_at, last) = *points.last()?;
    let (named, now) = (format!("{}{which}", query.name), figure(last));
    let said = match shift.before.map(figure) {
        None => Phrase::MetricNow { series: named, now },
        Some(before) => Phrase::MetricNowAndBefore { series: named, now, before },
    };
    Some(Fact {
        kind: EvidenceKind::MetricRange,
        source: SourceName::Prometheus,
        service: about.incident.service.clone(),
        summary: said.into(),
        data: json!({
            "id": format!("{} {}", query.expr, labels.join(",")),
            "query": query.expr,
            "labels": series.metric,
            "alert": query.is_alert,
            "deviates": shift.deviates,
            "points": points.iter().map(|(t, v)| json!([*t as i64, v])).collect::<Vec<_>>(),
        }),
        observed_at: if shift.deviates {
            onset
        } else {
            Timestamp::from_second(last_at as i64).unwrap_or(onset)
        },
    })
}

/// How the values since the onset stand to those before.
#[derive(Debug, PartialEq)]
struct Shift {
    /// Median of the values before; none if there were too few.
    before: Option<f64>,
    /// The median since differs by more than five times the usual spread and a fifth of the value.
    deviates: bool,
}

impl Shift {
    fn of(points: &[(f64, f64)], onset: Timestamp) -> Option<Self> {
        let onset = onset.as_second() as f64;
        let (before, since): (Vec<_>, Vec<_>) = points.iter().partition(|(at, _)| *at < onset);
        let before: Vec<f64> = before.into_iter().map(|(_, v)| v).collect();
        let since: Vec<f64> = since.into_iter().map(|(_, v)| v).collect();
        if before.len() < 5 {
            return (!points.is_empty()).then_some(Self { before: None, deviates: false });
        }
        let usual = median(before.clone());
        let spread = median(before.iter().map(|v| (v - usual).abs()).collect());
        let moved = if since.is_empty() { 0.0 } else { (median(since) - usual).abs() };
        let deviates = moved > 5.0 * spread && moved > 0.2 * usual.abs() && moved > 1e-9;
        Some(Self { before: Some(usual), deviates })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Three or four digits that count: `0.0123`, `1234`, `12.3`.
fn figure(v: f64) -> String {
    let digits = (2 - v.abs().max(1e-6).log10().floor() as i32).clamp(0, 8) as usize;
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_up_deviates_and_noise_does_not() {
        let onset = Timestamp::from_second(100).expect("in range");
        let noise = |i: i32| 1.0 + 0.01 * f64::from(i % 3);
        let steady: Vec<_> = (0..200).map(|i| (f64::from(i), noise(i))).collect();
        let step: Vec<_> = (0..200).map(|i| (f64::from(i), if i < 100 { noise(i) } else { 5.0 })).collect();
        assert!(!Shift::of(&steady, onset).expect("has points").deviates);
        assert!(Shift::of(&step, onset).expect("has points").deviates);
        assert_eq!(Shift::of(&step[..3], onset), Some(Shift { before: None, deviates: false }));
        assert_eq!(Shift::of(&[], onset), None);
    }

    #[test]
    fn figures_are_short() {
        let texts = [0.0, 0.012345, 1.5, 12.345, 1234.5, 1e9].map(figure);
        assert_eq!(texts, ["0", "0.0123", "1.5", "12.3", "1234", "1000000000"]);
    }
}
