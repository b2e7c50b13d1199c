//! What requests did differently: things that newly happen, and things that no longer do although what they go with does.
//!
//! What was frequent all along and becomes more frequent is the workload's business, not evidence. A span that failed in
//! the reference tells nothing about what is usual. Blame goes to what deviated first inside a trace.

use super::blame::{CALLEE, Earlier, PRIOR, VOTES};
use super::count::{Sides, rise_of, rise_of_all, whole};
use super::evidence::{Evidence, Kind};
use super::hash::Map;
use super::observe::{ANY, Item, Observed, Seen};
use crate::model::{
    Phrase, Said,
    case::{Case, Gravity, Sym},
};

/// What happened in more than this share of the reference's spans isn't new; what was missing in more isn't a rule.
const RARE: f64 = 0.3;
/// An error that is gone is a change, and hardly a fault: a tie-breaker.
const GONE: f64 = 0.15;

/// Characters of a template that a sentence shows.
const MAX_TEMPLATE: usize = 120;

#[derive(Default)]
struct Counts {
    spans: Sides,
    /// Spans that did not fail.
    good: Sides,
    /// Spans of the window that only a caller tells of.
    silent: f64,
    with: Map<u32, Sides>,
    good_with: Map<u32, Sides>,
    both: Map<(u32, u32), Sides>,
    good_both: Map<(u32, u32), Sides>,
}

struct Deviation {
    /// Of one service.
    places: Vec<u32>,
    item: u32,
    /// `Some(given)`: missing although `given` happened. `None`: newly happens.
    missing: Option<u32>,
    nats: f64,
    k: Sides,
    n: Sides,
}

pub fn evidence(case: &Case, o: &Observed, earlier: impl Fn(usize) -> Vec<Earlier>) -> Vec<Evidence> {
    let (counts, coarse) = count(o);
    let mut all = Vec::new();
    let mut found: Vec<Deviation> = Vec::new();
    let mut looks: Map<Sym, f64> = Map::default();
    for (place, c) in counts.iter().enumerate().filter(|(_, c)| c.spans[1] > 0.0) {
        let any = &coarse[&o.places.all[place].any_caller()];
        if any.spans[0] < 1.0 {
            continue;
        }
        let looked = newly(o, place as u32, c, any, &mut found) + no_longer(o, place as u32, c, &mut found);
        *looks.entry(o.places.all[place].service).or_default() += looked;
        gone(case, o, place as u32, c, &mut all);
    }
    whoever_calls(o, &counts, &mut found, &mut looks);
    share_with_callers(o, &counts, &mut found);
    let own = attribute(o, &found, earlier);
    for (d, own) in found.iter().zip(own) {
        all.push(Evidence {
            service: o.places.all[d.places[0] as usize].service,
            kind: Kind::Behaviour,
            nats: d.nats * own,
            looks: looks[&o.places.all[d.places[0] as usize].service],
            text: sentence(case, o, d),
        });
    }
    all
}

fn count(o: &Observed) -> (Vec<Counts>, Map<super::observe::Place, Counts>) {
    let mut fine: Vec<Counts> = Vec::new();
    fine.resize_with(o.places.all.len(), Counts::default);
    let mut coarse: Map<super::observe::Place, Counts> = Map::default();
    for t in &o.traces {
        let side = o.side(t.start);
        for s in &t.spans {
            let any = coarse.entry(o.places.all[s.place as usize].any_caller()).or_default();
            let place = &mut fine[s.place as usize];
            for c in [&mut *place, any] {
                add(c, s, side);
            }
            pairs(place, s, side);
        }
    }
    (fine, coarse)
}

fn add(c: &mut Counts, s: &Seen, side: usize) {
    c.spans[side] += s.weight;
    if !s.failed {
        c.good[side] += s.weight;
    }
    if s.silent && side == 1 {
        c.silent += s.weight;
    }
    for (i, _) in &s.items {
        c.with.entry(*i).or_default()[side] += s.weight;
        if !s.failed {
            c.good_with.entry(*i).or_default()[side] += s.weight;
        }
    }
}

fn pairs(c: &mut Counts, s: &Seen, side: usize) {
    for (i, _) in &s.items {
        for (j, _) in s.items.iter().filter(|j| j.0 != *i) {
            c.both.entry((*i, *j)).or_default()[side] += s.weight;
            if !s.failed && side == 0 {
                c.good_both.entry((*i, *j)).or_default()[side] += s.weight;
            }
        }
    }
}

