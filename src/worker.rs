//! Carries out jobs: claims them by lease, keeps the lease while they are done, commits their result with the end of the job.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::{JOB_SECONDS, JOBS_AGE_MS, JOBS_DONE, JOBS_LOST, JOBS_RETRIED},
    model::{Job, NewJob},
    retry::Backoff,
    store::{Error, Store, Tx, jobs},
};

/// How long a job stays claimed without a sign of life; another replica takes it over after that.
pub const LEASE: Duration = Duration::from_secs(12);
const RENEW_EVERY: Duration = Duration::from_secs(4);
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// What doing a job gives: a transaction with its result, and the jobs that follow from it.
pub type Done = (Tx, Vec<NewJob>);

/// Claims and carries out jobs for one process.
pub struct Worker {
    store: Store,
    owner: String,
    slots: Arc<Semaphore>,
}

impl Worker {
    /// `owner` names this process; at most `parallel` jobs are done at a time.
    pub fn new(store: Store, owner: String, parallel: usize) -> Self {
        Self { store, owner, slots: Arc::new(Semaphore::new(parallel)) }
    }

    /// Works until cancelled; then waits for what is under way.
    pub async fn run<F, Fut>(&self, cancel: CancellationToken, work: F)
    where
        F: Fn(Arc<Job>, CancellationToken) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = anyhow::Result<Done>> + Send + 'static,
    {
        let mut under_way = JoinSet::new();
        while !cancel.is_cancelled() {
            while under_way.try_join_next().is_some() {}
            let wait = match self.claim_into(&mut under_way, &cancel, &work).await {
                Ok(wait) => wait,
                Err(e) => {
                    tracing::error!(error = %e, "claiming jobs failed; trying again in a second");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.store.bells.jobs.notified() => {}
                Some(_) = under_way.join_next() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Claims as many as there are free slots and starts them; how long nothing more will be due.
    async fn claim_into<F, Fut>(
        &self,
        under_way: &mut JoinSet<()>,
        cancel: &CancellationToken,
        work: &F,
    ) -> Result<Duration, Error>
    where
        F: Fn(Arc<Job>, CancellationToken) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = anyhow::Result<Done>> + Send + 'static,
    {
        let free = self.slots.available_permits();
        if free == 0 {
            return Ok(RENEW_EVERY);
        }
        let mut tx = self.store.read_few().await?;
        let now = clock::now();
        let next = jobs::next_due(&mut tx, now).await?;
        drop(tx);
        let late = next.map_or(Duration::ZERO, |at| clock::between(at, now));
        JOBS_AGE_MS.set(i64::try_from(late.as_millis()).unwrap_or(i64::MAX));
        match next {
            None => return Ok(Duration::from_secs(5)),
            Some(at) if at > now => return Ok(clock::between(now, at).min(Duration::from_secs(5))),
            Some(_) => {}
        }
        let mut tx = self.store.write().await?;
        let claimed = jobs::claim(&mut tx, &self.owner, now, LEASE, free as i64).await?;
        tx.commit().await?;
        for job in claimed {
            let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let (store, cancel, work) = (self.store.clone(), cancel.clone(), work.clone());
            under_way.spawn(async move {
                one(&store, job, cancel, work).await;
                drop(slot);
            });
        }
        Ok(Duration::from_millis(50))
    }
}

/// Does one job and records what came of it.
async fn one<F, Fut>(store: &Store, job: Job, cancel: CancellationToken, work: F)
where
    F: Fn(Arc<Job>, CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<Done>>,
{
    let (kind, started) = (job.kind.as_str(), Instant::now());
    let job = Arc::new(job);
    let ours = cancel.child_token();
    let result = tokio::select! {
        done = work(job.clone(), ours.clone()) => done,
        () = keep(store, &job) => {
            ours.cancel();
            Err(Error::LeaseLost.into())
        }
    };
    JOB_SECONDS.with_label_values(&[kind]).observe(started.elapsed().as_secs_f64());
    let job = Arc::into_inner(job).expect("the work is over and has dropped its share");
    let subject = job.subject.clone();
    let outcome = match result {
        Ok((tx, next)) => finish(tx, job, next).await,
        Err(e) if matches!(e.downcast_ref(), Some(Error::LeaseLost)) => Err(Error::LeaseLost),
        Err(e) => again(store, job, &e, cancel.is_cancelled()).await,
    };
    match outcome {
        Ok(()) => {}
        Err(Error::LeaseLost) => {
            JOBS_LOST.with_label_values(&[kind]).inc();
            tracing::warn!(job.kind = kind, job.subject = %subject, "another owner has taken the job over; nothing was written");
        }
        Err(e) => {
            tracing::error!(job.kind = kind, job.subject = %subject, error = %e, "the job's result could not be stored; its lease will end");
        }
    }
}

/// Commits what a job gave, with the end of the job and with what follows from it.
pub async fn finish(mut tx: Tx, job: Job, next: Vec<NewJob>) -> Result<(), Error> {
    let kind = job.kind.as_str();
    for new in &next {
        jobs::enqueue(&mut tx, new).await?;
    }
    jobs::finish(&mut tx, job).await?;
    tx.commit().await?;
    JOBS_DONE.with_label_values(&[kind]).inc();
    Ok(())
}

/// Gives the job back; at a shutdown without delay, for whoever comes next.
async fn again(store: &Store, job: Job, error: &anyhow::Error, stopping: bool) -> Result<(), Error> {
    let text = format!("{error:#}");
    let wait = if stopping { Duration::ZERO } else { RETRY.wait(job.attempt) };
    if !stopping {
        JOBS_RETRIED.with_label_values(&[job.kind.as_str()]).inc();
        tracing::warn!(job.kind = %job.kind, job.subject = %job.subject, attempt = job.attempt, error = text, "a job failed and will be tried again");
    }
    let mut tx = store.write().await?;
    jobs::retry(&mut tx, job, &text, clock::after(clock::now(), wait)).await?;
    tx.commit().await
}

/// Renews the lease for as long as it is ours. Returns when it is not: then the job must stop.
async fn keep(store: &Store, job: &Job) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let renewed = async {
            let mut tx = store.write().await?;
            jobs::hold(&mut tx, job, LEASE).await?;
            tx.commit().await
        };
        match renewed.await {
            Ok(()) => {}
            Err(Error::LeaseLost) => return,
            Err(e) => tracing::warn!(job.kind = %job.kind, error = %e, "renewing a job's lease failed"),
        }
    }
}
