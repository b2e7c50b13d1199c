//! Who became slow by its own work, and calls to whom did.

use super::blame::{CALLEE, Earlier, PRIOR, VOTES};
use super::count::{Sides, rise_of, whole};
use super::evidence::{Evidence, Kind};
use super::hash::Map;
use super::observe::{Observed, Seen};
use super::robust::{quantile, sorted};
use crate::model::{
    Phrase,
    case::{Case, Sym},
};

/// Slow is above one of these quantiles of the reference. Several, as a fault may hit all requests a little or a few much; the
/// best counts, less ln 4 for having looked four times. The last is half as much again as the slowest of the reference.
const QUANTILES: [f64; LIMITS] = [0.75, 0.9, 0.98, 1.0];
const LIMITS: usize = 4;
/// … but at least half as much again as the median, and a millisecond more: less nobody would call slow.
const FACTOR: f64 = 1.5;
const MICROS: f64 = 1_000.0;
/// A slowdown counts in full from a tenth of a request's usual duration on; below, it can't be what the alert is about.
const FELT: f64 = 0.1;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    Place(u32),
    Edge(Sym, Sym),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Pool {
    Service(Sym),
    Place(u32),
    Calls(Sym),
    Edge(Sym, Sym),
}

struct Limits {
    mean: f64,
    at: [f64; LIMITS],
}

#[derive(Default)]
struct Votes {
    n: Sides,
    k: [Sides; LIMITS],
    /// Microseconds above the usual mean, per trace of the window.
    excess: f64,
    /// Of the best limit, before it is known whether it matters.
    nats: f64,
    best: usize,
}

pub struct Slow {
    limits: Map<Work, Limits>,
    pools: Map<Pool, Votes>,
    /// How much of the blame for slow calls goes to the callee.
    credit: Map<Sym, f64>,
    usual_duration: f64,
}

fn work(s: &Seen) -> Work {
    s.callee.map_or(Work::Place(s.place), |b| Work::Edge(s.service, b))
}

fn pools(s: &Seen) -> [Pool; 2] {
    s.callee.map_or([Pool::Service(s.service), Pool::Place(s.place)], |b| {
        [Pool::Calls(b), Pool::Edge(s.service, b)]
    })
}

pub fn find(o: &Observed) -> Slow {
    let limits = limits(o);
    let mut votes: Map<Pool, Votes> = Map::default();
    let (mut traces, mut durations) = (0.0, Vec::new());
    for t in &o.traces {
        let side = o.side(t.start);
        if side == 0 {
            durations.push(t.duration as f64);
        } else {
            traces += 1.0;
        }
        vote(side, &t.spans, &limits, &mut votes);
    }
    for v in votes.values_mut() {
        v.excess /= f64::max(traces, 1.0);
        for i in 0..LIMITS {
            let nats = rise_of(v.k[i], v.n, 0.5) - (LIMITS as f64).ln();
            if i == 0 || nats > v.nats {
                (v.nats, v.best) = (nats, i);
            }
        }
    }
    // One batch job among requests says nothing of them: no mean.
    let usual_duration = quantile(&sorted(durations), 0.5);
    let mut slow = Slow { limits, pools: votes, credit: Map::default(), usual_duration };
    slow.credit = callee_credit(&slow.pools);
    slow
}

fn limits(o: &Observed) -> Map<Work, Limits> {
    let mut times: Map<Work, Vec<f64>> = Map::default();
    for t in o.traces.iter().filter(|t| o.side(t.start) == 0) {
        for s in t.spans.iter().filter(|s| !s.silent) {
            times.entry(work(s)).or_default().push(s.own as f64);
        }
    }
    times
        .into_iter()
        .filter_map(|(w, times)| {
            let v = sorted(times);
            if v.len() < 2 {
                return None;
            }
            let median = quantile(&v, 0.5);
            let at = QUANTILES.map(|q| {
                let known = quantile(&v, q) * if q < 1.0 { 1.0 } else { FACTOR };
                known.max(median * FACTOR).max(median + MICROS)
            });
            Some((w, Limits { mean: v.iter().sum::<f64>() / v.len() as f64, at }))
        })
        .collect()
}

/// Each trace has one vote in each pool.
fn vote(side: usize, spans: &[Seen], limits: &Map<Work, Limits>, votes: &mut Map<Pool, Votes>) {
    let mut times: Map<Pool, f64> = Map::default();
    let told = || spans.iter().filter(|s| !s.silent);
    let known = || told().filter_map(|s| limits.get(&work(s)).map(|l| (s, l)));
    for (s, _) in known() {
        for p in pools(s) {
            *times.entry(p).or_default() += 1.0;
        }
    }
    for (s, l) in known() {
        for p in pools(s) {
            let weight = 1.0 / times[&p];
            let v = votes.entry(p).or_default();
            v.n[side] += weight;
            for i in 0..LIMITS {
                if s.own as f64 > l.at[i] {
                    v.k[i][side] += weight;
                }
            }
            if side == 1 {
                v.excess += s.own as f64 - l.mean;
            }
        }
    }
}

