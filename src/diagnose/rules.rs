//! The rules tier: deterministic, needs nothing but evidence, always answers. Hands on claims that cite evidence, and one of
//! the offered playbooks.

use crate::{
    clock,
    model::{Claim, Evidence, EvidenceKind, Lead, Listed, Missing, Offer, Phrase, Said, Suggestion},
};

use super::{
    hypotheses::{self, Cause, Hypothesis, Scene},
    offers,
};

/// What the rules look at.
pub struct Case<'a> {
    pub scene: Scene<'a>,
    pub evidence: &'a [Evidence],
    pub missing: &'a [Missing],
    pub offers: &'a [Offer],
}

/// What a tier concludes.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub summary: Said,
    pub claims: Vec<Claim>,
    pub suggestion: Option<Suggestion>,
}

/// Enough to act on; more is noise at night.
const MAX_HYPOTHESES: usize = 4;

pub fn conclude(case: &Case<'_>) -> Conclusion {
    let ranked = hypotheses::order(case.evidence, case.scene);
    let hypotheses: Vec<Claim> = ranked.iter().take(MAX_HYPOTHESES).map(|h| claim(h, case)).collect();
    let mut summary = match hypotheses.first() {
        Some(best) => Phrase::MostLikely { claim: best.text.clone() },
        None => Phrase::NoClearCause { facts: case.evidence.len() as i64 },
    };
    if !case.missing.is_empty() && hypotheses.is_empty() {
        let mut sources: Vec<&str> = case.missing.iter().map(|m| m.source.as_str()).collect();
        sources.dedup();
        summary = Phrase::NotAllAsked { summary: summary.into(), sources: sources.join(", ") };
    }
    let claims = symptom(case).into_iter().chain(hypotheses).collect();
    Conclusion { summary: summary.into(), claims, suggestion: suggest(case) }
}

/// The alerts themselves: not a cause, but what everything else has to explain.
fn symptom(case: &Case<'_>) -> Option<Claim> {
    let alerts: Vec<&Evidence> =
        case.evidence.iter().filter(|e| e.kind == EvidenceKind::Alert).take(5).collect();
    let first = alerts.first()?;
    let named = first.summary.clone();
    let text = match alerts.len() {
        1 => Phrase::Symptom { alerts: named },
        n => Phrase::SymptomAndMore { alerts: named, more: n as i64 - 1 },
    };
    Some(Claim { text: text.into(), evidence: alerts.iter().map(|e| e.id.clone()).collect() })
}

fn claim(h: &Hypothesis<'_>, case: &Case<'_>) -> Claim {
    let first = h.evidence[0];
    let (what, service) = (first.summary.clone(), h.service.to_owned());
    let lead = Lead(clock::between(first.observed_at, case.scene.onset));
    let text = match h.cause {
        Cause::Change => {
            Phrase::ChangeBeforeOnset { lead, what: first.data["what"].as_str().map_or(what, Said::from) }
        }
        Cause::Dependency => {
            Phrase::DependencyInTrouble { neighbour: service, service: case.scene.service.to_owned(), what }
        }
        Cause::Suspect if h.evidence.len() > 1 => {
            let each = h.evidence.iter().map(|e| e.summary.clone()).collect();
            let names: Vec<&str> = h.evidence.iter().map(|e| e.service.as_str()).collect();
            let what = Phrase::Reasons { reasons: Listed(each) }.into();
            Phrase::BeganInOneOf { services: names.join(", "), what }
        }
        Cause::Suspect => Phrase::BeganIn { service, what: reasons(first) },
        Cause::Silence => Phrase::FellSilent { service, what },
        Cause::Errors => Phrase::UnusualErrors { service, what },
        Cause::Lines => Phrase::ErrorLines { service, what },
        Cause::Metric => Phrase::MetricLeftItsRange { service, what },
        Cause::Past => Phrase::HappenedBefore { what },
    };
    Claim { text: text.into(), evidence: h.evidence.iter().map(|e| e.id.clone()).collect() }
}

/// Why the service is suspected, without saying its name again.
fn reasons(fact: &Evidence) -> Said {
    match fact.summary.phrase() {
        Some(Phrase::Suspect { reasons, .. }) => Phrase::Reasons { reasons: reasons.clone() }.into(),
        _ => fact.summary.clone(),
    }
}

