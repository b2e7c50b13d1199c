//! Which moments are worth a message of their own: all milestones where a channel cannot edit, and those at which a person
//! comes to be needed where it can, because an edit rings nobody.

use serde::{Deserialize, Serialize};

use crate::{model::RunState, notify::view::IncidentView};

/// The milestones that a channel has told; part of its reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told(Vec<String>);

impl Told {
    /// The milestone at which the incident stands, if it has not been told.
    pub fn next(&self, view: &IncidentView) -> Option<String> {
        let milestone = milestone(view);
        (!self.0.contains(&milestone)).then_some(milestone)
    }

    /// Whatever was told, the opening is known with it.
    pub fn add(&mut self, milestone: &str, view: &IncidentView) {
        for told in [milestone.to_owned(), opened(view)] {
            if !self.0.contains(&told) {
                self.0.push(told);
            }
        }
    }
}

/// Opened, approval needed, needs a human, failed, resolved; with what tells two of a kind apart.
fn milestone(view: &IncidentView) -> String {
    if !view.incident.is_open() {
        return format!("resolved.{}", view.incident.episode);
    }
    // Where everything is a message of its own, how the rollback ended is told with the failure.
    let undoing = view.run.as_ref().is_some_and(|r| r.state == RunState::RollingBack);
    need(view).filter(|_| !undoing).unwrap_or_else(|| opened(view))
}

/// The moment since which a person is needed, if one is: a question, a run that stands still, one that did not help.
pub fn need(view: &IncidentView) -> Option<String> {
    let run = view.run.as_ref();
    let id = run.map_or("", |r| &r.id);
    match (run.map(|r| r.state), view.pending()) {
        _ if !view.incident.is_open() => None,
        (Some(RunState::NeedsHuman), _) => Some(format!("human.{id}")),
        (_, Some(approval)) => Some(format!("approval.{}", approval.id)),
        (Some(RunState::Failed | RunState::RollingBack | RunState::RolledBack), _) => {
            Some(format!("failed.{id}"))
        }
        _ => None,
    }
}

fn opened(view: &IncidentView) -> String {
    format!("opened.{}", view.incident.episode)
}
