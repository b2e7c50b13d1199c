//! For services of which only requests, latency and errors are known: whose own excess would, if taken away, take the
//! alert away.
//!
//! Everything is counted in what the alert is made of: seconds of work per step (requests × latency above the usual) or
//! failed requests per step. A caller's excess holds its callees' as far as the two move together.

use std::collections::BTreeMap;

use super::evidence::{Evidence, Kind};
use super::families::{Reading, Sort, Tells};
use super::hash::Map;
use super::robust::{quantile, short, sorted, spread, surprise};
use super::steps::Steps;
use crate::model::{
    Phrase,
    case::{Case, Sym},
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

pub fn evidence(case: &Case, readings: &[Reading<'_>]) -> Vec<Evidence> {
    if case.topology.is_empty() {
        return Vec::new();
    }
    let mut by: BTreeMap<Sym, Vec<&Reading<'_>>> = BTreeMap::new();
    readings.iter().for_each(|r| by.entry(r.service).or_default().push(r));
    let asked_of: Vec<_> = by.into_iter().map(|(service, of)| (service, Asked::of(readings, &of))).collect();
    let asked = case.alert_metric.as_deref().and_then(|name| kind_of(&name.to_lowercase()));
    [Unit::Seconds, Unit::Failures]
        .into_iter()
        .flat_map(|unit| {
            let weight = if asked.is_none_or(|a| a == unit) { 1.0 } else { ASIDE };
            of_unit(case, unit, &asked_of).into_iter().map(move |e| Evidence { nats: e.nats * weight, ..e })
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

/// What a metric's name, in small letters, says it counts.
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

fn of_unit(case: &Case, unit: Unit, asked: &[(Sym, Asked<'_>)]) -> Vec<Evidence> {
    let measured = asked.iter().flat_map(|(_, a)| a.all()).map(|r| &*r.points);
    let steps = Steps::of(measured, case.from, case.to);
    let cut = steps.cut;
    if cut < 10 || cut == steps.len() {
        return Vec::new();
    }
    let flows = flows(unit, &steps, asked);
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

/// What is asked of a service, and how it answers.
struct Asked<'a> {
    /// Added up: with each label.
    requests: Vec<&'a Reading<'a>>,
    /// How long they took, and of how many that is the mean.
    means: Vec<(&'a Reading<'a>, &'a Reading<'a>)>,
    /// How many of them failed.
    failed: Vec<&'a Reading<'a>>,
    /// The same as one number, where there are no such families.
    seconds: Option<&'a Reading<'a>>,
    share: Option<&'a Reading<'a>>,
}

impl<'a> Asked<'a> {
    fn of(all: &'a [Reading<'a>], of: &[&'a Reading<'a>]) -> Self {
        let own = || of.iter().copied().filter(|r| !r.of_client());
        let means = own().filter_map(|mean| match mean.tells {
            Tells::MeanOf(count) if mean.sort == Sort::Latency => Some((mean, &all[count])),
            _ => None,
        });
        let means: Vec<_> = means.collect();
        let volume = |name: &str, of: &[&Reading<'_>]| {
            let of = of.iter().filter(|r| r.name == name);
            of.map(|r| r.points.iter().map(|p| p.1).sum::<f64>()).sum::<f64>()
        };
        let busiest = |of: &[&'a Reading<'a>]| {
            let most = of.iter().max_by(|a, b| volume(a.name, of).total_cmp(&volume(b.name, of)));
            most.map(|most| most.name)
        };
        let counted: Vec<_> = match means.is_empty() {
            true => own().filter(|r| r.tells == Tells::Count && r.of_requests()).collect(),
            false => means.iter().map(|m| m.1).collect(),
        };
        // Pauses and batch jobs have means of time too.
        let of_requests: Vec<_> = counted.iter().copied().filter(|r| r.of_requests()).collect();
        let name = busiest(if of_requests.is_empty() { &counted } else { &of_requests });
        let of_it = |r: &&'a Reading<'a>| r.tells == Tells::Count && Some(r.name) == name;
        let mut requests: Vec<_> = own().filter(of_it).collect();
        if requests.is_empty() {
            let one = |r: &&Reading<'_>| r.tells == Tells::Itself && r.of_requests();
            requests.extend(own().find(|r| one(r) && r.sort == Sort::Load));
        }
        let failed = own().filter(|r| r.failed && (of_it(r) || r.of_requests()));
        let level = |unit: Unit| {
            let is = |r: &Reading<'_>| match r.sort {
                Sort::Latency => unit == Unit::Seconds,
                _ => kind_of(r.lower()) == Some(unit),
            };
            let of_unit = own().filter(|r| r.tells == Tells::Itself && is(r));
            of_unit.min_by_key(|r| !r.says(&["avg", "mean"]))
        };
        Self {
            requests,
            failed: failed.collect(),
            means: means.into_iter().filter(|m| Some(m.1.name) == name).collect(),
            seconds: level(Unit::Seconds),
            share: level(Unit::Failures),
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a Reading<'a>> + Clone {
        let means = self.means.iter().map(|m| m.0);
        let one = [self.seconds, self.share].into_iter().flatten();
        self.requests.iter().chain(&self.failed).copied().chain(means).chain(one)
    }

    /// Seconds a request, or the share of those that failed, in each step.
    fn level(&self, unit: Unit, steps: &Steps, requests: &[Option<f64>]) -> Vec<Option<f64>> {
        let of_all = |amounts: Vec<Option<f64>>| {
            let level = |(amount, r): (Option<f64>, &Option<f64>)| Some(amount? / r.filter(|r| *r > 0.0)?);
            amounts.into_iter().zip(requests).map(level).collect()
        };
        match unit {
            Unit::Seconds if !self.means.is_empty() => of_all(sum(self.means.iter().map(|(mean, count)| {
                let pairs = steps.column(&mean.points).into_iter().zip(steps.column(&count.points));
                pairs.map(|(mean, count)| Some(mean? * count?)).collect()
            }))),
            Unit::Failures if !self.failed.is_empty() => {
                of_all(sum(self.failed.iter().map(|r| steps.column(&r.points))))
            }
            Unit::Seconds => {
                self.seconds.map_or_else(|| vec![None; steps.len()], |r| steps.column(&r.points))
            }
            Unit::Failures => {
                let Some(r) = self.share else { return vec![None; steps.len()] };
                let good = r.says(&["avail", "success"]);
                let v = steps.column(&r.points);
                let scale = if v.iter().flatten().any(|x| *x > 1.0) { 0.01 } else { 1.0 };
                let bad = |x: f64| if good { 1.0 - x * scale } else { x * scale };
                v.into_iter().map(|x| x.map(bad)).collect()
            }
        }
    }
}

/// Where one of them is known.
fn sum(columns: impl Iterator<Item = Vec<Option<f64>>>) -> Vec<Option<f64>> {
    let add = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or(0.0)));
    let both = |a: Vec<Option<f64>>, b| a.into_iter().zip(b).map(|(a, b)| add(a, b)).collect();
    columns.reduce(both).unwrap_or_default()
}

fn flows(unit: Unit, steps: &Steps, asked: &[(Sym, Asked<'_>)]) -> Map<Sym, Flow> {
    let cut = steps.cut;
    let mut flows = Map::default();
    for (service, asked) in asked.iter().filter(|a| !a.1.requests.is_empty()) {
        let requests = sum(asked.requests.iter().map(|r| steps.column(&r.points)));
        let level = asked.level(unit, steps, &requests);
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
        flows.insert(*service, Flow { excess, requests: quantile(&volume, 0.5), new });
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
    use crate::model::case::CaseSeries;

    /// Two services as Prometheus scrapes them, at moments of their own, with samples lost: rates of histograms by status and the
    /// errors of a database that is no request's.
    fn scraped(slow: bool, failing: bool) -> Case {
        const SECOND: i64 = 1_000_000;
        let mut case = Case { from: 600 * SECOND, to: 900 * SECOND, ..Case::default() };
        let [front, bank] = ["front", "bank"].map(|name| case.names.sym(name));
        (case.alert_service, case.topology) = (front, vec![(front, bank)]);
        for (service, offset, own) in [(front, 2, 0.02), (bank, 9, 0.05)] {
            let of = |value: &dyn Fn(i64, bool) -> f64| -> Vec<(i64, f64)> {
                let at = |n: i64| (n * 15 + offset) * SECOND;
                (0..60)
                    .filter(|n| n % 7 != offset % 7)
                    .map(|n| (at(n), value(n, at(n) >= case.from)))
                    .collect()
            };
            let wobble = |n: i64| 1.0 + 0.05 * ((n * n + offset) as f64).sin();
            let requests = |n: i64| 50.0 * wobble(n);
            let bad = |now: bool| if now && failing { 0.2 } else { 0.0 };
            let seconds = |n: i64, now: bool| {
                let bank = if now && slow { 0.5 } else { 0.05 } * wobble(n + 1);
                requests(n) * if service == front { own + bank } else { bank }
            };
            let mut put = |metric: &str, value: &dyn Fn(i64, bool) -> f64| {
                let points = of(value);
                case.series.push(CaseSeries { service, metric: metric.into(), points });
            };
            let name =
                |end: &str, code: u32| format!("http_request_duration_seconds_{end}{{code=\"{code}\"}}");
            put(&name("bucket", 200), &|n, _| requests(n) / 2.0);
            put(&name("count", 200), &|n, now| requests(n) * (1.0 - bad(now)));
            put(&name("count", 503), &|n, now| requests(n) * bad(now));
            put(&name("sum", 200), &|n, now| seconds(n, now) * (1.0 - bad(now)));
            put(&name("sum", 503), &|n, now| seconds(n, now) * bad(now));
            put("http_client_request_duration_seconds_count", &|n, _| 90.0 * requests(n));
            put("http_client_request_duration_seconds_sum", &|n, now| 90.0 * seconds(n, now));
        }
        case
    }

    #[test]
    fn histograms_that_are_scraped_at_other_moments_tell_whose_excess_it_is() {
        for (slow, failing) in [(true, false), (false, true)] {
            let mut case = scraped(slow, failing);
            let ranking = crate::diagnose::rank::rank(&case);
            let [first, ..] = &ranking.ranked[..] else { panic!("nobody is suspected") };
            let about = (ranking.verdict.as_str(), first.service.as_str(), first.evidence[0].kind);
            assert_eq!(about, ("clear", "bank", Kind::Impact), "{ranking:#?}");
            case.series.reverse();
            assert_eq!(crate::diagnose::rank::rank(&case), ranking, "in whatever order series come");
        }
        let ranking = crate::diagnose::rank::rank(&scraped(false, false));
        assert_eq!(ranking.verdict.as_str(), "no clear cause", "{ranking:#?}");
    }

    #[test]
    fn levels_tell_whose_excess_it_is_however_they_are_written() {
        const SECOND: i64 = 1_000_000;
        for (names, slow) in [
            (["request_count", "latency_avg", "availability"], true),
            (["RequestCount", "AverageLatency", "Availability"], true),
            (["RequestCount", "AverageLatency", "Availability"], false),
            (["Requests", "LatencyP99", "ErrorRate"], false),
        ] {
            let mut case = Case { from: 600 * SECOND, to: 900 * SECOND, ..Case::default() };
            let [front, bank] = ["front", "bank"].map(|name| case.names.sym(name));
            (case.alert_service, case.topology) = (front, vec![(front, bank)]);
            case.alert_metric = Some(names[if slow { 1 } else { 2 }].into());
            for (service, own) in [(front, 0.07), (bank, 0.05)] {
                let wobble = |n: i64| 1.0 + 0.02 * ((n * n + service as i64) as f64).sin();
                let is_now = |n: i64| n * 15 * SECOND >= case.from;
                let level = |n: i64| own + if is_now(n) && slow { 0.4 } else { 0.0 };
                let lost = |n: i64| wobble(n) * if is_now(n) && !slow { 0.3 } else { 0.001 };
                let share = |n: i64| if names[2] == "ErrorRate" { lost(n) } else { 1.0 - lost(n) };
                let values: [&dyn Fn(i64) -> f64; 3] =
                    [&|n| 50.0 * wobble(n), &|n| level(n) * wobble(n), &share];
                for (metric, value) in names.iter().zip(values) {
                    let points = (0..60).map(|n| (n * 15 * SECOND, value(n))).collect();
                    case.series.push(CaseSeries { service, metric: (*metric).into(), points });
                }
            }
            let ranking = crate::diagnose::rank::rank(&case);
            let of_bank = ranking.ranked.iter().find(|r| r.service == "bank").expect("ranked");
            assert!(
                of_bank.evidence.iter().any(|e| e.kind == Kind::Impact),
                "{names:?} {slow}: {ranking:#?}"
            );
            assert_eq!(ranking.ranked[0].service, "bank", "{names:?} {slow}: {ranking:#?}");
        }
    }

    #[test]
    fn where_everybody_calls_everybody_all_is_reached_and_it_ends() {
        let pairs = || (0..16).flat_map(|a| (0..16).map(move |c| (a, c))).filter(|(a, c)| a != c);
        let case = Case { topology: pairs().collect(), ..Case::default() };
        let reached = reach(&case, &pairs().map(|pair| (pair, 1.0)).collect());
        assert_eq!(reached.len(), 16);
    }
}
