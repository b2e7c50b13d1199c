//! The transactions around a run: each one holds the job first, so that an owner who lost it writes nothing.

use anyhow::Result;

use super::{Deps, Outcome};
use crate::{
    metrics,
    model::{
        Action, Job, Phase, Phrase, PlanStep, Run, RunState, Said, Stage, StepRecord, StepState, TimelineKind,
    },
    steer, steps,
    store::{
        Tx,
        decisions::{self, About},
        incidents, jobs, runs, timeline,
    },
    worker::LEASE,
};

/// What became of writing an intent.
pub(super) enum Intent {
    Written,
    /// The kill switch is on; nothing was written.
    Stopped(Said),
    /// The run is cancelled; nothing was written.
    Cancelled(Said),
    /// The run is not in the state any more that this step belongs to.
    Changed,
}

async fn begin(deps: &Deps, job: &Job) -> Result<Tx> {
    let mut tx = deps.store.write().await?;
    jobs::hold(&mut tx, job, LEASE).await?;
    Ok(tx)
}

/// Puts on disk that a step is about to be done. Kill switch, cancelling, fence and state are asked in the same transaction.
pub(super) async fn intend(deps: &Deps, job: &Job, run: &Run, record: &StepRecord) -> Result<Intent> {
    let mut tx = begin(deps, job).await?;
    if let Some(why) = steer::is_cancelled(&mut tx, &run.id).await? {
        return Ok(Intent::Cancelled(why));
    }
    if let Some(why) = steer::is_stopped(&mut tx).await? {
        return Ok(Intent::Stopped(why));
    }
    if runs::get(&mut tx, &run.id).await?.is_none_or(|now| now.state != run.state) {
        return Ok(Intent::Changed);
    }
    runs::journal(&mut tx, &run.id, record).await?;
    let (step, does) = (record.step_id.clone(), describe(run, record));
    let text = in_phase(
        match record.attempt {
            ..=1 => Phrase::StepStarted { step, does },
            attempt => Phrase::StepTriedAgain { step, attempt, does },
        },
        record.phase,
    );
    story(&mut tx, run, TimelineKind::StepStarted, &text).await?;
    tx.commit().await?;
    Ok(Intent::Written)
}

/// What a step of this phase is called in the story.
fn in_phase(what: Phrase, phase: Phase) -> Said {
    match phase {
        Phase::Main => what.into(),
        Phase::Rollback => Phrase::InRollback { what: what.into() }.into(),
    }
}

fn describe(run: &Run, record: &StepRecord) -> String {
    step_of(run, record).map_or_else(String::new, |s| crate::redact::mask(&steps::describe(&s.action)))
}

fn step_of<'a>(run: &'a Run, record: &StepRecord) -> Option<&'a PlanStep> {
    let list = match record.phase {
        Phase::Main => &run.plan.steps,
        Phase::Rollback => &run.plan.rollback,
    };
    list.get(usize::try_from(record.position).ok()?)
}

/// Puts on disk what came of a step.
pub(super) async fn result(deps: &Deps, job: &Job, run: &Run, record: &StepRecord) -> Result<()> {
    let mut tx = begin(deps, job).await?;
    write_result(&mut tx, run, record).await?;
    tx.commit().await?;
    Ok(())
}

async fn write_result(tx: &mut Tx, run: &Run, record: &StepRecord) -> Result<()> {
    runs::journal(tx, &run.id, record).await?;
    let said = record.output.lines().next_back().unwrap_or_default();
    let (step, state) = (record.step_id.clone(), record.state);
    let text = in_phase(
        match crate::redact::cut(said, 300) {
            "" => Phrase::StepEnded { step, state },
            said => Phrase::StepSaid { step, state, said: said.to_owned() },
        },
        record.phase,
    );
    story(tx, run, TimelineKind::StepFinished, &text).await?;
    if record.state == StepState::Succeeded && tells_people(run, record) {
        touch(tx, run).await?;
    }
    Ok(())
}

fn tells_people(run: &Run, record: &StepRecord) -> bool {
    step_of(run, record).is_some_and(|s| matches!(s.action, Action::Notify { .. }))
}

