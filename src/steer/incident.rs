//! Acknowledging and resolving incidents.

use serde_json::json;

use super::{Error, Result};
use crate::{
    clock, metrics,
    model::{Actor, ApprovalState, Incident, IncidentState, Phrase, Said, Stage, TimelineKind},
    store,
    store::{
        Tx, approvals, audit,
        decisions::{self, About},
        incidents, timeline,
    },
};

/// By the whole id or its last characters; locked until the end of the transaction.
pub async fn find(tx: &mut Tx, id: &str) -> Result<Incident> {
    if let Some(incident) = incidents::lock(tx, id).await? {
        return Ok(incident);
    }
    incidents::by_short_id(tx, id)
        .await?
        .ok_or_else(|| Error::not_found(Phrase::NoIncident { id: id.to_owned() }))
}

/// Somebody looks after it.
pub async fn acknowledge(tx: &mut Tx, id: &str, by: &Actor) -> Result<Incident> {
    let mut incident = find(tx, id).await?;
    match (incident.state, &incident.acknowledged_by) {
        (IncidentState::Resolved, _) => {
            return Err(Error::conflict(Phrase::ResolvedAlready { id: incident.short_id().to_owned() }));
        }
        (IncidentState::Acknowledged, Some(other)) => {
            return Err(Error::conflict(Phrase::AcknowledgedAlready { by: other.to_string() }));
        }
        _ => {}
    }
    incident.state = IncidentState::Acknowledged;
    incident.acknowledged_by = Some(by.clone());
    incidents::save(tx, &incident).await?;
    told(tx, &incident, by, "ack", TimelineKind::Acknowledged, Phrase::Acknowledged {}, "acknowledged")
        .await?;
    Ok(incident)
}

/// Somebody says that it is over. Its open questions are closed; if an alert of it fires again, it reopens.
pub async fn resolve(tx: &mut Tx, id: &str, by: &Actor, reason: &str) -> Result<Incident> {
    let mut incident = find(tx, id).await?;
    if !incident.is_open() {
        let id = incident.short_id().to_owned();
        return Err(Error::conflict(match incident.resolved_by {
            Some(how) => Phrase::ResolvedAlreadyBy { id, how },
            None => Phrase::ResolvedAlready { id },
        }));
    }
    incident.state = IncidentState::Resolved;
    incident.resolved_at = Some(clock::now());
    incident.resolved_by = Some(by.to_string().into());
    incidents::save(tx, &incident).await?;
    supersede_questions(tx, &incident.id, &Phrase::IncidentResolved {}.into()).await?;
    let text = match reason {
        "" => Phrase::ResolvedByHand {},
        reason => Phrase::ResolvedByHandFor { reason: reason.to_owned() },
    };
    told(tx, &incident, by, "resolve", TimelineKind::Resolved, text, "resolved").await?;
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Resolved.as_str()]).inc();
    Ok(incident)
}

/// Closes the questions about an incident that nobody needs to answer any more.
pub async fn supersede_questions(tx: &mut Tx, incident_id: &str, why: &Said) -> store::Result<()> {
    let by = Actor::aiops("steer");
    for a in approvals::of(tx, incident_id).await? {
        if a.state == ApprovalState::Pending
            && approvals::decide(tx, &a.id, ApprovalState::Superseded, &by, clock::now(), Some(why)).await?
        {
            metrics::APPROVALS.with_label_values(&[ApprovalState::Superseded.as_str()]).inc();
        }
    }
    Ok(())
}

/// Audit, story, decision, and the messages.
async fn told(
    tx: &mut Tx,
    incident: &Incident,
    by: &Actor,
    action: &str,
    kind: TimelineKind,
    text: Phrase,
    outcome: &str,
) -> Result<()> {
    let id = &incident.id;
    let text = Said::from(text);
    audit::add(tx, by, action, &format!("incident:{id}"), &json!({ "text": text.as_str() })).await?;
    timeline::add(tx, id, kind, &text, Some(by)).await?;
    let why = format!("{text} by {by}");
    decisions::add(tx, Stage::Decide, About::incident(id), outcome, "a person", &why).await?;
    incidents::touch(tx, id).await?;
    Ok(())
}
