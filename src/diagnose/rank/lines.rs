//! Log lines that belong to no span: what a service writes in more of its moments than it used to.

use std::collections::BTreeSet;

use super::{
    behaviour::line,
    count::{Sides, rise_of, whole},
    evidence::{Evidence, Kind},
    hash::Map,
    observe::{Item, Observed},
};
use crate::model::{
    Phrase,
    case::{Case, Gravity, Sym},
};

/// What a line that is no error is worth: without spans the mix of requests isn't known, and one explanation in two is that
/// clients ask for something else.
const ORDINARY: f64 = 0.5;

type Moments = [BTreeSet<i64>; 2];

/// Compares the seconds (or minutes, where lines come summarised) with a template with those with any line: what is told
/// often in a busy second is no more than what is told once.
pub fn evidence(case: &Case, o: &Observed) -> Vec<Evidence> {
    let mut busy: Map<Sym, Moments> = Map::default();
    let mut told: Map<(Sym, u32), Moments> = Map::default();
    for l in &o.loose {
        let (side, second) = (o.side(l.at), l.at.div_euclid(1_000_000));
        busy.entry(l.service).or_default()[side].insert(second);
        told.entry((l.service, l.item)).or_default()[side].insert(second);
    }
    let mut looks: Map<Sym, f64> = Map::default();
    told.keys().for_each(|(service, _)| *looks.entry(*service).or_default() += 1.0);
    let mut all = Vec::new();
    for ((service, item), moments) in &told {
        let Item::Log(template, gravity) = o.items.all[*item as usize] else { continue };
        let k: Sides = std::array::from_fn(|s| moments[s].len() as f64);
        let n: Sides = std::array::from_fn(|s| busy[service][s].len() as f64);
        let nats = rise_of(k, n, 0.5) * if gravity == Gravity::Error { 1.0 } else { ORDINARY };
        if nats > 0.0 {
            let what = line(case, template, gravity).into();
            let [now, of] = [k[1], n[1]].map(whole);
            let [before, of_before] = [k[0], n[0]].map(whole);
            let text = Phrase::LineMoreOften { what, now, of, before, of_before };
            all.push(Evidence { service: *service, kind: Kind::Lines, nats, looks: looks[service], text });
        }
    }
    all
}
