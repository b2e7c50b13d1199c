//! The one way that data flows: inbox → correlate → diagnose → decide → act → verify, and back. The only file that knows the
//! order of the stages.

mod lag;
mod pace;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    act,
    admission::Admission,
    clock, correlate, decide, diagnose,
    intake::commit::Committer,
    metrics,
    model::{Job, JobKind, NewJob},
    store::{Result, Store, Tx, approvals, jobs, runs},
    verify,
    worker::{Done, Worker},
};
use lag::Lag;
pub use pace::Pace;

/// Alerts that are correlated in one transaction, about: more would keep others waiting for the store.
const BATCH: usize = 2000;
/// Other replicas commit too, and ring no bell here.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Jobs done at a time by one process; most of them wait for somebody else.
const PARALLEL: usize = 32;

/// What a job counts that was never tried before.
const FIRST_ATTEMPT: i64 = 1;

/// Every stage's dependencies.
pub struct Pipeline {
    pub store: Store,
    pub correlate: correlate::Deps,
    pub diagnose: diagnose::Deps,
    pub decide: decide::Deps,
    /// None: nothing can be carried out.
    pub hands: Option<Hands>,
    pub admission: Arc<Admission>,
}

/// What changes the world outside.
pub struct Hands {
    pub act: act::Deps,
    pub verify: verify::Deps,
}

impl Pipeline {
    /// Does the jobs that follow from the inbox, side by side, until cancelled.
    pub async fn work_until(self: Arc<Self>, owner: String, cancel: CancellationToken) {
        let worker = Worker::new(self.store.clone(), owner, PARALLEL);
        let stages = self.clone();
        let work = move |job: Arc<Job>, cancel: CancellationToken| {
            let stages = stages.clone();
            async move { stages.work(&job, cancel).await }
        };
        worker.run(cancel, work).await;
    }