/// An edge is slow because of one of its ends: that whose other edges are slow too. All that comes into the callee may be
/// slow while what it calls isn't (a delay before it answers); of a slow caller, everything is.
fn callee_credit(pools: &Map<Pool, Votes>) -> Map<Sym, f64> {
    let edges: Vec<(Sym, Sym, f64, f64)> = pools
        .iter()
        .filter_map(|(p, v)| match *p {
            Pool::Edge(a, b) => Some((a, b, v.n[1], (v.nats / 5.0).clamp(0.0, 1.0))),
            _ => None,
        })
        .collect();
    let slow_share = |s: Sym, except: (Sym, Sym), only_in: bool, prior: f64| {
        let mut sum = (prior * PRIOR, PRIOR);
        for e in edges.iter().filter(|e| (e.0, e.1) != except && (e.1 == s || (!only_in && e.0 == s))) {
            let weight = e.2.min(VOTES);
            sum = (sum.0 + weight * e.3, sum.1 + weight);
        }
        sum.0 / sum.1
    };
    let prior = CALLEE;
    let mut credit: Map<Sym, (f64, f64)> = Map::default();
    for &(a, b, n, slow) in &edges {
        let caller = slow_share(a, (a, b), false, 1.0 - prior);
        let callee = slow_share(b, (a, b), false, prior).max(slow_share(b, (a, b), true, prior));
        let weight = n * (slow + 0.01);
        let c = credit.entry(b).or_default();
        *c = (c.0 + weight * callee / (caller + callee), c.1 + weight);
    }
    credit.into_iter().map(|(s, c)| (s, if c.1 > 0.0 { c.0 / c.1 } else { 0.5 })).collect()
}

impl Slow {
    fn nats(&self, v: &Votes) -> f64 {
        v.nats * (v.excess / (FELT * self.usual_duration)).clamp(0.0, 1.0)
    }

    pub fn evidence(&self, case: &Case, o: &Observed) -> Vec<Evidence> {
        let mut places: Map<Sym, f64> = Map::default();
        for pool in self.pools.keys() {
            if let Pool::Place(p) = pool {
                *places.entry(o.places.all[*p as usize].service).or_default() += 1.0;
            }
        }
        let looks = |s: Sym| 1.0 + places.get(&s).copied().unwrap_or(0.0);
        let mut all = Vec::new();
        for (pool, v) in self.pools.iter().filter(|(_, v)| v.nats > 0.0) {
            let nats = self.nats(v);
            let k = v.k[v.best];
            let [now, of] = [k[1], v.n[1]].map(whole);
            let [before, of_before] = [k[0], v.n[0]].map(whole);
            let more = format!("{:.1}", v.excess / 1e3);
            match *pool {
                Pool::Service(service) => {
                    let text = Phrase::SlowWork { now, of, before, of_before, more };
                    all.push(Evidence { service, kind: Kind::Slow, nats, looks: looks(service), text });
                }
                Pool::Place(p) => {
                    let place = &o.places.all[p as usize];
                    let operation = case.names.text(place.operation).to_owned();
                    let text = Phrase::SlowOperation { operation, now, of, before, of_before, more };
                    all.push(Evidence {
                        service: place.service,
                        kind: Kind::Slow,
                        nats,
                        looks: looks(place.service),
                        text,
                    });
                }
                Pool::Calls(b) => {
                    let callee = case.names.text(b).to_owned();
                    let text = Phrase::SlowCalls { service: callee, now, of, before, of_before, more };
                    let credit = self.credit.get(&b).copied().unwrap_or(0.5);
                    all.push(Evidence {
                        service: b,
                        kind: Kind::Edge,
                        nats: nats * credit,
                        looks: 1.0,
                        text: text.clone(),
                    });
                    let callers: Vec<(Sym, f64)> = self
                        .pools
                        .iter()
                        .filter_map(|(p, v)| match *p {
                            Pool::Edge(a, to) if to == b => Some((a, v.k[v.best][1])),
                            _ => None,
                        })
                        .collect();
                    let sum: f64 = callers.iter().map(|c| c.1).sum();
                    for (a, share) in callers.into_iter().filter(|c| c.1 > 0.0) {
                        let nats = nats * (1.0 - credit) * share / sum;
                        all.push(Evidence {
                            service: a,
                            kind: Kind::Edge,
                            nats,
                            looks: 1.0,
                            text: text.clone(),
                        });
                    }
                }
                Pool::Edge(..) => {}
            }
        }
        all
    }

    /// The slow spans of a trace, as what may explain what came later in it.
    pub fn earlier(&self, spans: &[Seen]) -> Vec<Earlier> {
        let mut all = Vec::new();
        for s in spans {
            let Some(l) = self.limits.get(&work(s)) else { continue };
            let Some(v) = self.pools.get(&pools(s)[0]).filter(|v| v.nats > 0.0) else { continue };
            if s.own as f64 <= l.at[v.best] {
                continue;
            }
            let service = s.callee.unwrap_or(s.service);
            let credit = s.callee.map_or(1.0, |b| self.credit.get(&b).copied().unwrap_or(0.5));
            let nats = self.nats(v) * credit;
            if nats > 0.0 {
                all.push(Earlier { at: s.end, service, nats });
            }
        }
        all
    }
}
