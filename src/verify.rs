//! Did it help? Asks the world until every probe has held for long enough, or the time is over; hands a run that helped to the
//! record, and one that did not back to `act` for the rollback. No answer is never a yes.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clock, metrics,
    model::{Job, Phrase, Run, RunState, Said, Span, Stage, TimelineKind, Times, Verify},
    steer::{Stop, StopReason},
    steps::{self, Ended, Tools},
    store::{
        Store, Tx,
        decisions::{self, About},
        incidents, jobs, runs, timeline,
    },
    worker::LEASE,
};

/// What verifying needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub tools: Arc<Tools>,
}

/// What the world said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Every probe held for long enough.
    Helped,
    /// It did not help: the run goes back to `act`, which undoes it.
    Failed,
    /// The kill switch stopped it: the run waits for a human.
    Waiting,
    /// The run is not being verified (any more), or was cancelled.
    Over,
}

/// One probe may take this long; it is asked again anyway.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Verifies a run. An error means that the job is to be given back: at a shutdown, or when the store cannot be reached. It
/// then begins anew, because what held before a gap may not have held in it.
pub async fn verify(
    deps: &Deps,
    job: &Job,
    run_id: &str,
    cancel: &CancellationToken,
) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = deps.store.read_few().await?;
    let run = runs::get(&mut tx, run_id).await?.filter(|r| r.state == RunState::Verifying);
    drop(tx);
    let Some(run) = run else { return Ok((deps.store.write().await?, Outcome::Over)) };
    let Some(verify) = &run.plan.verify else {
        return succeed(deps, job, &run, Phrase::NoProbes {}.into()).await;
    };
    let stop = Stop::watch(&deps.store, run_id, cancel);
    match watch(deps, &run, verify, &stop, cancel).await {
        Seen::Held(text) => succeed(deps, job, &run, text).await,
        Seen::NotHeld(text) => fail(deps, job, &run, text).await,
        Seen::Cut => match stop.reason() {
            Some(StopReason::Switch(why)) => wait(deps, job, &run, why).await,
            Some(StopReason::Cancelled(why)) => end(deps, job, &run, why).await,
            _ => anyhow::bail!("shutting down while verifying"),
        },
    }
}

enum Seen {
    Held(Said),
    NotHeld(Said),
    /// The kill switch, cancelling, or a shutdown.
    Cut,
}

async fn watch(deps: &Deps, run: &Run, verify: &Verify, stop: &Stop, cancel: &CancellationToken) -> Seen {
    let began = Instant::now();
    let mut held_since = None;
    let mut asked = Times(0);
    loop {
        let at = Instant::now();
        let answers = ask_all(deps, run, verify, stop).await;
        asked.0 += 1;
        if stop.reason().is_some() {
            return Seen::Cut;
        }
        if answers.iter().all(|a| a.holds) {
            let since = *held_since.get_or_insert(at);
            if at - since >= verify.hold {
                let (answers, hold) = (told(&answers, true), Span(verify.hold));
                return Seen::Held(Phrase::Held { answers, hold, asked }.into());
            }
        } else {
            held_since = None;
        }
        if began.elapsed() + verify.every > verify.within {
            let within = Span(verify.within);
            let text = if held_since.is_some() {
                Phrase::DidNotHold { hold: Span(verify.hold), within }
            } else {
                Phrase::NotWithin { answers: told(&answers, false), within, asked }
            };
            return Seen::NotHeld(text.into());
        }
        tokio::select! {
            () = tokio::time::sleep_until(at + verify.every) => {}
            () = stop.token().cancelled() => return Seen::Cut,
            () = cancel.cancelled() => return Seen::Cut,
        }
    }
}

struct Answer {
    probe: String,
    holds: bool,
    said: String,
}

/// All probes at the same time; none of them changes anything.
async fn ask_all(deps: &Deps, run: &Run, verify: &Verify, stop: &Stop) -> Vec<Answer> {
    let context = steps::Context {
        run_id: run.id.clone(),
        incident_id: run.incident_id.clone(),
        started_at: clock::now(),
        timeout: PROBE_TIMEOUT.min(verify.within),
    };
    let context = &context;
    join_all(verify.probes.iter().map(|probe| async move {
        let outcome = steps::ask(&deps.tools, probe, context, stop.token()).await;
        metrics::PROBES.with_label_values(&[outcome.ended.as_str()]).inc();
        let said = outcome.output.lines().next().unwrap_or_default();
        Answer {
            probe: steps::describe_probe(probe),
            holds: outcome.ended == Ended::Succeeded,
            said: crate::redact::cut(said, 200).to_owned(),
        }
    }))
    .await
}

