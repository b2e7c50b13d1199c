//! A human's answer to a run that waits: a step's outcome is unknown, or the kill switch stopped it.

use serde_json::json;

use super::{Error, Result, is_stopped};
use crate::{
    clock, metrics,
    model::{Actor, JobKind, NewJob, Phase, Phrase, Run, RunState, Said, Stage, StepState, TimelineKind},
    store::{
        Tx, audit,
        decisions::{self, About},
        incidents, jobs, runs, timeline,
    },
};

crate::model::words!(
    /// What to do with a run that waits for a human.
    Answer {
        /// The step is done, or does not matter: go on with the next one.
        Continue = "continue",
        /// Do the step again.
        Retry = "retry",
        /// Undo: go over to the rollback steps.
        RollBack = "roll_back",
        /// Do nothing more at all.
        Abort = "abort",
    }
);

impl Answer {
    fn said(self) -> Said {
        let phrase = match self {
            Self::Continue => Phrase::Continue {},
            Self::Retry => Phrase::Retry {},
            Self::RollBack => Phrase::RollBack {},
            Self::Abort => Phrase::Abort {},
        };
        phrase.into()
    }
}

/// Lets a waiting run go on as the human says.
pub async fn settle_step(tx: &mut Tx, run_id: &str, answer: Answer, by: &Actor) -> Result<()> {
    let run = runs::get(tx, run_id)
        .await?
        .ok_or_else(|| Error::not_found(Phrase::NoRun { id: run_id.to_owned() }))?;
    if run.state != RunState::NeedsHuman {
        return Err(Error::conflict(Phrase::RunWaitsForNobody {
            run: crate::model::short_id(&run.id).to_owned(),
            state: run.state,
        }));
    }
    if answer != Answer::Abort
        && let Some(why) = is_stopped(tx).await?
    {
        return Err(Error::refused("automation.stopped", Phrase::StartItFirst { stopped: why }));
    }
    let phase = phase(&run);
    if let Some(step) = run.steps.iter().rev().find(|s| s.phase == phase && s.state == StepState::Unknown)
        && answer == Answer::Continue
    {
        let mut done = step.clone();
        done.state = StepState::Succeeded;
        done.finished_at = Some(clock::now());
        done.output = format!("{}\ntaken as done by {by}", step.output).trim_start().to_owned();
        runs::journal(tx, &run.id, &done).await?;
    }
    let state = match (answer, phase) {
        (Answer::Abort, _) => RunState::Cancelled,
        (Answer::RollBack, _) | (_, Phase::Rollback) => RunState::RollingBack,
        (_, Phase::Main) => RunState::Running,
    };
    let outcome = match answer {
        Answer::Abort => Phrase::AbortedBy { by: by.to_string() },
        answer => Phrase::AnsweredBy { answer: answer.said(), by: by.to_string() },
    };
    runs::set_state(tx, &run.id, state, &outcome.into()).await?;
    if state == RunState::Cancelled {
        metrics::RUNS.with_label_values(&[state.as_str()]).inc();
    } else {
        jobs::enqueue(tx, &NewJob { kind: JobKind::Run, subject: run.id.clone(), run_at: clock::now() })
            .await?;
    }
    told(tx, &run, answer, state, by).await
}

/// Which list of steps the run is in: once one rollback step has begun, there is no way back.
fn phase(run: &Run) -> Phase {
    if run.steps.iter().any(|s| s.phase == Phase::Rollback) { Phase::Rollback } else { Phase::Main }
}

async fn told(tx: &mut Tx, run: &Run, answer: Answer, state: RunState, by: &Actor) -> Result<()> {
    audit::add(tx, by, "settle", &format!("run:{}", run.id), &json!({ "answer": answer })).await?;
    let about = About { fingerprint: None, incident_id: run.incident_id.as_deref() };
    let why = format!("{} was waiting ({}); {by} says {answer}", run.plan.title, run.outcome);
    decisions::add(tx, Stage::Act, about, answer.as_str(), "a person", &why).await?;
    if let Some(id) = &run.incident_id {
        let kind = if state.is_final() { TimelineKind::RunFinished } else { TimelineKind::RunStarted };
        timeline::add(
            tx,
            id,
            kind,
            Phrase::WithReason { title: run.plan.title.clone(), why: answer.said() },
            Some(by),
        )
        .await?;
        incidents::touch(tx, id).await?;
    }
    Ok(())
}
