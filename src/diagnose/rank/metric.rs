//! Which series of a service (CPU, memory, latency, errors) left their usual range.

use super::hash::Map;

use super::evidence::{Evidence, Kind};
use super::families::{Reading, Sort};
use super::robust::{quantile, short, sorted, spread, surprise};
use crate::model::{
    Phrase,
    case::{Case, Sym},
};

/// A quantity of the usual interquartile range may well differ by this share of its level: constant series, rounded values.
const LEVEL: f64 = 0.05;
/// Spikes of the reference belong to what is usual: the robust spread is at least a quarter of the standard deviation, which
/// holds a single spike of 4 deviations at 16 of the spread.
const SPIKES: f64 = 0.25;
/// An idle service may well reach a fiftieth of what is typical for the metric in its fleet.
const FLEET: f64 = 0.02;
/// A changed series may be anywhere within about three decades, ln 10³ ≈ 7 wide: the density of that is 1/7, e⁻².
const SPAN: f64 = 2.0;

/// A leap of the reference speaks against those of the window that are up to so many times as far.
const AS_FAR: f64 = 2.0;
/// Parts of a reference that are looked at, and of those of all series of a kind.
const MAX_PARTS: usize = 16;
const MAX_LEAPS: usize = 4000;

/// The series that are judged, with what is known of others of their kind.
pub struct Judged<'a> {
    to: i64,
    series: Vec<&'a Reading<'a>>,
    /// The level of a kind of series.
    typical: Map<Fleet<'a>, f64>,
    leaps: Map<Fleet<'a>, Leaps>,
}

impl<'a> Judged<'a> {
    /// `traced`: services whose spans are known; spans tell their latency and errors more exactly.
    pub fn new(case: &Case, readings: &'a [Reading<'a>], traced: &[Sym], flows: bool) -> Self {
        let mut typical: Map<Fleet<'_>, Vec<f64>> = Map::default();
        for r in readings {
            let (reference, _) = sides(r, case.from, case.to);
            if !reference.is_empty() {
                typical.entry(fleet(r)).or_default().push(quantile(&reference, 0.5).abs());
            }
        }
        let typical = typical.into_iter().map(|(of, v)| (of, quantile(&sorted(v), 0.5))).collect();
        let counts = |r: &&Reading<'_>| {
            // A node's load is its tenants' together.
            if r.sort == Sort::Load || r.name.starts_with("node_") {
                return false;
            }
            if r.sort != Sort::Resource && (flows || traced.contains(&r.service)) {
                return false;
            }
            // Where requests are traced, a service that none of them passed isn't their cause; whom one of theirs calls without
            // a trace may be.
            let is_called = || case.topology.iter().any(|(a, b)| *b == r.service && traced.contains(a));
            traced.is_empty() || traced.contains(&r.service) || is_called()
        };
        let series: Vec<_> = readings.iter().filter(counts).collect();
        let leaps = leaps(case, &series, &typical);
        Self { to: case.to, series, typical, leaps }
    }

    /// For a fault that began at `onset`.
    pub fn evidence(&self, onset: i64) -> Vec<Evidence> {
        let mut looks: Map<Sym, f64> = Map::default();
        let mut all = Vec::new();
        for r in &self.series {
            let (reference, window) = sides(r, onset, self.to);
            if reference.len() < 5 || window.len() < 2 {
                continue;
            }
            let typical = self.typical.get(&fleet(r)).copied().unwrap_or(0.0);
            let away = away(&reference, &window, r.sort, typical);
            *looks.entry(r.service).or_default() += 1.0;
            let nats = match self.leaps.get(&fleet(r)) {
                Some(leaps) => -((-away.nats()).exp() + leaps.share(away.z)).ln(),
                None => away.nats(),
            };
            if nats > 0.0 {
                all.push(Evidence {
                    service: r.service,
                    kind: Kind::Metric,
                    nats,
                    looks: 1.0,
                    text: Phrase::MetricAway {
                        metric: r.title.to_owned(),
                        now: short(away.now),
                        usual: short(away.middle),
                        spread: short(away.scale),
                    },
                });
            }
        }
        for e in &mut all {
            e.looks = looks[&e.service];
        }
        all
    }
}

/// Series that measure the same of several services, or with several labels.
type Fleet<'a> = (&'a str, Sort);

fn fleet<'a>(r: &'a Reading<'_>) -> Fleet<'a> {
    (r.name, r.sort)
}

/// How far a series is from its reference.
struct Away {
    now: f64,
    middle: f64,
    scale: f64,
    /// In spreads, the bad way.
    z: f64,
}

