//! For services of which only requests, latency and errors are known: whose own excess would, if taken away, take the
//! alert away.
//!
//! Everything is counted in what the alert is made of: seconds of work per step (requests × latency above the usual) or
//! failed requests per step. A caller's excess holds its callees' as far as the two move together.

use std::collections::BTreeSet;

use super::evidence::{Evidence, Kind};
use super::hash::Map;
use super::robust::{quantile, short, sorted, spread, surprise};
use crate::model::{
    Phrase,
    case::{Case, CaseSeries, Sym},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Failures,
}

/// What isn't what the alert is about, or explains nothing of it, only decides between equals.
const ASIDE: f64 = 0.1;
const UNEXPLAINED: f64 = 0.02;
/// What a service's own change is worth at most: e³⁰ is beyond doubt, and beyond that the explained part should decide.
const BEYOND_DOUBT: f64 = 30.0;

/// The level between reference and window may be off by about one spread of the reference (recorded at another hour): more,
/// and a fault that is constant over the window would be taken for such a drift; less, and the hour would be a fault.
const DRIFT_SD: f64 = 1.0;
/// A coupling is the caller's share of the callee's requests, give or take a half: calls may be parallel, or made twice.
const PRIOR_SD: f64 = 0.5;

/// Paths that are followed: where everybody calls everybody there are more than anybody can wait for, and each service has been
/// reached by many of them.
const MOST_PATHS: usize = 20_000;

struct Flow {
    /// Excess per step, reference steps first.
    excess: Vec<f64>,
    requests: f64,
    /// Not known before the window.
    new: bool,
}

pub fn evidence(case: &Case) -> Vec<Evidence> {
    if case.topology.is_empty() {
        return Vec::new();
    }
    let asked = case.alert_metric.as_deref().and_then(kind_of);
    [Unit::Seconds, Unit::Failures]
        .into_iter()
        .flat_map(|unit| {
            let weight = if asked.is_none_or(|a| a == unit) { 1.0 } else { ASIDE };
            of_unit(case, unit).into_iter().map(move |e| Evidence { nats: e.nats * weight, ..e })
        })
        .collect()
}

fn sentence(case: &Case, unit: Unit, peak: f64, explained: f64) -> Phrase {
    let (peak, service) = (short(peak), case.names.text(case.alert_service).to_owned());
    let percent = (100.0 * explained.max(0.0)).round() as i64;
    match unit {
        Unit::Seconds => Phrase::OwnSeconds { peak, service, percent },
        Unit::Failures => Phrase::OwnFailures { peak, service, percent },
    }
}

/// What a metric's name says it counts.
fn kind_of(metric: &str) -> Option<Unit> {
    let has = |words: &[&str]| words.iter().any(|w| metric.contains(w));
    if has(&["latency", "duration", "response_time"]) {
        Some(Unit::Seconds)
    } else if has(&["availability", "error", "fail", "success", "fault"]) {
        Some(Unit::Failures)
    } else {
        None
    }
}

fn of_unit(case: &Case, unit: Unit) -> Vec<Evidence> {
    let steps: Vec<i64> = {
        let all: BTreeSet<i64> =
            case.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).filter(|&t| t <= case.to).collect();
        all.into_iter().collect()
    };
    let cut = steps.partition_point(|&t| t < case.from);
    if cut < 10 || cut == steps.len() {
        return Vec::new();
    }
    let flows = flows(case, unit, &steps, cut);
    let Some(alert) = flows.get(&case.alert_service) else { return Vec::new() };
    let coupling = coupling(case, &flows, cut);
    let reach = reach(case, &coupling);
    let noise =
        spread(&sorted(alert.excess[..cut].to_vec())).max(if unit == Unit::Failures { 1.0 } else { 1e-9 });
    let total = cost(&alert.excess[cut..], noise);
    let mut services: Vec<Sym> = flows.keys().copied().collect();
    services.sort_unstable();
    let mut all = Vec::new();
    for s in services {
        let Some(&weight) = reach.get(&s) else { continue };
        let own = own_excess(case, s, &flows, &coupling);
        let rest: Vec<f64> =
            alert.excess[cut..].iter().zip(&own[cut..]).map(|(e, o)| e - weight * o).collect();
        let explained = if total > 0.0 { 1.0 - cost(&rest, noise) / total } else { 0.0 };
        let sure = sureness(&own, cut, unit);
        if sure <= 0.0 {
            continue;
        }
        let peak = own[cut..].iter().copied().fold(f64::MIN, f64::max);
        all.push(Evidence {
            service: s,
            kind: Kind::Impact,
            looks: 1.0,
            nats: explained.max(UNEXPLAINED) * sure.min(BEYOND_DOUBT),
            text: sentence(case, unit, peak, explained),
        });
    }
    all
}

