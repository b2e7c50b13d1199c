//! Ranks the services of an incident by how likely each is its root cause, from spans, log lines, metrics, the call graph and
//! announced changes. Hands on sentences that say why, each with its weight.
//!
//! Every piece of evidence is the logarithm of how much likelier the data is if this service changed than if it only drifted
//! as services do: nats, which add up. `docs/detection.md` explains the parts and measures them.

mod behaviour;
mod blame;
mod change;
mod count;
mod evidence;
mod families;
mod hash;
mod impact;
mod lines;
mod metric;
mod observe;
mod robust;
mod silent;
mod slow;
mod steps;
mod trace;

use std::collections::{BTreeMap, BTreeSet};

use evidence::together;
pub use evidence::{Evidence, Kind};

use crate::model::case::{Case, CaseSpan, Sym};

/// A service with what speaks against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    pub service: String,
    /// Nats.
    pub score: f64,
    /// The strongest first.
    pub evidence: Vec<Evidence>,
}

crate::model::words!(
    /// Whether the first of the ranking stands out, from what services usually do and from the others.
    Verdict {
        Clear = "clear",
        /// The cause is among the first few, which are about as likely.
        OneOfSeveral = "one of several",
        NoClearCause = "no clear cause",
    }
);

/// The suspects, best first; only services with evidence are among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    pub verdict: Verdict,
    /// The first so many are suspected, each of which may be it; 0 if no cause is clear.
    pub among: usize,
    /// The score that the first must have.
    pub bar: f64,
    pub ranked: Vec<Ranked>,
}

/// What the best service must have in nats beyond the logarithm of how many services there are, which are its prior odds:
/// e³ ≈ 20 : 1, "strong" (Kass & Raftery, Bayes Factors, JASA 1995).
const CLEAR: f64 = 3.0;
/// Suspects that are few enough to look at.
const FEW: usize = 3;
/// A fault may have been at work for so long when the window begins, in microseconds: an alert fires after its threshold was
/// held, and rules commonly hold for one or two minutes.
const ONSETS: [i64; 5] = [0, 30_000_000, 60_000_000, 90_000_000, 120_000_000];

/// Ranks; the same case gives the same ranking. Takes a few times as long as reading the case does.
pub fn rank(case: &Case) -> Ranking {
    let silent = silent::spans(case);
    let traces = trace::assemble(case, &silent);
    let mut observed = observe::observe(case, &traces);
    let readings = families::read(&case.series);
    let flows = impact::evidence(case, &readings);
    let mut traced: Vec<Sym> = case.spans.iter().chain(&silent).map(|s| s.service).collect();
    traced.sort_unstable();
    traced.dedup();
    let services = services(case, &silent);
    let metrics = metric::Judged::new(case, &readings, &traced, !flows.is_empty());
    let mut whenever = flows;
    whenever.extend(change::evidence(case, services));
    let mut ranked: Vec<Ranked> = Vec::new();
    for (n, before) in ONSETS.into_iter().enumerate() {
        observed.onset = case.from - before;
        let slow = slow::find(&observed);
        let mut all = whenever.clone();
        all.extend(metrics.evidence(observed.onset));
        all.extend(slow.evidence(case, &observed));
        all.extend(behaviour::evidence(case, &observed, |t| slow.earlier(&observed.traces[t].spans)));
        all.extend(lines::evidence(case, &observed));
        let since = combine(case, all);
        if n == 0 || any_cause(&since) > any_cause(&ranked) {
            ranked = since;
        }
    }
    let bar = CLEAR + (services as f64).ln();
    let suspected = ranked.first().filter(|r| r.score >= bar).and_then(|_| suspects(&ranked));
    let verdict = match suspected {
        None => Verdict::NoClearCause,
        Some(1) => Verdict::Clear,
        Some(_) => Verdict::OneOfSeveral,
    };
    Ranking { verdict, among: suspected.unwrap_or(0), bar, ranked }
}

/// How many of the first are together so much likelier than all the others together, as one is the cause; none if they are many.
fn suspects(ranked: &[Ranked]) -> Option<usize> {
    let top = ranked.first()?.score;
    // Without evidence, a service is not suspected at all.
    let odds = |r: &Ranked| (r.score - top).exp() - (-top).exp();
    let all: f64 = ranked.iter().map(odds).sum();
    let sums = ranked.iter().take(FEW).scan(0.0, |sum, r| {
        *sum += odds(r);
        Some(*sum)
    });
    sums.zip(1..).find(|(sum, _)| *sum >= CLEAR.exp() * (all - sum)).map(|(_, count)| count)
}

/// ln of how much likelier the data is if one of the services is the cause, all alike, than if none is (up to a constant):
/// the onset that makes it largest is the one that all of them are judged by.
fn any_cause(ranked: &[Ranked]) -> f64 {
    let top = ranked.first().map_or(0.0, |r| r.score);
    top + ranked.iter().map(|r| (r.score - top).exp()).sum::<f64>().ln()
}

/// How many services there is telemetry of.
fn services(case: &Case, silent: &[CaseSpan]) -> usize {
    let spans = case.spans.iter().chain(silent).map(|s| s.service);
    let lines = case.lines.iter().map(|l| l.service);
    let all: BTreeSet<Sym> = spans.chain(lines).chain(case.series.iter().map(|s| s.service)).collect();
    all.len().max(1)
}

/// Kinds of evidence are different views and add up; within a kind, one thing shows in many places and counts once.
fn combine(case: &Case, all: Vec<Evidence>) -> Vec<Ranked> {
    let mut by: BTreeMap<Sym, Vec<Evidence>> = BTreeMap::new();
    for e in all {
        by.entry(e.service).or_default().push(e);
    }
    let mut ranked: Vec<Ranked> =
        by.into_iter().map(|(service, evidence)| ranked(case, service, evidence)).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.service.cmp(&b.service)));
    ranked
}

fn ranked(case: &Case, service: Sym, mut evidence: Vec<Evidence>) -> Ranked {
    let kinds: BTreeSet<Kind> = evidence.iter().map(|e| e.kind).collect();
    let score = kinds.iter().map(|k| together(evidence.iter().filter(|e| e.kind == *k))).sum();
    for e in &mut evidence {
        (e.nats, e.looks) = (together(std::iter::once(&*e)), 1.0);
    }
    evidence
        .sort_by(|a, b| b.nats.total_cmp(&a.nats).then_with(|| a.text.to_string().cmp(&b.text.to_string())));
    Ranked { service: case.names.text(service).to_owned(), score, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_suspects_that_are_about_as_likely_none_is_clear() {
        let among = |scores: &[f64]| {
            let ranked = |s: &f64| Ranked { service: String::new(), score: *s, evidence: Vec::new() };
            suspects(&scores.iter().map(ranked).collect::<Vec<_>>())
        };
        assert_eq!(among(&[]), None);
        assert_eq!(among(&[10.0]), Some(1));
        assert_eq!(among(&[10.0, 6.5, 1.0, 0.0, 0.0]), Some(1));
        assert_eq!(among(&[10.0, 7.5, 1.0]), Some(2));
        assert_eq!(among(&[800.0, 799.0, 798.0]), Some(3));
        assert_eq!(among(&[10.0, 10.0, 10.0, 10.0]), None, "everybody is no answer");
        assert_eq!(among(&[4.0; 1000]), None);
    }
}