impl Away {
    /// How much likelier if it changed than if it only drifted; negative if less.
    fn nats(&self) -> f64 {
        surprise(self.z.max(0.0)) - SPAN
    }
}

/// `reference`, `window`: sorted. `typical`: of the metric in its fleet.
fn away(reference: &[f64], window: &[f64], sort: Sort, typical: f64) -> Away {
    let middle = quantile(reference, 0.5);
    let n = reference.len() as f64;
    let mean = reference.iter().sum::<f64>() / n;
    let sd = (reference.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let scale = spread(reference).max(LEVEL * middle.abs()).max(SPIKES * sd).max(FLEET * typical).max(1e-9);
    let down = sort == Sort::Successes;
    // Three quarters of the way up, so that an onset late in the window shows; but two points at least: one is a spike.
    let now = if down {
        quantile(window, 0.25).max(window[1])
    } else {
        quantile(window, 0.75).min(window[window.len() - 2])
    };
    Away { now, middle, scale, z: (now - middle) / scale * if down { -1.0 } else { 1.0 } }
}

/// How far the series of a metric leap in their reference, where nothing is wrong; sorted.
#[derive(Default)]
struct Leaps(Vec<f64>);

impl Leaps {
    /// The share that is as far as `z`, or nearly.
    fn share(&self, z: f64) -> f64 {
        (self.0.len() - self.0.partition_point(|leap| leap * AS_FAR < z)) as f64 / self.0.len() as f64
    }
}

/// The question that is asked of the window, asked of equally long parts of each series' reference, but for its end, where the fault
/// may be at work already.
fn leaps<'a>(
    case: &Case,
    series: &[&'a Reading<'a>],
    typical: &Map<Fleet<'a>, f64>,
) -> Map<Fleet<'a>, Leaps> {
    let mut all: Map<_, Leaps> = Map::default();
    for s in series {
        let cut = s.points.partition_point(|p| p.0 < case.from);
        let window = s.points[cut..].partition_point(|p| p.0 <= case.to).min(cut / 2);
        if window < 2 || cut - window < 5 {
            continue;
        }
        let typical = typical.get(&fleet(s)).copied().unwrap_or(0.0);
        let leaps = &mut all.entry(fleet(s)).or_default().0;
        if leaps.len() >= MAX_LEAPS {
            continue;
        }
        for part in s.points[..cut - window].chunks_exact(window).take(MAX_PARTS) {
            let others = s.points[..cut].iter().filter(|p| !(part[0].0..=part[window - 1].0).contains(&p.0));
            let [part, others] =
                [sorted(part.iter().map(|p| p.1).collect()), sorted(others.map(|p| p.1).collect())];
            leaps.push(away(&others, &part, s.sort, typical).z);
        }
    }
    all.values_mut().for_each(|leaps| leaps.0.sort_by(f64::total_cmp));
    all
}

/// Values before `from`, and from then `to` the end, sorted.
fn sides(r: &Reading<'_>, from: i64, to: i64) -> (Vec<f64>, Vec<f64>) {
    let cut = r.points.partition_point(|p| p.0 < from);
    let end = r.points.partition_point(|p| p.0 <= to);
    let values = |p: &[(i64, f64)]| sorted(p.iter().map(|p| p.1).collect());
    (values(&r.points[..cut]), values(&r.points[cut..end.max(cut)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnose::rank::{Verdict, rank},
        model::case::CaseSeries,
    };

    /// Latencies of thirty idle services, a value a minute; of some one request in an hour takes long, of the last one now.
    fn idle(restless: usize) -> Case {
        let mut case = Case { from: 50, to: 54, ..Case::default() };
        for n in 0..30_usize {
            let service = case.names.sym(&format!("s{n}"));
            let long = |at: usize| (n < restless && at.abs_diff(5 + n) < 3) || (n == 29 && at >= 50);
            let value = |at: usize| if long(at) { 20.0 } else { 0.005 + (at % 3) as f64 * 1e-4 };
            let points = (0..55).map(|at| (at as i64, value(at))).collect();
            case.series.push(CaseSeries { service, metric: "latency_p99_s".into(), points });
        }
        case
    }

    #[test]
    fn a_leap_proves_as_much_as_it_is_rare() {
        let quiet = rank(&idle(0));
        assert_eq!((quiet.verdict, quiet.ranked[0].service.as_str()), (Verdict::Clear, "s29"));
        let restless = rank(&idle(10));
        assert_eq!(restless.verdict, Verdict::NoClearCause, "{:?}", restless.ranked);
        assert_eq!(restless.ranked[0].service, "s29", "a suspect it is");
    }
}
