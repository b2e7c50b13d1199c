//! Carries out a run step by step, with a journal of intent and result around each; hands it to `verify` when all is done,
//! and takes it back for the rollback when that did not help.
//!
//! What comes next is read from the journal alone (`next.rs`), so that a kill at any line resumes where it was. A step whose
//! outcome is unknown is done again only if it is declared harmless; otherwise a human is asked.

mod dry_run;
mod journal;
mod next;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use dry_run::{DryRun, DryStep, dry_run};

use crate::{
    clock,
    model::{Job, Phrase, Run, RunState, Said, StepRecord, StepState},
    retry::Backoff,
    steer::{Stop, StopReason},
    steps::{self, Ended, Tools},
    store::{Store, Tx, runs},
};
use next::{Next, Place};

/// What acting needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub tools: Arc<Tools>,
}

/// What has become of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Every step is done; now ask the world whether it helped.
    Verify,
    /// It is over, in this state.
    Over(RunState),
    /// It waits for a human's answer.
    Waiting,
}

/// Clauses of the decisions to ask a human.
const UNKNOWN: &str = "act.unknown_outcome";
const STOPPED: &str = "automation.stopped";
const CANCELLED: &str = "run.cancelled";

const BETWEEN_TRIES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// Goes on with a run until it is over, verified or waits. An error means that the job is to be given back: at a shutdown, or
/// when the store cannot be reached.
pub async fn run(
    deps: &Deps,
    job: &Job,
    run_id: &str,
    cancel: &CancellationToken,
) -> anyhow::Result<(Tx, Outcome)> {
    let stop = Stop::watch(&deps.store, run_id, cancel);
    loop {
        let mut tx = deps.store.read_few().await?;
        let run = runs::get(&mut tx, run_id).await?;
        drop(tx);
        let Some(run) = run else {
            tracing::warn!(run.id = run_id, "the run is gone; nothing to carry out");
            return Ok((deps.store.write().await?, Outcome::Over(RunState::Cancelled)));
        };
        if run.plan.hash() != run.plan_hash {
            let why = Phrase::NotTheAllowedPlan {}.into();
            return journal::finish(deps, job, &run, RunState::Failed, &why).await;
        }
        match next::next(&run) {
            Next::Waiting => return Ok((deps.store.write().await?, Outcome::Waiting)),
            Next::Over => return Ok((deps.store.write().await?, Outcome::Over(run.state))),
            Next::Try(place) => {
                if let Some(done) = attempt(deps, job, &run, place, &stop).await? {
                    return Ok(done);
                }
            }
            Next::Resume(place, since) => {
                if let Some(done) = carry_out(deps, job, &run, place, since, &stop).await? {
                    return Ok(done);
                }
            }
            Next::Lost { place, since, repeatable } => {
                let record = record(
                    &run,
                    place,
                    since,
                    StepState::Unknown,
                    "the service ended while it was under way",
                );
                if !repeatable {
                    return journal::ask(deps, job, &run, Some(record), UNKNOWN, &lost(&run, place))
                        .await
                        .map(waiting);
                }
                journal::result(deps, job, &run, &record).await?;
            }
            Next::RollBack { why } => journal::roll_back(deps, job, &run, &why).await?,
            Next::Verify => return journal::verify(deps, job, &run).await,
            Next::Finish { state, why } => return journal::finish(deps, job, &run, state, &why).await,
        }
    }
}

fn lost(run: &Run, place: Place) -> Said {
    let step = place.step(&run.plan);
    let (answers, last) = ("continue, retry, roll_back".to_owned(), "abort".to_owned());
    Phrase::OutcomeLost { step: step.id.clone(), does: steps::describe(&step.action), answers, last }.into()
}

fn waiting(tx: Tx) -> (Tx, Outcome) {
    (tx, Outcome::Waiting)
}

/// One new try of a step: intent on disk first.
async fn attempt(
    deps: &Deps,
    job: &Job,
    run: &Run,
    place: Place,
    stop: &Stop,
) -> anyhow::Result<Option<(Tx, Outcome)>> {
    if place.attempt > 1 {
        tokio::select! {
            () = tokio::time::sleep(BETWEEN_TRIES.wait(place.attempt - 1)) => {}
            () = stop.token().cancelled() => {}
        }
    }
    let step = place.step(&run.plan);
    if stop.reason() == Some(StopReason::Shutdown) {
        anyhow::bail!("shutting down before step {}", step.id);
    }
    let since = clock::now();
    let intended = record(run, place, since, StepState::Intended, "");
    match journal::intend(deps, job, run, &intended).await? {
        journal::Intent::Written => carry_out(deps, job, run, place, since, stop).await,
        journal::Intent::Stopped(why) => {
            let why = Phrase::StoppedBeforeStep { stopped: why, step: step.id.clone() }.into();
            journal::ask(deps, job, run, None, STOPPED, &why).await.map(waiting).map(Some)
        }
        journal::Intent::Cancelled(why) => cancelled(deps, job, run, place, why).await.map(Some),
        // Somebody changed the run meanwhile: look at it anew.
        journal::Intent::Changed => Ok(None),
    }
}

