//! What a message is about: everything we know of one incident at one moment.

use crate::{
    model::{Alert, Approval, Diagnosis, Evidence, Incident, Run, TimelineEntry, TimelineKind},
    store::{self, Tx},
};

/// A message shows the last few lines of the story; those of a flood are thousands.
const TIMELINE: i64 = 50;
/// What other parts of a message say already.
pub(super) const SAID_ELSEWHERE: [TimelineKind; 5] = [
    TimelineKind::Evidence,
    TimelineKind::Notified,
    TimelineKind::NotifyFailed,
    TimelineKind::StepStarted,
    TimelineKind::StepFinished,
];

/// One snapshot of an incident with its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentView {
    pub incident: Incident,
    pub alerts: Vec<Alert>,
    /// The newest one.
    pub diagnosis: Option<Diagnosis>,
    pub evidence: Vec<Evidence>,
    /// The newest one.
    pub approval: Option<Approval>,
    /// The newest one, with its steps.
    pub run: Option<Run>,
    /// The newest lines that nothing else in a message says, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Channels that could not be told.
    pub unreached: Vec<String>,
}

impl IncidentView {
    /// Reads the parts in the caller's transaction, which read the incident.
    pub async fn of(tx: &mut Tx, incident: Incident) -> store::Result<Self> {
        let id = incident.id.as_str();
        let messages = store::messages::of(tx, id).await?;
        Ok(Self {
            alerts: store::alerts::of(tx, id, store::alerts::LOOKED_AT).await?,
            diagnosis: store::diagnoses::latest(tx, id).await?,
            evidence: store::evidence::of(tx, id).await?,
            approval: store::approvals::of(tx, id).await?.into_iter().max_by_key(|a| a.requested_at),
            run: store::runs::of(tx, id).await?.into_iter().max_by_key(|r| r.started_at),
            timeline: store::timeline::newest_of(tx, id, &SAID_ELSEWHERE, TIMELINE).await?,
            unreached: messages.into_iter().filter(|m| m.unreached).map(|m| m.channel).collect(),
            incident,
        })
    }
}