fn flows(case: &Case, unit: Unit, steps: &[i64], cut: usize) -> Map<Sym, Flow> {
    let mut by: Map<Sym, Vec<&CaseSeries>> = Map::default();
    for s in &case.series {
        by.entry(s.service).or_default().push(s);
    }
    let at: Map<i64, usize> = steps.iter().enumerate().map(|(i, &t)| (t, i)).collect();
    let column = |s: &CaseSeries| {
        let mut v = vec![None; steps.len()];
        for (t, x) in &s.points {
            if let Some(&i) = at.get(t) {
                v[i] = Some(*x);
            }
        }
        v
    };
    let mut flows = Map::default();
    for (service, series) in by {
        let Some(requests) = series.iter().find(|s| s.metric.contains("request")).map(|s| column(s)) else {
            continue;
        };
        let level = series
            .iter()
            .filter(|s| kind_of(&s.metric) == Some(unit))
            .min_by_key(|s| if s.metric.contains("avg") || s.metric.contains("mean") { 0 } else { 1 })
            .map(|s| {
                let good = s.metric.contains("avail") || s.metric.contains("success");
                let v = column(s);
                let percent = v.iter().flatten().any(|x| *x > 1.0);
                let scale = if unit == Unit::Failures && percent { 0.01 } else { 1.0 };
                v.into_iter()
                    .map(|x| x.map(|x| if good { 1.0 - x * scale } else { x * scale }))
                    .collect::<Vec<_>>()
            })
            .unwrap_or_else(|| vec![None; steps.len()]);
        let pair = |i: usize| match (requests[i], level[i]) {
            (Some(r), Some(x)) if r > 0.0 => Some((r, x)),
            _ => None,
        };
        let known = sorted((0..cut).filter_map(|i| pair(i).map(|p| p.1)).collect());
        // Fewer than five steps with requests: its usual level is unknown, so it is what its caller newly does.
        let new = known.len() < 5;
        let usual = if new { 0.0 } else { quantile(&known, 0.5) };
        let excess = (0..steps.len()).map(|i| pair(i).map_or(0.0, |(r, x)| r * (x - usual))).collect();
        let volume = sorted(requests[..cut].iter().map(|r| r.unwrap_or(0.0)).collect());
        flows.insert(service, Flow { excess, requests: quantile(&volume, 0.5), new });
    }
    flows
}

/// How much of a callee's excess is in its caller's: regression over reference and window (around their usual levels), with
/// a prior of the caller's share of the callee's requests ± ½.
fn coupling(case: &Case, flows: &Map<Sym, Flow>, cut: usize) -> Map<(Sym, Sym), f64> {
    let mut b = Map::default();
    for &(caller, callee) in &case.topology {
        let (Some(a), Some(c)) = (flows.get(&caller), flows.get(&callee)) else { continue };
        if c.new {
            b.insert((caller, callee), 0.0);
            continue;
        }
        let all: f64 = case
            .topology
            .iter()
            .filter(|e| e.1 == callee)
            .filter_map(|e| flows.get(&e.0))
            .map(|f| f.requests)
            .sum();
        let prior = if all > 0.0 { a.requests / all } else { 0.0 };
        let (x, z) = (clipped(&c.excess[..cut]), clipped(&a.excess[..cut]));
        let (sxx, sxz, szz) = moments(&x, &z, 1.0 / cut as f64);
        let noise = (szz / cut as f64).max(1e-12);
        let (wxx, wxz, _) = moments(&c.excess[cut..], &a.excess[cut..], off(c.excess.len() - cut));
        let precision = 1.0 / PRIOR_SD.powi(2);
        let slope = ((sxz + wxz) / noise + prior * precision) / ((sxx + wxx) / noise + precision);
        b.insert((caller, callee), slope.clamp(0.0, 1.0));
    }
    b
}

