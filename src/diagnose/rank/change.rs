//! Changes that were announced shortly before: not evidence of what happened, but a reason to expect it there.

use super::{Evidence, Kind, hash::Map};
use crate::{
    clock,
    model::{
        Lead, Phrase,
        case::{Case, Sym},
    },
};

/// About 70 % of outages come from changes to a live system (Beyer et al., Site Reliability Engineering, 2016, chapter 1).
const OF_OUTAGES: f64 = 0.7;
/// Minutes after which a change is half as likely to be the one: what breaks by a deploy mostly breaks within the hour.
const HALF: f64 = 45.0;
/// An alert fires some time after the trouble began, and clocks differ a little (microseconds).
const SLACK: i64 = 60_000_000;

/// ln of the prior odds of a changed service against one that was not changed: the changed ones share the outages that come
/// from changes, by how recent theirs is; the rest is shared by all `services` alike.
pub fn evidence(case: &Case, services: usize) -> Vec<Evidence> {
    let mut latest: Map<Sym, (f64, usize)> = Map::default();
    for (i, change) in case.changes.iter().enumerate().filter(|(_, c)| c.at <= case.from + SLACK) {
        let minutes = (case.from - change.at).max(0) as f64 / 60e6;
        let weight = 0.5_f64.powf(minutes / HALF);
        let best = latest.entry(change.service).or_insert((weight, i));
        if weight > best.0 {
            *best = (weight, i);
        }
    }
    let sum: f64 = latest.values().map(|(weight, _)| weight).sum();
    let top = latest.values().map(|(weight, _)| *weight).fold(0.0, f64::max);
    let by_change = OF_OUTAGES * top;
    let other = (1.0 - by_change) / services as f64;
    let told = latest.into_iter().map(|(service, (weight, i))| {
        let change = &case.changes[i];
        let lead = Lead(clock::between(clock::from_micros(change.at), clock::from_micros(case.from)));
        Evidence {
            service,
            kind: Kind::Change,
            nats: (1.0 + by_change * weight / sum / other).ln(),
            looks: 1.0,
            text: Phrase::ChangeBeforeOnset { lead, what: change.what.clone().into() },
        }
    });
    told.collect()
}
