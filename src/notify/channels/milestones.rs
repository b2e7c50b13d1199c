//! For channels that cannot edit: which changes are worth a message of their own, and which were told already.

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
    let run = view.run.as_ref();
    match (run.map(|r| r.state), view.pending()) {
        (Some(RunState::NeedsHuman), _) => format!("human.{}", run.map_or("", |r| &r.id)),
        (_, Some(approval)) => format!("approval.{}", approval.id),
        (Some(RunState::Failed | RunState::RolledBack), _) => format!("failed.{}", run.map_or("", |r| &r.id)),
        _ => opened(view),
    }
}

fn opened(view: &IncidentView) -> String {
    format!("opened.{}", view.incident.episode)
}
