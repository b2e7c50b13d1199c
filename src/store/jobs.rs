//! Jobs: claimed by lease and fencing number, done in the transaction that writes their result.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Error, Result, Tx, exec, insert_all, row, sql};
use crate::model::{Job, JobKind, NewJob};

#[derive(FromRow)]
struct Row {
    id: String,
    kind: String,
    subject: String,
    attempt: i64,
    fence: i64,
    generation: i64,
}

/// Adds a job. If one of the same kind and subject waits, it is the same job, due at the earlier time; if one is being
/// done, it will be done once more afterwards.
pub async fn enqueue(tx: &mut Tx, job: &NewJob) -> Result<()> {
    enqueue_all(tx, std::slice::from_ref(job)).await
}

/// Adds jobs like [`enqueue`]. No kind and subject may come twice.
pub async fn enqueue_all(tx: &mut Tx, jobs: &[NewJob]) -> Result<()> {
    let now = row::micros(crate::clock::now());
    // A lease that has not ended: it is being done.
    let again = format!(
        "ON CONFLICT (kind, subject) DO UPDATE SET generation = jobs.generation + 1, run_at = CASE WHEN \
         jobs.lease_until > {} OR excluded.run_at < jobs.run_at THEN excluded.run_at ELSE jobs.run_at END",
        tx.now()
    );
    insert_all!(
        tx,
        "INSERT INTO jobs (id, kind, subject, run_at, attempt, generation, fence, owner, lease_until, created_at)",
        jobs,
        |row, j| row
            .push_bind(crate::ids::new())
            .push_bind(j.kind.as_str())
            .push_bind(j.subject.as_str())
            .push_bind(row::micros(j.run_at))
            .push("0, 1, 0, '', 0")
            .push_bind(now),
        again.as_str()
    );
    tx.wake.jobs = true;
    Ok(())
}

/// Claims up to `limit` jobs that are due at `now` for `owner`. Leases go by the store's clock.
pub async fn claim(
    tx: &mut Tx,
    owner: &str,
    now: Timestamp,
    lease: Duration,
    limit: i64,
) -> Result<Vec<Job>> {
    // Materialized: PostgreSQL may run a subquery that skips locked rows more than once, and then it gives more than its limit.
    // What ends later than a lease that begins now was written before the clock jumped back.
    let query = format!(
        "WITH due AS MATERIALIZED (SELECT id FROM jobs WHERE run_at <= $2 AND (lease_until <= {at} OR lease_until > {at} + $3) \
         ORDER BY run_at, id LIMIT $4{}) \
         UPDATE jobs SET lease_until = {at} + $3, owner = $1, fence = fence + 1, attempt = attempt + 1 WHERE id IN \
         (SELECT id FROM due) RETURNING id, kind, subject, attempt, fence, generation",
        tx.skip_locked(),
        at = tx.now(),
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(owner)
        .bind(row::micros(now))
        .bind(row::length(lease))
        .bind(limit)
        .fetch_all(c))?;
    rows.into_iter()
        .map(|r| {
            Ok(Job {
                kind: row::word(&r.kind)?,
                id: r.id,
                subject: r.subject,
                attempt: r.attempt,
                fence: r.fence,
                generation: r.generation,
            })
        })
        .collect()
}

/// Keeps a job ours for another `lease`, in the same transaction as what is written for it. Fails if it is not ours any
/// more: then nothing of the transaction may be committed.
pub async fn hold(tx: &mut Tx, job: &Job, lease: Duration) -> Result<()> {
    let statement = format!("UPDATE jobs SET lease_until = {} + $3 WHERE id = $1 AND fence = $2", tx.now());
    let changed = exec!(tx, |c| sqlx::query(AssertSqlSafe(statement))
        .bind(&job.id)
        .bind(job.fence)
        .bind(row::length(lease)))?;
    held(changed)
}

/// The job is done, unless it was enqueued anew meanwhile: then it is due again.
pub async fn finish(tx: &mut Tx, job: Job) -> Result<()> {
    let gone =
        exec!(tx, |c| sqlx::query("DELETE FROM jobs WHERE id = $1 AND fence = $2 AND generation = $3")
            .bind(&job.id)
            .bind(job.fence)
            .bind(job.generation))?;
    if gone == 1 {
        return Ok(());
    }
    tx.wake.jobs = true;
    let again = exec!(tx, |c| sqlx::query(
        "UPDATE jobs SET lease_until = 0, attempt = 0, last_error = NULL WHERE id = $1 AND fence = $2"
    )
    .bind(&job.id)
    .bind(job.fence))?;
    held(again)
}

/// The job failed and comes back at `run_at`; jobs are never dropped.
pub async fn retry(tx: &mut Tx, job: Job, error: &str, run_at: Timestamp) -> Result<()> {
    let changed = exec!(tx, |c| sqlx::query(
        "UPDATE jobs SET lease_until = 0, last_error = $3, run_at = $4 WHERE id = $1 AND fence = $2"
    )
    .bind(&job.id)
    .bind(job.fence)
    .bind(error)
    .bind(row::micros(run_at)))?;
    held(changed)
}

fn held(changed: u64) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::LeaseLost) }
}

/// When the next job is due, by the clock that says `now`: the first that nobody has claimed, or if all are under way, when the
/// first lease ends.
pub async fn next_due(tx: &mut Tx, now: Timestamp) -> Result<Option<Timestamp>> {
    let free =
        format!("SELECT run_at FROM jobs WHERE lease_until <= {} ORDER BY run_at, id LIMIT 1", tx.now());
    let at: Option<i64> = sql!(tx, |c| sqlx::query_scalar(AssertSqlSafe(free)).fetch_optional(c))?;
    if let Some(at) = at {
        return Ok(Some(row::time(at)));
    }
    let leased = format!("SELECT MIN(lease_until - {} + $1) FROM jobs", tx.now());
    let at: Option<i64> =
        sql!(tx, |c| sqlx::query_scalar(AssertSqlSafe(leased)).bind(row::micros(now)).fetch_one(c))?;
    Ok(at.map(row::time))
}

/// How many there are, and [`next_due`].
pub async fn backlog(tx: &mut Tx, now: Timestamp) -> Result<(i64, Option<Timestamp>)> {
    let count = sql!(tx, |c| sqlx::query_scalar("SELECT COUNT(*) FROM jobs").fetch_one(c))?;
    Ok((count, next_due(tx, now).await?))
}

/// A job that has failed again and again.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Failing {
    pub kind: JobKind,
    /// What it is about: an incident, a run, an approval.
    pub subject: String,
    pub attempts: i64,
    pub last_error: String,
    /// When it is tried again.
    #[schema(value_type = String, format = DateTime)]
    pub next_at: Timestamp,
}

/// Jobs that have failed at least `attempts` times, the most stubborn first.
pub async fn failing(tx: &mut Tx, attempts: i64, limit: i64) -> Result<Vec<Failing>> {
    let rows: Vec<(String, String, i64, String, i64)> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT kind, subject, attempt, last_error, run_at FROM jobs WHERE attempt >= $1 AND last_error IS NOT NULL \
         ORDER BY attempt DESC, id LIMIT $2"
    )
    .bind(attempts)
    .bind(limit)
    .fetch_all(c)
    })?;
    let rows = rows.into_iter().map(|(kind, subject, attempts, last_error, run_at)| {
        let (kind, next_at) = (row::word(&kind)?, row::time(run_at));
        Ok(Failing { kind, subject, attempts, last_error, next_at })
    });
    rows.collect()
}
