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
mod hash;
mod impact;
mod lines;
mod metric;
mod observe;
mod robust;
mod silent;
mod slow;
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
    /// Whether the first of the ranking stands out.
    Verdict {
        Clear = "clear",
        NoClearCause = "no clear cause",
    }
);

/// The suspects, best first; only services with evidence are among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    pub verdict: Verdict,
    /// The score from which on the first is clear.
    pub bar: f64,
    pub ranked: Vec<Ranked>,
}

/// What the best service must have in nats beyond the logarithm of how many services there are, which are its prior odds:
/// e³ ≈ 20 : 1, "strong" (Kass & Raftery, Bayes Factors, JASA 1995).
const CLEAR: f64 = 3.0;
/// How long before the window a fault may already have been at work, in microseconds: an alert fires after its threshold was
/// held, and rules commonly hold for one or two minutes.
const UNSURE: i64 = 120_000_000;

/// Ranks; the same case gives the same ranking. Takes about as long as reading the case does.
pub fn rank(case: &Case) -> Ranking {
    let silent = silent::spans(case);
    let traces = trace::assemble(case, &silent);
    let observed = observe::observe(case, &traces);
    let slow = slow::find(&observed);
    let mut all = slow.evidence(case, &observed);
    all.extend(behaviour::evidence(case, &observed, |t| slow.earlier(&observed.traces[t].spans)));
    all.extend(lines::evidence(case, &observed));
    let flows = impact::evidence(case);
    let mut traced: Vec<Sym> = case.spans.iter().chain(&silent).map(|s| s.service).collect();
    traced.sort_unstable();
    traced.dedup();
    all.extend(metric::evidence(case, &traced, !flows.is_empty()));
    all.extend(flows);
    let services = services(case, &silent);
    all.extend(change::evidence(case, services));
    combine(case, all, services)
}

/// 0 = reference, 1 = the minutes before the window, in which the fault may have begun, 2 = window.
fn side(case: &Case, at: i64) -> usize {
    if at >= case.from { 2 } else { usize::from(at >= case.from - UNSURE) }
}

/// How many services there is telemetry of.
fn services(case: &Case, silent: &[CaseSpan]) -> usize {
    let spans = case.spans.iter().chain(silent).map(|s| s.service);
    let lines = case.lines.iter().map(|l| l.service);
    let all: BTreeSet<Sym> = spans.chain(lines).chain(case.series.iter().map(|s| s.service)).collect();
    all.len().max(1)
}

/// Kinds of evidence are different views and add up; within a kind, one thing shows in many places and counts once.
fn combine(case: &Case, all: Vec<Evidence>, services: usize) -> Ranking {
    let mut by: BTreeMap<Sym, Vec<Evidence>> = BTreeMap::new();
    for e in all {
        by.entry(e.service).or_default().push(e);
    }
    let mut ranked: Vec<Ranked> =
        by.into_iter().map(|(service, evidence)| ranked(case, service, evidence)).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.service.cmp(&b.service)));
    let bar = CLEAR + (services as f64).ln();
    let clear = ranked.first().is_some_and(|r| r.score >= bar);
    Ranking { verdict: if clear { Verdict::Clear } else { Verdict::NoClearCause }, bar, ranked }
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