/// The answers that matter: all of a success, the ones that do not hold of a failure.
fn told(answers: &[Answer], all: bool) -> String {
    let line = |a: &Answer| format!("{} → {}", a.probe, a.said);
    answers.iter().filter(|a| all || !a.holds).map(line).collect::<Vec<_>>().join("; ")
}

async fn begin(deps: &Deps, job: &Job) -> anyhow::Result<Tx> {
    let mut tx = deps.store.write().await?;
    jobs::hold(&mut tx, job, LEASE).await?;
    Ok(tx)
}

async fn succeed(deps: &Deps, job: &Job, run: &Run, what: Said) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    let why = Said::from(Phrase::Verified { what });
    enter(&mut tx, run, RunState::Succeeded, &why).await?;
    record(&mut tx, run, "verified", "verify", &why).await?;
    story(&mut tx, run, TimelineKind::Verified, &why).await?;
    story(
        &mut tx,
        run,
        TimelineKind::RunFinished,
        &Phrase::RunSucceeded { title: run.plan.title.clone() }.into(),
    )
    .await?;
    touch(&mut tx, run).await?;
    steps::clean(&deps.tools, &run.id);
    Ok((tx, Outcome::Helped))
}

/// Leaves the run in `RollingBack`, also if there is nothing to undo: `act` ends it.
async fn fail(deps: &Deps, job: &Job, run: &Run, what: Said) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    let why = Said::from(Phrase::DidNotHelp { what });
    enter(&mut tx, run, RunState::RollingBack, &why).await?;
    record(&mut tx, run, "not verified", "verify.within", &why).await?;
    story(&mut tx, run, TimelineKind::VerifyFailed, &why).await?;
    touch(&mut tx, run).await?;
    Ok((tx, Outcome::Failed))
}

async fn wait(deps: &Deps, job: &Job, run: &Run, stopped: Said) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    let why = Said::from(Phrase::NotSeen { stopped });
    enter(&mut tx, run, RunState::NeedsHuman, &why).await?;
    record(&mut tx, run, "asked", "automation.stopped", &why).await?;
    story(&mut tx, run, TimelineKind::NeedsHuman, &why).await?;
    touch(&mut tx, run).await?;
    Ok((tx, Outcome::Waiting))
}

/// Every step is done and known: a cancelled run ends here, and nothing is undone.
async fn end(deps: &Deps, job: &Job, run: &Run, cancelled: Said) -> anyhow::Result<(Tx, Outcome)> {
    let mut tx = begin(deps, job).await?;
    let why = Said::from(Phrase::CancelledUnseen { cancelled });
    enter(&mut tx, run, RunState::Cancelled, &why).await?;
    record(&mut tx, run, RunState::Cancelled.as_str(), "run.cancelled", &why).await?;
    let state = RunState::Cancelled;
    let text = Phrase::RunEnded { title: run.plan.title.clone(), state, why }.into();
    story(&mut tx, run, TimelineKind::RunFinished, &text).await?;
    touch(&mut tx, run).await?;
    steps::clean(&deps.tools, &run.id);
    Ok((tx, Outcome::Over))
}

async fn enter(tx: &mut Tx, run: &Run, state: RunState, why: &Said) -> anyhow::Result<()> {
    runs::set_state(tx, &run.id, state, why).await?;
    metrics::RUNS.with_label_values(&[state.as_str()]).inc();
    tracing::info!(run.id = %run.id, incident.id = run.incident_id.as_deref(), state = %state, %why, "run enters a state");
    Ok(())
}

async fn record(tx: &mut Tx, run: &Run, outcome: &str, clause: &str, why: &str) -> anyhow::Result<()> {
    let about = About { fingerprint: None, incident_id: run.incident_id.as_deref() };
    Ok(decisions::add(tx, Stage::Verify, about, outcome, clause, why).await?)
}

async fn story(tx: &mut Tx, run: &Run, kind: TimelineKind, text: &Said) -> anyhow::Result<()> {
    if let Some(id) = &run.incident_id {
        timeline::add(tx, id, kind, text, None).await?;
    }
    Ok(())
}

async fn touch(tx: &mut Tx, run: &Run) -> anyhow::Result<()> {
    if let Some(id) = &run.incident_id {
        incidents::touch(tx, id).await?;
    }
    Ok(())
}