/// Leaves the run to a human. Not committed: the caller ends the job with it.
pub(super) async fn ask(
    deps: &Deps,
    job: &Job,
    run: &Run,
    record: Option<StepRecord>,
    clause: &str,
    why: &Said,
) -> Result<Tx> {
    let mut tx = begin(deps, job).await?;
    if let Some(record) = record {
        write_result(&mut tx, run, &record).await?;
    }
    enter(&mut tx, run, RunState::NeedsHuman, why).await?;
    decide(&mut tx, run, "asked", clause, why).await?;
    story(&mut tx, run, TimelineKind::NeedsHuman, why).await?;
    touch(&mut tx, run).await?;
    Ok(tx)
}

/// Goes over to the rollback steps.
pub(super) async fn roll_back(deps: &Deps, job: &Job, run: &Run, why: &Said) -> Result<()> {
    let mut tx = begin(deps, job).await?;
    enter(&mut tx, run, RunState::RollingBack, why).await?;
    let (clause, text) = match run.plan.rollback.len() {
        0 => ("no rollback steps", format!("{why}; there is nothing to undo it with")),
        n => ("rollback", format!("{why}; undoing it in {n} steps")),
    };
    decide(&mut tx, run, "roll back", clause, &text).await?;
    tx.commit().await?;
    Ok(())
}

/// Hands the run over to verification.
pub(super) async fn verify(deps: &Deps, job: &Job, run: &Run) -> Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    if run.state != RunState::Verifying {
        enter(&mut tx, run, RunState::Verifying, &Phrase::EveryStepSucceeded {}.into()).await?;
        touch(&mut tx, run).await?;
    }
    Ok((tx, Outcome::Verify))
}

/// Ends the run; if it did not help, people are called.
pub(super) async fn finish(
    deps: &Deps,
    job: &Job,
    run: &Run,
    state: RunState,
    why: &Said,
) -> Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    enter(&mut tx, run, state, why).await?;
    decide(&mut tx, run, state.as_str(), "run", why).await?;
    if state == RunState::RolledBack {
        story(
            &mut tx,
            run,
            TimelineKind::RolledBack,
            &Phrase::Undone { title: run.plan.title.clone() }.into(),
        )
        .await?;
    }
    let ended = Phrase::RunEnded { title: run.plan.title.clone(), state, why: why.clone() };
    story(&mut tx, run, TimelineKind::RunFinished, &ended.into()).await?;
    // Whoever cancelled it knows, and has the incident in hand.
    if !matches!(state, RunState::Succeeded | RunState::Cancelled) {
        let then: Said = match run.plan.on_failure.as_str() {
            "" => Phrase::SomebodyHasToLook {}.into(),
            said => said.into(),
        };
        story(&mut tx, run, TimelineKind::NeedsHuman, &then).await?;
    }
    touch(&mut tx, run).await?;
    steps::clean(&deps.tools, &run.id);
    Ok((tx, Outcome::Over(state)))
}

async fn enter(tx: &mut Tx, run: &Run, state: RunState, why: &Said) -> Result<()> {
    runs::set_state(tx, &run.id, state, why).await?;
    metrics::RUNS.with_label_values(&[state.as_str()]).inc();
    tracing::info!(run.id = %run.id, incident.id = run.incident_id.as_deref(), state = %state, %why, "run enters a state");
    Ok(())
}

async fn decide(tx: &mut Tx, run: &Run, outcome: &str, clause: &str, why: &str) -> Result<()> {
    let about = About { fingerprint: None, incident_id: run.incident_id.as_deref() };
    Ok(decisions::add(tx, Stage::Act, about, outcome, clause, why).await?)
}

async fn story(tx: &mut Tx, run: &Run, kind: TimelineKind, text: &Said) -> Result<()> {
    if let Some(id) = &run.incident_id {
        timeline::add(tx, id, kind, text, None).await?;
    }
    Ok(())
}

async fn touch(tx: &mut Tx, run: &Run) -> Result<()> {
    if let Some(id) = &run.incident_id {
        incidents::touch(tx, id).await?;
    }
    Ok(())
}