/// Ends a cancelled run before a try, unless the try before was lost: what that has done is for a human to find out.
async fn cancelled(
    deps: &Deps,
    job: &Job,
    run: &Run,
    place: Place,
    why: Said,
) -> anyhow::Result<(Tx, Outcome)> {
    let step = &place.step(&run.plan).id;
    let same = |r: &&StepRecord| r.phase == place.phase && r.position == place.position as i64;
    let last = run.steps.iter().filter(same).max_by_key(|r| r.attempt);
    if last.is_some_and(|r| r.state == StepState::Unknown) {
        let why = Phrase::CancelLost { cancelled: why, step: step.to_owned() }.into();
        return journal::ask(deps, job, run, None, CANCELLED, &why).await.map(waiting);
    }
    let why = Phrase::CancelledBeforeStep { cancelled: why, step: step.to_owned() }.into();
    journal::finish(deps, job, run, RunState::Cancelled, &why).await
}

/// Does a step whose intent is on disk, and writes what came of it.
async fn carry_out(
    deps: &Deps,
    job: &Job,
    run: &Run,
    place: Place,
    since: jiff::Timestamp,
    stop: &Stop,
) -> anyhow::Result<Option<(Tx, Outcome)>> {
    let step = place.step(&run.plan);
    let context = steps::Context {
        run_id: run.id.clone(),
        incident_id: run.incident_id.clone(),
        started_at: since,
        timeout: step.timeout,
    };
    let kind = steps::Kind::of(&step.action);
    tracing::info!(run.id = %run.id, step = %step.id, kind = %kind, attempt = place.attempt, "step begins");
    let outcome = steps::run(&deps.tools, &step.action, &context, stop.token()).await;
    tracing::info!(run.id = %run.id, step = %step.id, ended = %outcome.ended, "step ended");
    crate::metrics::STEPS.with_label_values(&[kind.as_str(), outcome.ended.as_str()]).inc();
    let state = match outcome.ended {
        Ended::Succeeded => StepState::Succeeded,
        Ended::Failed => StepState::Failed,
        Ended::Unknown => StepState::Unknown,
        // The intent stays; whoever goes on begins the step anew, or goes on waiting.
        Ended::Stopped => {
            return match stop.reason() {
                Some(StopReason::Switch(why)) => {
                    let why = Phrase::StoppedInStep { stopped: why, step: step.id.clone() }.into();
                    journal::ask(deps, job, run, None, STOPPED, &why).await.map(waiting).map(Some)
                }
                Some(StopReason::Cancelled(why)) => {
                    let done = record(run, place, since, StepState::Failed, &outcome.output);
                    journal::result(deps, job, run, &done).await?;
                    let why = Phrase::CancelledInStep { cancelled: why, step: step.id.clone() }.into();
                    journal::finish(deps, job, run, RunState::Cancelled, &why).await.map(Some)
                }
                _ => anyhow::bail!("shutting down in step {}", step.id),
            };
        }
    };
    let done = record(run, place, since, state, &outcome.output);
    if state != StepState::Unknown {
        journal::result(deps, job, run, &done).await?;
        return Ok(None);
    }
    let (clause, why) = match stop.reason() {
        Some(StopReason::Switch(why)) => {
            (STOPPED, Phrase::CutOffInStep { stopped: why, step: step.id.clone() }.into())
        }
        Some(StopReason::Cancelled(why)) => {
            (CANCELLED, Phrase::CancelCutOff { cancelled: why, step: step.id.clone() }.into())
        }
        _ if steps::repeatable(step) => {
            journal::result(deps, job, run, &done).await?;
            return Ok(None);
        }
        _ => (UNKNOWN, lost(run, place)),
    };
    journal::ask(deps, job, run, Some(done), clause, &why).await.map(waiting).map(Some)
}

fn record(run: &Run, place: Place, since: jiff::Timestamp, state: StepState, output: &str) -> StepRecord {
    StepRecord {
        phase: place.phase,
        position: place.position as i64,
        attempt: place.attempt,
        step_id: place.step(&run.plan).id.clone(),
        state,
        started_at: since,
        finished_at: (state != StepState::Intended).then(clock::now),
        output: output.to_owned(),
    }
}