    /// Correlates what is in the inbox, in its order, until cancelled; stands back before a crowd of intake's.
    pub async fn correlate_until(self: Arc<Self>, intake: Committer, cancel: CancellationToken) {
        let (mut pace, mut lag) = (Pace::default(), Lag::new(self.admission.patience()));
        while !cancel.is_cancelled() {
            let began = Instant::now();
            let wait = match self.correlate_once(&mut pace).await {
                Ok(None) => {
                    lag.none();
                    LOOK_AGAIN
                }
                Ok(Some(items)) => {
                    let until = lag.stand_back_until(began, Instant::now(), items < BATCH as u64);
                    while intake.is_crowded() && Instant::now() < until && !cancel.is_cancelled() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    continue;
                }
                Err(e) => {
                    tracing::error!(error = %e, "correlation failed; the inbox keeps what it has, trying again in a second");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.store.bells.inbox.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Correlates one batch; how many alerts and anomalies it took, if any waited.
    pub async fn correlate_once(&self, pace: &mut Pace) -> Result<Option<u64>> {
        let Some((mut tx, out)) = correlate::drain(&self.correlate, BATCH).await? else { return Ok(None) };
        let now = clock::now();
        let diagnose =
            out.diagnose.iter().map(|incident| at_time(JobKind::Diagnose, incident, pace.due(incident, now)));
        let settle = out.settle.iter().map(|(incident, at)| at_time(JobKind::Settle, incident, *at));
        let next: Vec<NewJob> = diagnose.chain(settle).collect();
        if !next.is_empty() {
            jobs::enqueue_all(&mut tx, &next).await?;
        }
        tx.commit().await?;
        metrics::INBOX_TAKEN.inc_by(out.items);
        Ok(Some(out.items))
    }

    /// Does one job, within a span that names its incident.
    pub async fn work(&self, job: &Job, cancel: CancellationToken) -> anyhow::Result<Done> {
        let incident = self.incident_of(job).await.context("reading what a job is about")?;
        let span =
            tracing::info_span!("stage", stage = %job.kind, incident.id = incident, attempt = job.attempt);
        self.stage(job, cancel).instrument(span).await
    }

    /// The incident that a job is about; a run that somebody started by hand may have none.
    async fn incident_of(&self, job: &Job) -> Result<Option<String>> {
        let subject = job.subject.as_str();
        Ok(match job.kind {
            JobKind::Run | JobKind::Verify => {
                runs::get(&mut self.store.read_few().await?, subject).await?.and_then(|run| run.incident_id)
            }
            JobKind::ExpireApproval => {
                approvals::get(&mut self.store.read_few().await?, subject).await?.map(|a| a.incident_id)
            }
            JobKind::Diagnose | JobKind::Enhance | JobKind::Decide | JobKind::Settle => {
                Some(subject.to_owned())
            }
        })
    }

    fn hands(&self) -> anyhow::Result<&Hands> {
        self.hands.as_ref().context("nothing is carried out here")
    }

    /// Decides in this transaction; when to look again, if a guard may hold then.
    async fn decide(&self, tx: &mut Tx, incident: &str) -> anyhow::Result<Option<NewJob>> {
        let outcome = decide::decide(&self.decide, tx, incident).await.context("deciding")?;
        Ok(match outcome {
            decide::Outcome::Nothing { again_at: Some(at) } => Some(at_time(JobKind::Decide, incident, at)),
            _ => None,
        })
    }

    /// Its stage's result, and what comes next.
    async fn stage(&self, job: &Job, cancel: CancellationToken) -> anyhow::Result<Done> {
        let subject = job.subject.as_str();
        match job.kind {
            JobKind::Diagnose => {
                let (mut tx, outcome) =
                    diagnose::first(&self.diagnose, subject).await.context("the first diagnosis")?;
                let mut next = Vec::new();
                if let diagnose::Outcome::Diagnosed { enhance } = outcome {
                    if job.attempt <= FIRST_ATTEMPT {
                        next.extend(self.decide(&mut tx, subject).await?);
                    } else {
                        // Should deciding be what failed, people have the diagnosis at least.
                        next.push(now(JobKind::Decide, subject));
                    }
                    next.extend(enhance.then(|| now(JobKind::Enhance, subject)));
                }
                if !self.admission.gathers_from_afar() {
                    // What was left out is asked then, unless that is too early still.
                    next.push(at_time(JobKind::Diagnose, subject, later(subject)));
                }
                Ok((tx, next))
            }
            JobKind::Enhance => {
                let Some(_asking) = self.admission.model() else {
                    metrics::OVERLOAD_POSTPONED.with_label_values(&["model"]).inc();
                    let tx = self.store.write().await.context("putting a question to the models off")?;
                    return Ok((tx, vec![at_time(JobKind::Enhance, subject, later(subject))]));
                };
                let (tx, outcome) =
                    diagnose::enhance(&self.diagnose, subject).await.context("asking the models")?;
                let next = match outcome {
                    diagnose::Outcome::Diagnosed { .. } => vec![now(JobKind::Decide, subject)],
                    _ => Vec::new(),
                };
                Ok((tx, next))
            }
            JobKind::Decide => {
                let mut tx = self.store.write().await.context("deciding")?;
                let again = self.decide(&mut tx, subject).await?;
                Ok((tx, again.into_iter().collect()))
            }
            JobKind::Run => {
                let (tx, outcome) = act::run(&self.hands()?.act, job, subject, &cancel)
                    .await
                    .context("carrying out a run")?;
                let next = match outcome {
                    act::Outcome::Verify => vec![now(JobKind::Verify, subject)],
                    act::Outcome::Over(_) | act::Outcome::Waiting => Vec::new(),
                };
                Ok((tx, next))
            }
            JobKind::Verify => {
                let (tx, outcome) = verify::verify(&self.hands()?.verify, job, subject, &cancel)
                    .await
                    .context("verifying a run")?;
                let next = match outcome {
                    verify::Outcome::Failed => vec![now(JobKind::Run, subject)],
                    verify::Outcome::Helped | verify::Outcome::Waiting | verify::Outcome::Over => Vec::new(),
                };
                Ok((tx, next))
            }
            JobKind::ExpireApproval => {
                let (tx, again) =
                    decide::expire(&self.decide, subject).await.context("expiring an approval")?;
                Ok((tx, again.map(|at| at_time(JobKind::ExpireApproval, subject, at)).into_iter().collect()))
            }
            JobKind::Settle => {
                let (tx, again) = correlate::settle(&self.correlate, subject).await?;
                // What was not to be asked while messages were held back may be asked now.
                let next = again.map_or_else(
                    || now(JobKind::Decide, subject),
                    |at| at_time(JobKind::Settle, subject, at),
                );
                Ok((tx, vec![next]))
            }
        }
    }
}

/// When overload may be over: half a minute to a minute from now, so that what was put off does not come back all at once.
fn later(subject: &str) -> Timestamp {
    let spread = subject.bytes().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into())) % 30_000;
    clock::after(clock::now(), Duration::from_millis(30_000 + spread))
}

fn now(kind: JobKind, subject: &str) -> NewJob {
    at_time(kind, subject, clock::now())
}

fn at_time(kind: JobKind, subject: &str, run_at: Timestamp) -> NewJob {
    NewJob { kind, subject: subject.to_owned(), run_at }
}
