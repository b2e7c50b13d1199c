//! Which series of a service (CPU, memory, latency, errors) left their usual range.

use super::hash::Map;

use super::evidence::{Evidence, Kind};
use super::robust::{quantile, short, sorted, spread, surprise};
use crate::model::{
    Phrase,
    case::{Case, CaseSeries, Sym},
};

#[derive(Clone, Copy, PartialEq, Eq)]
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

pub fn sort_of(metric: &str) -> Sort {
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

/// A quantity of the usual interquartile range may well differ by this share of its level: constant series, rounded values.
const LEVEL: f64 = 0.05;
/// Spikes of the reference belong to what is usual: the robust spread is at least a quarter of the standard deviation, which
/// holds a single spike of 4 deviations at 16 of the spread.
const SPIKES: f64 = 0.25;
/// An idle service may well reach a fiftieth of what is typical for the metric in its fleet.
const FLEET: f64 = 0.02;
/// A changed series may be anywhere within about three decades, ln 10³ ≈ 7 wide: the density of that is 1/7, e⁻².
const SPAN: f64 = 2.0;

/// `traced`: services whose spans are known; spans tell their latency and errors more exactly.
pub fn evidence(case: &Case, traced: &[Sym], flows: bool) -> Vec<Evidence> {
    let mut typical: Map<&str, Vec<f64>> = Map::default();
    for s in &case.series {
        let (reference, _) = sides(case, s);
        if !reference.is_empty() {
            typical.entry(&s.metric).or_default().push(quantile(&reference, 0.5).abs());
        }
    }
    let typical: Map<&str, f64> = typical.into_iter().map(|(m, v)| (m, quantile(&sorted(v), 0.5))).collect();
    let mut looks: Map<Sym, f64> = Map::default();
    let mut all = Vec::new();
    for s in &case.series {
        let sort = sort_of(&s.metric);
        // A node's load is its tenants' together.
        if sort == Sort::Load || s.metric.starts_with("node_") {
            continue;
        }
        if sort != Sort::Resource && (flows || traced.contains(&s.service)) {
            continue;
        }
        // Where requests are traced, a service that none of them passed isn't their cause; whom one of theirs calls without a
        // trace may be.
        let is_called = || case.topology.iter().any(|(a, b)| *b == s.service && traced.contains(a));
        if !traced.is_empty() && !traced.contains(&s.service) && !is_called() {
            continue;
        }
        let (reference, window) = sides(case, s);
        if reference.len() < 5 || window.len() < 2 {
            continue;
        }
        let middle = quantile(&reference, 0.5);
        let n = reference.len() as f64;
        let mean = reference.iter().sum::<f64>() / n;
        let sd = (reference.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let scale = spread(&reference)
            .max(LEVEL * middle.abs())
            .max(SPIKES * sd)
            .max(FLEET * typical.get(s.metric.as_str()).copied().unwrap_or(0.0))
            .max(1e-9);
        let down = sort == Sort::Successes;
        // Three quarters of the way up, so that an onset late in the window shows; but two points at least: one is a spike.
        let now = if down {
            quantile(&window, 0.25).max(window[1])
        } else {
            quantile(&window, 0.75).min(window[window.len() - 2])
        };
        let z = (now - middle) / scale * if down { -1.0 } else { 1.0 };
        *looks.entry(s.service).or_default() += 1.0;
        let nats = surprise(z) - SPAN;
        if z > 0.0 && nats > 0.0 {
            all.push(Evidence {
                service: s.service,
                kind: Kind::Metric,
                nats,
                looks: 1.0,
                text: Phrase::MetricAway {
                    metric: s.metric.clone(),
                    now: short(now),
                    usual: short(middle),
                    spread: short(scale),
                },
            });
        }
    }
    for e in &mut all {
        e.looks = looks[&e.service];
    }
    all
}

fn sides(case: &Case, s: &CaseSeries) -> (Vec<f64>, Vec<f64>) {
    let cut = s.points.partition_point(|p| p.0 < case.from);
    let end = s.points.partition_point(|p| p.0 <= case.to);
    let values = |p: &[(i64, f64)]| sorted(p.iter().map(|p| p.1).collect());
    (values(&s.points[..cut]), values(&s.points[cut..end.max(cut)]))
}
