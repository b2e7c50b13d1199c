//! Policy: act, ask, or refuse. Takes an incident with its newest suggestion; hands a run to `act`, a question to people, or
//! the clause that forbids both to the record. Never calls an LLM.

mod choose;

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    clock, ids, metrics,
    model::{
        Actor, Alert, Anomaly, Approval, ApprovalState, Incident, JobKind, NewJob, Phrase, Plan, Run, Said,
        Stage, TimelineEntry, TimelineKind,
    },
    playbook::{Catalog, Facts, Refusal, Registry},
    steer,
    store::{
        Store, Tx, alerts, anomalies, approvals,
        decisions::{self, About},
        diagnoses, incidents, jobs, runs, timeline,
    },
};

/// What deciding needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub registry: Arc<Registry>,
}

/// What was decided. Jobs that follow are in the transaction already.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A run was started; nobody had to be asked.
    Started { run_id: String },
    /// People are asked.
    Asked { approval_id: String },
    /// Nothing is done; `again_at` says when a guard may hold again.
    Nothing { again_at: Option<Timestamp> },
}

/// Decides about one incident, in the caller's transaction.
pub async fn decide(deps: &Deps, tx: &mut Tx, incident_id: &str) -> anyhow::Result<Outcome> {
    let catalog = deps.registry.current();
    let Some(incident) = incidents::lock(tx, incident_id).await? else {
        tracing::warn!(incident.id = incident_id, "nothing to decide about: the incident is gone");
        return Ok(Outcome::Nothing { again_at: None });
    };
    let case = Case::read(tx, incident).await?;
    match choose::choose(&catalog, &case, steer::is_stopped(tx).await?) {
        Ok(chosen) => carry_out(tx, &catalog, &case, chosen).await,
        Err(choose::No { refusal, shown }) => {
            record_no(tx, &case, &refusal, shown).await?;
            Ok(Outcome::Nothing { again_at: None })
        }
    }
}

/// The time of a question is up. Returns when to look again if it is not.
pub async fn expire(deps: &Deps, approval_id: &str) -> anyhow::Result<(Tx, Option<Timestamp>)> {
    let mut tx = deps.store.write().await?;
    let now = clock::now();
    let Some(a) = approvals::get(&mut tx, approval_id).await? else { return Ok((tx, None)) };
    if a.state != ApprovalState::Pending {
        return Ok((tx, None));
    }
    if a.expires_at > now {
        return Ok((tx, Some(a.expires_at)));
    }
    let by = Actor::aiops("decide");
    if approvals::decide(&mut tx, &a.id, ApprovalState::Expired, &by, now, Some("nobody answered in time"))
        .await?
    {
        metrics::APPROVALS.with_label_values(&[ApprovalState::Expired.as_str()]).inc();
        let text = Said::from(Phrase::NobodyAnswered { title: a.plan.title.clone() });
        timeline::add(&mut tx, &a.incident_id, TimelineKind::Expired, &text, None).await?;
        let clause = "settings playbooks.approval_expires";
        decisions::add(&mut tx, Stage::Decide, About::incident(&a.incident_id), "expired", clause, &text)
            .await?;
        incidents::touch(&mut tx, &a.incident_id).await?;
    }
    Ok((tx, None))
}

/// Everything that a decision looks at, in one snapshot.
struct Case {
    incident: Incident,
    alerts: Vec<Alert>,
    anomalies: Vec<Anomaly>,
    diagnoses: Vec<crate::model::Diagnosis>,
    approvals: Vec<Approval>,
    runs: Vec<Run>,
    timeline: Vec<TimelineEntry>,
}

impl Case {
    async fn read(tx: &mut Tx, incident: Incident) -> anyhow::Result<Self> {
        let id = incident.id.clone();
        Ok(Self {
            alerts: alerts::of(tx, &id, alerts::LOOKED_AT).await?,
            anomalies: anomalies::of(tx, &id).await?,
            diagnoses: diagnoses::of(tx, &id).await?,
            approvals: approvals::of(tx, &id).await?,
            runs: runs::of(tx, &id).await?,
            timeline: timeline::of(tx, &id).await?,
            incident,
        })
    }
    fn facts(&self) -> Facts<'_> {
        Facts { incident: &self.incident, alerts: &self.alerts, anomalies: &self.anomalies }
    }
    /// When the incident was opened, or reopened last.
    fn episode_began(&self) -> Timestamp {
        let reopened = self.timeline.iter().rev().find(|t| t.kind == TimelineKind::Reopened);
        reopened.map_or(self.incident.opened_at, |t| t.at)
    }
}