/// Errors are counted in all spans; anything else in those that did not fail, else the end of an old failure looks like news.
fn newly(o: &Observed, place: u32, c: &Counts, any: &Counts, found: &mut Vec<Deviation>) -> f64 {
    let mut looked = 0.0;
    for (&item, with) in &c.with {
        let error = o.items.all[item as usize].is_error();
        let of = |c: &Counts| {
            if error {
                (c.with.get(&item).copied(), c.spans)
            } else {
                (c.good_with.get(&item).copied(), c.good)
            }
        };
        let (Some(k), n) = of(c) else { continue };
        let (wide, wide_n) = of(any);
        let wide = wide.unwrap_or_default();
        debug_assert!(with[1] >= k[1]);
        if k[1] <= 0.0 || (!error && k[0] > RARE * n[0]) {
            continue;
        }
        // A new way to get here is the caller's news; only errors on it are this place's.
        if !error && n[0] < 2.0 {
            continue;
        }
        // What other callers' requests show is the prior for this one's (Jeffreys' ½ for nothing at all).
        let prior = (wide[0] + 0.5) / (wide_n[0] + 1.0);
        looked += 1.0;
        let nats = rise_of(k, n, prior);
        if nats > 0.0 {
            found.push(Deviation { places: vec![place], item, missing: None, nats, k, n });
        }
    }
    looked
}

fn no_longer(o: &Observed, place: u32, c: &Counts, found: &mut Vec<Deviation>) -> f64 {
    let mut looked = 0.0;
    for (&item, with) in &c.with {
        if o.items.all[item as usize].is_error() || with[0] <= 0.0 {
            continue;
        }
        let mut best: Option<Deviation> = None;
        for given in std::iter::once(ANY).chain(c.with.keys().copied()) {
            if given == item || o.items.all[given as usize].is_error() {
                continue;
            }
            let at = |m: &Map<u32, Sides>, key: u32| m.get(&key).copied().unwrap_or_default();
            let (all_n, good_n, all_k, good_k) = if given == ANY {
                (c.spans, c.good, *with, at(&c.good_with, item))
            } else {
                let both = |m: &Map<(u32, u32), Sides>| m.get(&(given, item)).copied().unwrap_or_default();
                (at(&c.with, given), at(&c.good_with, given), both(&c.both), both(&c.good_both))
            };
            let n = [good_n[0], all_n[1]];
            if n[1] <= 0.0 || n[0] < 2.0 {
                continue;
            }
            let k = [n[0] - good_k[0], n[1] - all_k[1]];
            if k[0] > RARE * n[0] {
                continue;
            }
            let nats = rise_of(k, n, 0.5);
            if best.as_ref().is_none_or(|b| nats > b.nats) {
                best = Some(Deviation { places: vec![place], item, missing: Some(given), nats, k, n });
            }
        }
        looked += f64::from(u8::from(best.is_some()));
        found.extend(best.filter(|b| b.nats > 0.0));
    }
    looked
}

fn gone(case: &Case, o: &Observed, place: u32, c: &Counts, all: &mut Vec<Evidence>) {
    for (&item, with) in c.with.iter().filter(|(i, w)| o.items.all[**i as usize].is_error() && w[0] > 0.0) {
        let k: Sides = std::array::from_fn(|s| c.spans[s] - with[s]);
        let nats = rise_of(k, c.spans, 0.5);
        if nats > 0.0 {
            let p = &o.places.all[place as usize];
            let operation = case.names.text(p.operation).to_owned();
            let text = Phrase::ErrorGone { operation, what: name(case, o, item) };
            all.push(Evidence { service: p.service, kind: Kind::Gone, nats: nats * GONE, looks: 1.0, text });
        }
    }
}

/// What happens at a place whoever calls: each caller's requests are few, and what is wrong with the place concerns them all. What
/// is expected follows the window's mix of callers.
fn whoever_calls(o: &Observed, counts: &[Counts], found: &mut Vec<Deviation>, looks: &mut Map<Sym, f64>) {
    let mut groups: Map<super::observe::Place, Vec<u32>> = Map::default();
    for (n, place) in o.places.all.iter().enumerate() {
        groups.entry(place.any_caller()).or_default().push(n as u32);
    }
    for (place, members) in groups.iter().filter(|(_, members)| members.len() > 1) {
        let mut items: Vec<u32> =
            members.iter().flat_map(|m| counts[*m as usize].with.keys().copied()).collect();
        items.sort_unstable();
        items.dedup();
        for item in items {
            let error = o.items.all[item as usize].is_error();
            let parts: Vec<(Sides, Sides)> = members
                .iter()
                .map(|m| {
                    let c = &counts[*m as usize];
                    let with = if error { &c.with } else { &c.good_with };
                    (with.get(&item).copied().unwrap_or_default(), if error { c.spans } else { c.good })
                })
                // A new way to get here is the caller's news.
                .filter(|(_, n)| n[0] >= 2.0 || error)
                .collect();
            let sum = |of: fn(&(Sides, Sides)) -> Sides| {
                parts.iter().map(of).fold([0.0; 2], |s: Sides, x| std::array::from_fn(|i| s[i] + x[i]))
            };
            let (k, n) = (sum(|p| p.0), sum(|p| p.1));
            if k[1] <= 0.0 || n[0] < 1.0 || (!error && k[0] > RARE * n[0]) {
                continue;
            }
            *looks.entry(place.service).or_default() += 1.0;
            let nats = rise_of_all(&parts, (k[0] + 0.5) / (n[0] + 1.0));
            if nats > 0.0 {
                found.push(Deviation { places: members.clone(), item, missing: None, nats, k, n });
            }
        }
    }
}

