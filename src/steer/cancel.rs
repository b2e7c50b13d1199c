//! Cancelling one run: it stops as under the kill switch, but alone, and for good where everything that it did is known.

use serde_json::json;

use super::{Error, Result};
use crate::{
    clock, metrics,
    model::{Actor, Phrase, Run, RunState, Said, Stage, TimelineKind, short_id},
    store::{
        Tx, audit,
        decisions::{self, About},
        flags, incidents, runs, timeline,
    },
};

/// Stops a run before its next step; a step under way is cut off. Whoever carries it out ends it (see [`is_cancelled`]), or
/// asks a human if that leaves a step of unknown outcome. A run that waits for a human ends at once.
pub async fn cancel_run(tx: &mut Tx, run_id: &str, by: &Actor, reason: &str) -> Result<()> {
    let run = runs::get(tx, run_id)
        .await?
        .ok_or_else(|| Error::not_found(Phrase::NoRun { id: run_id.to_owned() }))?;
    let id = short_id(&run.id).to_owned();
    if run.state.is_final() {
        return Err(Error::conflict(Phrase::RunIsOver { run: id, state: run.state }));
    }
    if let Some(why) = is_cancelled(tx, &run.id).await? {
        return Err(Error::conflict(Phrase::RunIsBeingCancelled { run: id, cancelled: why }));
    }
    let value = json!({ "by": by, "reason": reason, "at": clock::now() });
    audit::add(tx, by, "cancel", &format!("run:{}", run.id), &value).await?;
    let why = said(&value);
    let kind = if run.state == RunState::NeedsHuman {
        runs::set_state(tx, &run.id, RunState::Cancelled, &why).await?;
        metrics::RUNS.with_label_values(&[RunState::Cancelled.as_str()]).inc();
        TimelineKind::RunFinished
    } else {
        flags::set(tx, &flags::cancelled(&run.id), &value).await?;
        TimelineKind::RunCancelled
    };
    told(tx, &run, kind, &why, by).await
}

async fn told(tx: &mut Tx, run: &Run, kind: TimelineKind, why: &Said, by: &Actor) -> Result<()> {
    let about = About { fingerprint: None, incident_id: run.incident_id.as_deref() };
    let text = Said::from(Phrase::WithReason { title: run.plan.title.clone(), why: why.clone() });
    decisions::add(tx, Stage::Act, about, "cancel", "a person", &text).await?;
    if let Some(id) = &run.incident_id {
        timeline::add(tx, id, kind, &text, Some(by)).await?;
        incidents::touch(tx, id).await?;
    }
    Ok(())
}

/// `cancelled by … : reason`, from the asking until the run has ended or waits for a human.
pub async fn is_cancelled(tx: &mut Tx, run_id: &str) -> Result<Option<Said>> {
    Ok(flags::get(tx, &flags::cancelled(run_id)).await?.map(|value| said(&value)))
}

fn said(value: &serde_json::Value) -> Said {
    let phrase = match super::switch::who_and_why(value) {
        (by, None) => Phrase::CancelledBy { by },
        (by, Some(reason)) => Phrase::CancelledByFor { by, reason },
    };
    phrase.into()
}