/// A plan that nothing speaks against.
struct Chosen {
    plan: Plan,
    why: String,
}

async fn carry_out(tx: &mut Tx, catalog: &Catalog, case: &Case, chosen: Chosen) -> anyhow::Result<Outcome> {
    let guards = steer::guards(tx, &chosen.plan).await?;
    if let Some(broken) = guards.into_iter().find(|g| !g.holds) {
        let file = catalog.playbooks.get(&chosen.plan.playbook).map_or("", |l| l.file.as_str());
        let clause = format!("{file} {}", broken.clause).trim_start().to_owned();
        let why = Phrase::WithReason { title: chosen.plan.title, why: broken.text }.into();
        record_no(tx, case, &Refusal { clause, why }, true).await?;
        return Ok(Outcome::Nothing { again_at: broken.until });
    }
    if catalog.is_auto(&chosen.plan.playbook) && !case.incident.flapping {
        start(tx, case, chosen).await
    } else {
        ask(tx, catalog, case, chosen).await
    }
}

async fn start(tx: &mut Tx, case: &Case, chosen: Chosen) -> anyhow::Result<Outcome> {
    let by = Actor::aiops("policy");
    let id = &case.incident.id;
    let why = format!("{}: both the playbook and playbooks.auto allow it unasked", chosen.plan.title);
    decisions::add(tx, Stage::Decide, About::incident(id), "act", "settings playbooks.auto", &why).await?;
    let run_id = steer::start(tx, chosen.plan, Some(id), &by).await?;
    let detail = serde_json::json!({ "why": chosen.why });
    crate::store::audit::add(tx, &by, "run", &format!("run:{run_id}"), &detail).await?;
    incidents::touch(tx, id).await?;
    Ok(Outcome::Started { run_id })
}

async fn ask(tx: &mut Tx, catalog: &Catalog, case: &Case, chosen: Chosen) -> anyhow::Result<Outcome> {
    let id = &case.incident.id;
    steer::supersede_questions(tx, id, &Phrase::NewerPlan {}.into()).await?;
    let now = clock::now();
    let approval = Approval {
        id: ids::new(),
        incident_id: id.clone(),
        state: ApprovalState::Pending,
        plan_hash: chosen.plan.hash(),
        plan: chosen.plan,
        requested_at: now,
        expires_at: clock::after(now, catalog.policy.approval_expires),
        decided_by: None,
        decided_at: None,
        reason: None,
    };
    approvals::insert(tx, &approval).await?;
    let expiry =
        NewJob { kind: JobKind::ExpireApproval, subject: approval.id.clone(), run_at: approval.expires_at };
    jobs::enqueue(tx, &expiry).await?;
    timeline::add(tx, id, TimelineKind::Proposed, &approval.plan.title, None).await?;
    let clause = if case.incident.flapping && catalog.is_auto(&approval.plan.playbook) {
        "the incident is flapping".to_owned()
    } else {
        let file = catalog.playbooks.get(&approval.plan.playbook).map_or("", |l| l.file.as_str());
        format!("{file} approval")
    };
    let why = format!("{}: {}", approval.plan.title, chosen.why);
    decisions::add(tx, Stage::Decide, About::incident(id), "asked", &clause, &why).await?;
    incidents::touch(tx, id).await?;
    Ok(Outcome::Asked { approval_id: approval.id })
}

/// Why nothing is done. `shown`: people should see it too, once.
async fn record_no(tx: &mut Tx, case: &Case, refusal: &Refusal, shown: bool) -> anyhow::Result<()> {
    let id = &case.incident.id;
    let outcome = if shown { "refused" } else { "nothing" };
    decisions::add(tx, Stage::Decide, About::incident(id), outcome, &refusal.clause, &refusal.why).await?;
    let kind = TimelineKind::Refused;
    if shown && !case.timeline.iter().any(|t| t.kind == kind && t.text == *refusal.why) {
        timeline::add(tx, id, kind, &refusal.why, None).await?;
        incidents::touch(tx, id).await?;
    }
    Ok(())
}
