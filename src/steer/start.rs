//! Starts a run: the guards and the new run are one transaction, so that two starts cannot both pass.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use super::{Error, Result, is_stopped};
use crate::{
    clock, ids, metrics,
    model::{Actor, JobKind, NewJob, Phrase, Plan, Run, RunState, Said, Span, Stage, TimelineKind},
    store::{
        Tx,
        decisions::{self, About},
        jobs, runs, timeline,
    },
};

/// Over which time the targets of a playbook are counted for `max_targets`.
const BLAST_WINDOW: Duration = Duration::from_secs(3600);

/// What one guard says.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct GuardResult {
    /// `guards.cooldown`.
    pub clause: String,
    pub holds: bool,
    /// A sentence: how it stands.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub text: Said,
    /// When it may hold again, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

impl GuardResult {
    fn new(clause: &str, holds: bool, text: Phrase, until: Option<Timestamp>) -> Self {
        Self { clause: clause.into(), holds, text: text.into(), until: until.filter(|_| !holds) }
    }
}

/// Asks every guard of a plan; a run may start if all hold.
pub async fn guards(tx: &mut Tx, plan: &Plan) -> Result<Vec<GuardResult>> {
    let now = clock::now();
    let stopped = is_stopped(tx).await?;
    let runs_at_all = stopped.is_none();
    let text = match stopped {
        None => Phrase::AutomationRuns {},
        Some(stopped) => Phrase::AutomationIsGuard { stopped },
    };
    let mut out = vec![GuardResult::new("automation.stopped", runs_at_all, text, None)];
    let holder = runs::active_on(tx, &plan.target).await?;
    let text = match &holder {
        None => Phrase::NothingElseActs { target: plan.target.clone() },
        Some(id) => {
            Phrase::RunActs { run: crate::model::short_id(id).to_owned(), target: plan.target.clone() }
        }
    };
    let soon = Some(clock::after(now, Duration::from_secs(30)));
    out.push(GuardResult::new("guards.lock", holder.is_none(), text, soon));

    let rate_per = plan.guards.rate.as_ref().map_or(Duration::ZERO, |r| r.per);
    let longest = [plan.guards.cooldown.unwrap_or_default(), rate_per, BLAST_WINDOW]
        .into_iter()
        .max()
        .unwrap_or_default();
    let recent = runs::recent(tx, &plan.playbook, clock::before(now, longest)).await?;
    out.extend(cooldown(plan, &recent, now));
    out.extend(rate(plan, &recent, now));
    out.extend(max_targets(plan, &recent, now));
    Ok(out)
}

fn cooldown(plan: &Plan, recent: &[(String, Timestamp)], now: Timestamp) -> Option<GuardResult> {
    let wanted = plan.guards.cooldown.filter(|c| !c.is_zero())?;
    let last = recent.iter().filter(|(target, _)| *target == plan.target).map(|(_, at)| *at).max();
    let until = last.map(|at| clock::after(at, wanted));
    let holds = until.is_none_or(|until| until <= now);
    let text = match last {
        Some(at) if !holds => {
            let ago = Span(Duration::from_secs(clock::between(at, now).as_secs()));
            Phrase::RanLately { target: plan.target.clone(), ago, within: Span(wanted) }
        }
        _ => Phrase::DidNotRunLately { target: plan.target.clone(), within: Span(wanted) },
    };
    Some(GuardResult::new("guards.cooldown", holds, text, until))
}

fn rate(plan: &Plan, recent: &[(String, Timestamp)], now: Timestamp) -> Option<GuardResult> {
    let rate = plan.guards.rate.as_ref()?;
    let from = clock::before(now, rate.per);
    let mut times: Vec<Timestamp> = recent.iter().map(|(_, at)| *at).filter(|at| *at > from).collect();
    times.sort_unstable();
    let holds = times.len() < rate.count as usize;
    let (done, most) = (times.len() as i64, i64::from(rate.count));
    let text = Phrase::RunsOfAtMost { done, most, per: Span(rate.per) };
    let until = times
        .len()
        .checked_sub(rate.count as usize)
        .and_then(|i| times.get(i))
        .map(|at| clock::after(*at, rate.per));
    Some(GuardResult::new("guards.rate", holds, text, until))
}

fn max_targets(plan: &Plan, recent: &[(String, Timestamp)], now: Timestamp) -> Option<GuardResult> {
    let max = plan.guards.max_targets? as usize;
    let from = clock::before(now, BLAST_WINDOW);
    let lately: Vec<_> = recent.iter().filter(|(_, at)| *at > from).collect();
    let others: BTreeSet<&str> =
        lately.iter().map(|(t, _)| t.as_str()).filter(|t| *t != plan.target).collect();
    let text = Phrase::TargetsOfAtMost { others: others.len() as i64, most: max as i64 };
    let until = lately.iter().map(|(_, at)| clock::after(*at, BLAST_WINDOW)).min();
    Some(GuardResult::new("guards.max_targets", others.len() < max, text, until))
}

/// Starts a run if every guard holds: the run, its job, its line in the story. `allowed_by` is who said yes.
pub async fn start(tx: &mut Tx, plan: Plan, incident_id: Option<&str>, allowed_by: &Actor) -> Result<String> {
    tx.lock("runs").await?;
    if let Some(broken) = guards(tx, &plan).await?.into_iter().find(|g| !g.holds) {
        return Err(Error::refused(&broken.clause, broken.text));
    }
    let run = Run {
        id: ids::new(),
        incident_id: incident_id.map(str::to_owned),
        state: RunState::Running,
        plan_hash: plan.hash(),
        plan,
        allowed_by: allowed_by.clone(),
        started_at: clock::now(),
        finished_at: None,
        outcome: Said::default(),
        steps: Vec::new(),
    };
    runs::insert(tx, &run).await.map_err(|e| match e.is_conflict() {
        true => Error::refused("guards.lock", Phrase::AnotherRunActs { target: run.plan.target.clone() }),
        false => e.into(),
    })?;
    jobs::enqueue(tx, &NewJob { kind: JobKind::Run, subject: run.id.clone(), run_at: run.started_at })
        .await?;
    if let Some(id) = incident_id {
        timeline::add(tx, id, TimelineKind::RunStarted, &run.plan.title, Some(allowed_by)).await?;
    }
    let about = About { fingerprint: None, incident_id };
    let why = format!("{} on {}, allowed by {allowed_by}", run.plan.playbook, run.plan.target);
    decisions::add(tx, Stage::Decide, about, "started", "guards", &why).await?;
    metrics::RUNS.with_label_values(&[RunState::Running.as_str()]).inc();
    Ok(run.id)
}