/// What helped before, if it is offered again; else the first offer that needs no choice, one that mends something before one
/// that only looks. Never a playbook that has to guess a parameter.
fn suggest(case: &Case<'_>) -> Option<Suggestion> {
    let ready = |offer: &Offer| offers::bind(offer, &serde_json::Map::new()).ok();
    for e in case.evidence.iter().rev().filter(|e| e.kind == EvidenceKind::PastIncident) {
        let helped = e.data["helped"]["playbook"].as_str();
        if let Some(offer) = case.offers.iter().find(|o| Some(o.playbook.as_str()) == helped)
            && let Some(params) = ready(offer)
        {
            let why = format!("It helped before: {}", e.summary);
            return Some(Suggestion { playbook: offer.playbook.clone(), params, why });
        }
    }
    let mending = case.offers.iter().filter(|o| !o.read_only);
    mending.chain(case.offers.iter().filter(|o| o.read_only)).find_map(|offer| {
        let why = match offer.description.as_str() {
            "" => "It fits this incident.".to_owned(),
            when => format!("It fits this incident: {when}"),
        };
        Some(Suggestion { playbook: offer.playbook.clone(), params: ready(offer)?, why })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Language, OfferedParam};

    const ONSET: i64 = 1_800_000_000;

    fn fact(n: usize, kind: EvidenceKind, service: &str, at: i64, summary: &str, data: Value) -> Evidence {
        Evidence {
            id: format!("E{n}"),
            kind,
            source: "test".into(),
            service: service.into(),
            summary: summary.into(),
            data,
            observed_at: Timestamp::from_second(ONSET + at).expect("in range"),
        }
    }
    fn offer(playbook: &str, params: &[(&str, Option<Value>)]) -> Offer {
        let param = |(name, default): &(&str, Option<Value>)| {
            let schema = json!({"type": "integer"});
            ((*name).to_owned(), OfferedParam { schema, bound: None, default: default.clone() })
        };
        Offer {
            playbook: playbook.into(),
            title: playbook.into(),
            description: "When it hangs.".into(),
            params: params.iter().map(param).collect(),
            target: "shop".into(),
            read_only: false,
        }
    }
    fn concluded(evidence: &[Evidence], offers: &[Offer]) -> Conclusion {
        let callees = ["db".to_owned()];
        let onset = Timestamp::from_second(ONSET).expect("in range");
        let scene =
            Scene { service: "shop", onset, callees: &callees, change_window: Duration::from_secs(7200) };
        conclude(&Case { scene, evidence, missing: &[], offers })
    }

    fn alert() -> Evidence {
        fact(1, EvidenceKind::Alert, "shop", 0, "ShopDown: shop is down", json!({}))
    }
    fn deploy(n: usize, at: i64) -> Evidence {
        fact(n, EvidenceKind::Change, "shop", at, "deploy of shop: 1.4 → 1.5", json!({"what": "1.4 → 1.5"}))
    }
    fn errors(n: usize) -> Evidence {
        let kind = json!({"kind": "log_novelty"});
        fact(n, EvidenceKind::LogAnomaly, "shop", -5, "new error: out of memory", kind)
    }

    #[test]
    fn a_change_just_before_the_onset_comes_first_and_every_claim_cites() {
        let c = concluded(&[alert(), errors(2), deploy(3, -420)], &[]);
        assert_eq!(c.summary, "Most likely: A change came 7 min before the onset: 1.4 → 1.5");
        let cited: Vec<_> = c.claims.iter().map(|c| c.evidence.join(",")).collect();
        assert_eq!(cited, ["E1", "E3", "E2"]);
        assert_eq!(c.claims[0].text, "What broke: ShopDown: shop is down");
    }

    #[test]
    fn an_old_change_and_one_after_the_onset_are_no_suspects() {
        let c = concluded(&[alert(), deploy(2, -6600), deploy(3, 300), errors(4)], &[]);
        assert_eq!(
            c.summary,
            "Most likely: shop logs errors that it usually does not: new error: out of memory"
        );
        assert!(c.claims.iter().all(|c| !c.evidence.contains(&"E3".into())));
    }

    #[test]
    fn a_dependency_that_failed_first_explains_more_than_our_own_errors() {
        let db = fact(3, EvidenceKind::Alert, "db", -60, "DiskFull: db has no space left", json!({}));
        let c = concluded(&[alert(), errors(2), db], &[]);
        assert_eq!(
            c.summary.in_language(Language::Russian),
            "Вероятнее всего: db, от которого зависит shop, тоже не в порядке: DiskFull: db has no space left"
        );
    }

    #[test]
    fn the_alerts_own_expression_is_a_symptom_and_no_cause() {
        let range =
            fact(2, EvidenceKind::MetricRange, "shop", 0, "up: 0", json!({"deviates": true, "alert": true}));
        let c = concluded(&[alert(), range], &[]);
        assert_eq!(c.summary, "No clear cause among the facts at hand (2).");
        assert_eq!(c.claims.len(), 1);
    }

    #[test]
    fn suspects_that_are_about_as_likely_are_all_named() {
        let suspect = |n: usize, service: &str, among: u64| {
            let reasons = Listed(vec![format!("its reason {n}").into()]);
            let summary = Phrase::Suspect { place: n as i64, service: service.into(), reasons };
            let data = json!({"place": n, "among": among});
            Evidence { summary: summary.into(), ..fact(n + 1, EvidenceKind::Ranking, service, 0, "", data) }
        };
        let of = |among: u64| {
            let facts =
                [alert(), suspect(1, "bank", among), suspect(2, "stock", among), suspect(3, "mail", among)];
            let c = concluded(&facts, &[]);
            (c.claims[1].evidence.join(","), c.summary.to_string())
        };
        assert_eq!(of(1), ("E2".into(), "Most likely: It began in bank: its reason 1".into()));
        let (cited, summary) = of(2);
        assert_eq!(cited, "E2,E3");
        assert!(
            summary.contains("about as likely: bank, stock. Suspect 1 is bank: its reason 1; "),
            "{summary}"
        );
    }

    #[test]
    fn what_helped_before_is_suggested_first_and_nothing_that_needs_a_guess() {
        let past = json!({"helped": {"playbook": "restart"}});
        let past = fact(2, EvidenceKind::PastIncident, "shop", -90_000, "Incident abc was alike", past);
        let offers = [
            offer("scale", &[("count", None)]),
            offer("rollback", &[]),
            offer("restart", &[("wait", Some(json!(5)))]),
        ];
        let c = concluded(&[alert(), past], &offers);
        let s = c.suggestion.expect("suggested");
        assert_eq!((s.playbook.as_str(), s.params["wait"].as_i64()), ("restart", Some(5)));
        assert_eq!(s.why, "It helped before: Incident abc was alike");
        let look = Offer { read_only: true, ..offer("a-look", &[]) };
        let c = concluded(&[alert()], &[&[look][..], &offers].concat());
        assert_eq!(c.suggestion.expect("suggested").playbook, "rollback");
        assert_eq!(concluded(&[alert()], &offers[..1]).suggestion, None);
    }
}