/// Winsorised at 5 spreads, so that one outlier in the reference doesn't tell what belongs together.
fn clipped(v: &[f64]) -> Vec<f64> {
    let s = 5.0 * spread(&sorted(v.to_vec())).max(1e-9);
    v.iter().map(|x| x.clamp(-s, s)).collect()
}

/// Sums of squares and products with the common level taken off: all of it (`off` = 1/n), or as much as drifts.
fn moments(x: &[f64], z: &[f64], off: f64) -> (f64, f64, f64) {
    let sum = x
        .iter()
        .zip(z)
        .fold([0.0; 5], |s, (x, z)| [s[0] + x, s[1] + z, s[2] + x * x, s[3] + x * z, s[4] + z * z]);
    (sum[2] - sum[0] * sum[0] * off, sum[3] - sum[0] * sum[1] * off, sum[4] - sum[1] * sum[1] * off)
}

/// A level that is off by d ~ N(0, τ²σ²) in all of n steps, integrated out: what is subtracted is (Σx)² / (n + 1/τ²).
fn off(n: usize) -> f64 {
    1.0 / (n as f64 + DRIFT_SD.powi(-2))
}

/// How much of each service's excess arrives at the alerting one: products of couplings along the paths, at most 1.
fn reach(case: &Case, coupling: &Map<(Sym, Sym), f64>) -> Map<Sym, f64> {
    let mut weight = Map::default();
    let mut stack = vec![(case.alert_service, 1.0, vec![case.alert_service])];
    let mut paths = 0;
    while let Some((s, x, path)) = stack.pop() {
        paths += 1;
        if paths > MOST_PATHS {
            break;
        }
        let w: &mut f64 = weight.entry(s).or_default();
        *w = (*w + x).min(1.0);
        for &(a, c) in &case.topology {
            let Some(b) = coupling.get(&(a, c)) else { continue };
            if a == s && x * b > 1e-3 && !path.contains(&c) && path.len() < 12 {
                let mut longer = path.clone();
                longer.push(c);
                stack.push((c, x * b, longer));
            }
        }
    }
    weight
}

fn own_excess(case: &Case, s: Sym, flows: &Map<Sym, Flow>, coupling: &Map<(Sym, Sym), f64>) -> Vec<f64> {
    let mut own = flows[&s].excess.clone();
    for &(a, c) in &case.topology {
        if let (true, Some(b), Some(f)) = (a == s, coupling.get(&(a, c)), flows.get(&c)) {
            own.iter_mut().zip(&f.excess).for_each(|(o, e)| *o -= b * e);
        }
    }
    own
}

/// Squares of what is left, in noise, once a constant drift is taken off.
fn cost(excess: &[f64], noise: f64) -> f64 {
    moments(excess, excess, off(excess.len())).0 / (noise * noise)
}

/// Nats for "its own excess is not what it was": Student-t surprise of the steps above the usual.
fn sureness(own: &[f64], cut: usize, unit: Unit) -> f64 {
    let usual = sorted(own[..cut].to_vec());
    let scale = spread(&usual).max(if unit == Unit::Failures { 1.0 } else { 1e-6 });
    let middle = quantile(&usual, 0.5);
    own[cut..].iter().map(|o| (o - middle) / scale).filter(|z| *z > 0.0).map(surprise).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_everybody_calls_everybody_all_is_reached_and_it_ends() {
        let pairs = || (0..16).flat_map(|a| (0..16).map(move |c| (a, c))).filter(|(a, c)| a != c);
        let case = Case { topology: pairs().collect(), ..Case::default() };
        let reached = reach(&case, &pairs().map(|pair| (pair, 1.0)).collect());
        assert_eq!(reached.len(), 16);
    }
}
