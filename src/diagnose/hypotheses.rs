//! Orders what may have caused an incident, from its evidence alone. The numbers order hypotheses; they are not probabilities
//! and are shown to nobody.

use std::{cmp::Reverse, time::Duration};

use jiff::Timestamp;

use crate::{
    clock,
    model::{Evidence, EvidenceKind},
};

/// What kind of cause a hypothesis names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Change,
    /// The first suspect of the ranking over all services, or the first few.
    Suspect,
    Dependency,
    Silence,
    Errors,
    /// Error lines that no detector found unusual.
    Lines,
    Metric,
    Past,
}

/// A possible cause with the evidence that carries it, the most telling first.
#[derive(Clone, Debug)]
pub struct Hypothesis<'a> {
    pub cause: Cause,
    pub service: &'a str,
    pub score: f64,
    pub evidence: Vec<&'a Evidence>,
}

/// Where and when to look.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub service: &'a str,
    pub onset: Timestamp,
    /// What the service calls.
    pub callees: &'a [String],
    /// A change longer before the onset than this is no suspect.
    pub change_window: Duration,
}

/// An alert fires some time after the trouble began, and clocks differ a little.
const SLACK: Duration = Duration::from_secs(60);

/// Best first; equal ones by what they name, then by age.
pub fn order<'a>(evidence: &'a [Evidence], scene: Scene<'a>) -> Vec<Hypothesis<'a>> {
    let mut all: Vec<Hypothesis<'a>> = changes(evidence, scene).collect();
    all.extend(suspect(evidence));
    all.extend(own(evidence, scene));
    all.extend(scene.callees.iter().filter_map(|callee| dependency(evidence, scene, callee)));
    all.extend(past(evidence));
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.cause.cmp(&b.cause)));
    all
}

/// The nearer before the onset the likelier: half as likely for every 45 minutes; a neighbour's less than one's own.
fn changes<'a>(evidence: &'a [Evidence], scene: Scene<'a>) -> impl Iterator<Item = Hypothesis<'a>> {
    let suspects = evidence.iter().filter(move |e| {
        e.kind == EvidenceKind::Change
            && e.observed_at <= clock::after(scene.onset, SLACK)
            && clock::between(e.observed_at, scene.onset) <= scene.change_window
    });
    suspects.map(move |e| {
        let minutes = clock::between(e.observed_at, scene.onset).as_secs_f64() / 60.0;
        let weight = if e.service == scene.service { 0.95 } else { 0.6 };
        let score = weight * 0.5_f64.powf(minutes / 45.0);
        Hypothesis { cause: Cause::Change, service: &e.service, score, evidence: vec![e] }
    })
}

/// Signals of the service itself, one hypothesis for each kind of them.
fn own<'a>(evidence: &'a [Evidence], scene: Scene<'a>) -> impl Iterator<Item = Hypothesis<'a>> {
    let weights = [(Cause::Silence, 0.75), (Cause::Errors, 0.7), (Cause::Metric, 0.5), (Cause::Lines, 0.35)];
    weights.into_iter().filter_map(move |(cause, score)| {
        let mut found: Vec<_> =
            evidence.iter().filter(|e| e.service == scene.service && signals(e) == Some(cause)).collect();
        found.sort_by_key(|e| e.observed_at);
        found.truncate(4);
        (!found.is_empty()).then_some(Hypothesis { cause, service: scene.service, score, evidence: found })
    })
}

/// A service that ours calls and that shows signs of trouble; before ours it weighs more.
fn dependency<'a>(evidence: &'a [Evidence], scene: Scene<'a>, callee: &'a str) -> Option<Hypothesis<'a>> {
    let troubled =
        |e: &&Evidence| e.service == callee && (signals(e).is_some() || e.kind == EvidenceKind::Alert);
    let mut found: Vec<_> = evidence.iter().filter(troubled).collect();
    found.sort_by_key(|e| e.observed_at);
    let first = found.first()?.observed_at;
    found.truncate(4);
    let score = if first <= clock::after(scene.onset, SLACK) { 0.85 } else { 0.4 };
    Some(Hypothesis { cause: Cause::Dependency, service: callee, score, evidence: found })
}

/// Whom the newest ranking suspects: it has weighed all services, and found one clear, which only a change that came minutes
/// before outweighs, or a few that are about as likely.
fn suspect(evidence: &[Evidence]) -> Option<Hypothesis<'_>> {
    let at = |place: u64| {
        let is_there = move |e: &&Evidence| e.kind == EvidenceKind::Ranking && e.data["place"] == place;
        evidence.iter().rev().find(is_there)
    };
    let first = at(1)?;
    let among = first.data["among"].as_u64().unwrap_or(1);
    let score = if among > 1 { 0.8 } else { 0.9 };
    let evidence = std::iter::once(first).chain((2..=among).filter_map(at)).collect();
    Some(Hypothesis { cause: Cause::Suspect, service: &first.service, score, evidence })
}

fn past(evidence: &[Evidence]) -> impl Iterator<Item = Hypothesis<'_>> {
    let best = evidence
        .iter()
        .filter(|e| e.kind == EvidenceKind::PastIncident)
        .max_by_key(|e| (!e.data["helped"].is_null(), e.observed_at, Reverse(&e.id)));
    best.into_iter().map(|e| {
        let score = if e.data["helped"].is_null() { 0.3 } else { 0.45 };
        Hypothesis { cause: Cause::Past, service: &e.service, score, evidence: vec![e] }
    })
}

/// What a piece of evidence is a sign of; `None` for symptoms and circumstances.
fn signals(e: &Evidence) -> Option<Cause> {
    match e.kind {
        EvidenceKind::LogAnomaly if e.data["kind"] == "log_silence" => Some(Cause::Silence),
        // That values are others than usual is a symptom: of what, they do not say.
        EvidenceKind::LogAnomaly if e.data["kind"] == "log_values" => None,
        EvidenceKind::LogAnomaly => Some(Cause::Errors),
        EvidenceKind::LogLine => Some(Cause::Lines),
        EvidenceKind::MetricAnomaly => Some(Cause::Metric),
        // The alert's own expression deviates by definition.
        EvidenceKind::MetricRange if e.data["deviates"] == true && e.data["alert"] != true => {
            Some(Cause::Metric)
        }
        EvidenceKind::LogRate
        | EvidenceKind::MetricRange
        | EvidenceKind::Alert
        | EvidenceKind::Change
        | EvidenceKind::PastIncident
        | EvidenceKind::Ranking => None,
    }
}
