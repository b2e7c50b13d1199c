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
        // After a month of half-lives it is nothing, and a share of nothing is no number.
        if weight <= 0.0 {
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::case::CaseChange;

    #[test]
    fn a_change_of_long_ago_is_no_reason() {
        let day = 86_400_000_000;
        let of = |ago: &[i64]| {
            let change = |(service, days): (usize, &i64)| CaseChange {
                at: 100 * day - days * day,
                service: service as Sym,
                what: "deployed".into(),
            };
            let changes = ago.iter().enumerate().map(change).collect();
            let case = Case { from: 100 * day, changes, ..Case::default() };
            evidence(&case, 10).iter().map(|e| (e.service, e.nats)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[60]), []);
        let recent = of(&[60, 0]);
        assert!(recent.len() == 1 && recent[0].0 == 1 && recent[0].1 > 2.0, "{recent:?}");
    }
}
