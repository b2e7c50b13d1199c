//! The rules in their order, without I/O: the first that speaks against acting wins.

use std::collections::BTreeMap;

use super::{Case, Chosen};
use crate::{
    model::{ApprovalState, Offer, Phrase, RunState, Said},
    playbook::{Catalog, Refusal},
};

/// Why nothing is proposed.
pub(super) struct No {
    pub refusal: Refusal,
    /// People should see it: somebody proposed something, and it was refused.
    pub shown: bool,
}

fn no(clause: &str, why: impl Into<Said>) -> No {
    No { refusal: Refusal { clause: clause.into(), why: why.into() }, shown: false }
}

pub(super) fn choose(catalog: &Catalog, case: &Case, stopped: Option<Said>) -> Result<Chosen, No> {
    let incident = &case.incident;
    if !incident.is_open() {
        return Err(no("incident.state", "the incident is resolved"));
    }
    if let Some((clause, reason)) = incident.held_back() {
        return Err(no(clause, format!("nobody is to be asked: {reason}")));
    }
    if let Some(why) = stopped {
        return Err(No { shown: true, ..no("automation.stopped", Phrase::AutomationIs { stopped: why }) });
    }
    if let Some(run) = case.runs.iter().find(|r| !r.state.is_final()) {
        return Err(no("run under way", format!("{} is {}", run.plan.title, run.state)));
    }
    let chosen = suggested(catalog, case).unwrap_or_else(|| only_offer(catalog, case))?;
    already(case, &chosen)?;
    Ok(chosen)
}

/// The newest diagnosis that suggests anything.
fn suggested(catalog: &Catalog, case: &Case) -> Option<Result<Chosen, No>> {
    let (diagnosis, suggestion) =
        case.diagnoses.iter().rev().find_map(|d| d.suggestion.as_ref().map(|s| (d, s)))?;
    let plan = catalog.plan(&suggestion.playbook, &suggestion.params, Some(&case.facts()));
    Some(match plan {
        Ok(plan) => {
            let why = format!("suggested by the {} tier: {}", diagnosis.tier, suggestion.why);
            Ok(Chosen { plan, why })
        }
        Err(refusal) => Err(No { refusal, shown: true }),
    })
}

/// Nobody suggests anything: if exactly one playbook fits and nothing about it is open, it is worth a question.
fn only_offer(catalog: &Catalog, case: &Case) -> Result<Chosen, No> {
    let facts = case.facts();
    let (offers, refusals) = catalog.offers(&facts);
    let complete = |o: &Offer| o.params.values().all(|p| p.bound.is_some() || p.default.is_some());
    match offers.as_slice() {
        [offer] if complete(offer) => catalog
            .plan(&offer.playbook, &BTreeMap::new(), Some(&facts))
            .map(|plan| Chosen { plan, why: "the only playbook that fits".into() })
            .map_err(|refusal| No { refusal, shown: false }),
        [] => Err(match refusals.into_iter().next() {
            Some(refusal) => No { refusal, shown: false },
            None => no("playbooks match", "no playbook fits this incident"),
        }),
        several => {
            let ids = several.iter().map(|o| o.playbook.as_str()).collect::<Vec<_>>().join(", ");
            Err(no("diagnosis.suggestion", format!("no diagnosis chooses among {ids}")))
        }
    }
}

/// The same plan is not asked for twice, nor after a no, nor after it has been tried.
fn already(case: &Case, chosen: &Chosen) -> Result<(), No> {
    let hash = chosen.plan.hash();
    let began = case.episode_began();
    for a in case.approvals.iter().filter(|a| a.plan_hash == hash && a.requested_at >= began) {
        match a.state {
            ApprovalState::Pending => {
                return Err(no("approval pending", "people have been asked about this plan"));
            }
            ApprovalState::Rejected => {
                let by = a.decided_by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
                return Err(no(
                    "approval rejected",
                    format!("{by} has rejected this plan for this incident"),
                ));
            }
            _ => {}
        }
    }
    match case.runs.iter().rev().find(|r| r.plan_hash == hash && r.started_at >= began) {
        Some(run) if run.state == RunState::Succeeded => {
            Err(no("run tried", "this plan has run for this incident, and its verification held"))
        }
        Some(run) => {
            let why = format!("this plan was tried for this incident and {}: {}", run.state, run.outcome);
            Err(no("run tried", why))
        }
        None => Ok(()),
    }
}
