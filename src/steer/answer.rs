//! Answers to approvals: single use, bound to the exact plan that was shown.

use serde_json::json;

use super::{Error, Result, find, is_stopped, start};
use crate::{
    clock, metrics,
    model::{Actor, Approval, ApprovalState, Phrase, Plan, Said, Stage, TimelineKind},
    store::{
        Tx, approvals, audit,
        decisions::{self, About},
        incidents, timeline,
    },
};

/// Says yes to exactly the plan whose hash was shown, and starts the run. Returns the run's id.
pub async fn approve(tx: &mut Tx, approval_id: &str, by: &Actor, shown_hash: &str) -> Result<String> {
    let approval = pending(tx, approval_id).await?;
    if approval.plan.hash() != approval.plan_hash {
        return Err(Error::refused("approval.plan_hash", Phrase::NotTheProposedPlan {}));
    }
    if shown_hash != approval.plan_hash {
        return Err(Error::refused("approval.plan_hash", Phrase::ShownAnotherPlan {}));
    }
    if let Some(why) = is_stopped(tx).await? {
        return Err(Error::refused("automation.stopped", Phrase::AutomationIsGuard { stopped: why }));
    }
    let incident = find(tx, &approval.incident_id).await?;
    if !incident.is_open() {
        return Err(Error::conflict(Phrase::ResolvedAlready { id: incident.short_id().to_owned() }));
    }
    close(tx, &approval, ApprovalState::Approved, by, None).await?;
    let title = &approval.plan.title;
    timeline::add(tx, &incident.id, TimelineKind::Approved, title, Some(by)).await?;
    let run_id = start(tx, approval.plan.clone(), Some(&incident.id), by).await?;
    let detail =
        json!({ "plan_hash": approval.plan_hash, "playbook": approval.plan.playbook, "run": run_id });
    told(tx, &approval, by, "approve", "approved", &detail).await?;
    Ok(run_id)
}

/// Says no. The same plan is not proposed again for this incident.
pub async fn reject(tx: &mut Tx, approval_id: &str, by: &Actor, reason: &str) -> Result<()> {
    let approval = pending(tx, approval_id).await?;
    close(tx, &approval, ApprovalState::Rejected, by, Some(reason).filter(|r| !r.is_empty())).await?;
    let title = approval.plan.title.clone();
    let text: Said = match reason {
        "" => title.into(),
        reason => Phrase::WithReason { title, why: reason.into() }.into(),
    };
    timeline::add(tx, &approval.incident_id, TimelineKind::Rejected, &text, Some(by)).await?;
    let detail =
        json!({ "plan_hash": approval.plan_hash, "playbook": approval.plan.playbook, "reason": reason });
    told(tx, &approval, by, "reject", "rejected", &detail).await
}

/// Starts a plan that a person asks for by hand and was shown; guards and kill switch hold for it too. Returns the run's id.
pub async fn run_by_hand(
    tx: &mut Tx,
    plan: Plan,
    incident_id: Option<&str>,
    by: &Actor,
    shown_hash: &str,
) -> Result<String> {
    if plan.hash() != shown_hash {
        return Err(Error::refused("plan_hash", Phrase::PlanChanged {}));
    }
    if let Some(id) = incident_id {
        find(tx, id).await?;
    }
    let detail = json!({ "plan_hash": shown_hash, "playbook": plan.playbook, "params": plan.params });
    let run_id = start(tx, plan, incident_id, by).await?;
    audit::add(tx, by, "run", &format!("run:{run_id}"), &detail).await?;
    if let Some(id) = incident_id {
        incidents::touch(tx, id).await?;
    }
    Ok(run_id)
}

/// The approval, if it can still be answered.
async fn pending(tx: &mut Tx, id: &str) -> Result<Approval> {
    let approval = approvals::get(tx, id)
        .await?
        .ok_or_else(|| Error::not_found(Phrase::NoApproval { id: id.to_owned() }))?;
    let by = approval.decided_by.as_ref().map_or_else(|| "aiops".to_owned(), ToString::to_string);
    let conflict = |why: Phrase| Err(Error::conflict(why));
    let expired = || Phrase::QuestionExpired { at: approval.expires_at.to_string() };
    match approval.state {
        ApprovalState::Pending if approval.expires_at <= clock::now() => conflict(expired()),
        ApprovalState::Pending => Ok(approval),
        ApprovalState::Approved => conflict(Phrase::ApprovedAlready { by }),
        ApprovalState::Rejected => conflict(Phrase::RejectedAlready { by }),
        ApprovalState::Expired => conflict(expired()),
        ApprovalState::Superseded => conflict(Phrase::QuestionClosed {
            why: match approval.reason.as_deref() {
                None => Phrase::NewerPlan {}.into(),
                // The reason is kept as text; these two are ours.
                Some(why) => [Phrase::NewerPlan {}, Phrase::IncidentResolved {}]
                    .into_iter()
                    .map(Said::from)
                    .find(|ours| *ours == why)
                    .unwrap_or_else(|| why.into()),
            },
        }),
    }
}

/// Only the first to close it gets through, whatever was read before.
async fn close(
    tx: &mut Tx,
    a: &Approval,
    state: ApprovalState,
    by: &Actor,
    reason: Option<&str>,
) -> Result<()> {
    if !approvals::decide(tx, &a.id, state, by, clock::now(), reason).await? {
        return Err(Error::conflict(Phrase::JustAnswered {}));
    }
    metrics::APPROVALS.with_label_values(&[state.as_str()]).inc();
    Ok(())
}

async fn told(
    tx: &mut Tx,
    a: &Approval,
    by: &Actor,
    action: &str,
    outcome: &str,
    detail: &serde_json::Value,
) -> Result<()> {
    audit::add(tx, by, action, &format!("approval:{}", a.id), detail).await?;
    let why = format!("{} by {by}", a.plan.title);
    decisions::add(tx, Stage::Decide, About::incident(&a.incident_id), outcome, "approval", &why).await?;
    incidents::touch(tx, &a.incident_id).await?;
    Ok(())
}