/// What a caller tells of a silent callee may as well be the caller's own doing: the callee has as much of it as other callers
/// say the same, and to begin with what the answering end of an edge has.
fn share_with_callers(o: &Observed, counts: &[Counts], found: &mut [Deviation]) {
    let places = || o.places.all.iter().zip(counts);
    for d in found {
        let (place, silent) = (o.places.all[d.places[0] as usize], counts[d.places[0] as usize].silent);
        if silent <= 0.0 {
            continue;
        }
        let others = places()
            .filter(|(p, c)| p.service == place.service && p.caller.0 != place.caller.0 && c.spans[1] > 0.0);
        let (bad, all) = others.fold((CALLEE * PRIOR, PRIOR), |(bad, all), (_, c)| {
            let weight = c.spans[1].min(VOTES);
            (bad + weight * (1.0 - c.good[1] / c.spans[1]), all + weight)
        });
        d.nats *= 1.0 - silent / counts[d.places[0] as usize].spans[1] * (1.0 - bad / all);
    }
}

/// The share of each deviation that nothing earlier in the same trace, in another service, explains: it explains as much as
/// it is as sure as what it explains.
fn attribute(o: &Observed, found: &[Deviation], earlier: impl Fn(usize) -> Vec<Earlier>) -> Vec<f64> {
    let mut at_place: Map<u32, Vec<usize>> = Map::default();
    for (i, d) in found.iter().enumerate() {
        d.places.iter().for_each(|place| at_place.entry(*place).or_default().push(i));
    }
    let mut credit = vec![[0.0; 2]; found.len()];
    for (n, t) in o.traces.iter().enumerate().filter(|(_, t)| o.side(t.start) == 1) {
        let mut events: Vec<(i64, Sym, f64, f64, Option<usize>)> = Vec::new();
        for s in &t.spans {
            for &i in at_place.get(&s.place).into_iter().flatten() {
                if let Some(at) = happened(o, s, &found[i]) {
                    events.push((at, s.service, found[i].nats, s.weight, Some(i)));
                }
            }
        }
        events.extend(earlier(n).into_iter().map(|e| (e.at, e.service, e.nats, 0.0, None)));
        events.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.total_cmp(&a.2)).then(a.4.cmp(&b.4)));
        let mut strongest: Vec<(Sym, f64)> = Vec::new();
        for (_, service, nats, weight, deviation) in events {
            let before = strongest.iter().filter(|s| s.0 != service).map(|s| s.1).fold(0.0, f64::max);
            if let Some(i) = deviation {
                credit[i][0] += weight * (1.0 - (before / nats).min(1.0));
                credit[i][1] += weight;
            }
            match strongest.iter_mut().find(|s| s.0 == service) {
                Some(s) => s.1 = s.1.max(nats),
                None => strongest.push((service, nats)),
            }
        }
    }
    credit.iter().map(|c| if c[1] > 0.0 { c[0] / c[1] } else { 0.0 }).collect()
}

/// When the deviation showed in this span: as it happened, or at the end if something is missing.
fn happened(o: &Observed, s: &Seen, d: &Deviation) -> Option<i64> {
    let when = |item: u32| s.items.iter().find(|i| i.0 == item).map(|i| i.1);
    match d.missing {
        None => when(d.item).filter(|_| !s.failed || o.items.all[d.item as usize].is_error()),
        Some(given) => (when(d.item).is_none() && (given == ANY || when(given).is_some())).then_some(s.end),
    }
}

fn sentence(case: &Case, o: &Observed, d: &Deviation) -> Phrase {
    let operation = case.names.text(o.places.all[d.places[0] as usize].operation).to_owned();
    let what = name(case, o, d.item);
    let [now, of] = [d.k[1], d.n[1]].map(whole);
    let [before, of_before] = [d.k[0], d.n[0]].map(whole);
    match d.missing {
        None => Phrase::NewlyHappens { operation, what, now, of, before, of_before },
        Some(ANY) => Phrase::NoLongerHappens { operation, what, now, of, before, of_before },
        Some(given) => {
            let given = name(case, o, given);
            Phrase::MissingDespite { operation, what, given, now, of, before, of_before }
        }
    }
}

/// What an item is called in a sentence.
pub fn name(case: &Case, o: &Observed, id: u32) -> Said {
    let text = |sym: Sym| case.names.text(sym).to_owned();
    match o.items.all[id as usize] {
        Item::Any | Item::Line => Phrase::AnyLine {},
        Item::Log(template, gravity) => line(case, template, gravity),
        Item::Call(service, operation) => {
            Phrase::CallOf { service: text(service), operation: text(operation) }
        }
        Item::Inner(operation) => Phrase::InnerStep { operation: text(operation) },
        Item::Failed => Phrase::ErrorStatus {},
    }
    .into()
}

/// What a log template is called in a sentence.
pub fn line(case: &Case, template: u32, gravity: Gravity) -> Phrase {
    let template = case.templates[template as usize].chars().take(MAX_TEMPLATE).collect();
    match gravity {
        Gravity::Error => Phrase::ErrorLine { template },
        Gravity::Warning => Phrase::WarningLine { template },
        Gravity::Ordinary => Phrase::OrdinaryLine { template },
    }
}
