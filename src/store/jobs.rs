//! Jobs: claimed by lease and fencing number, done in the transaction that writes their result.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Error, Result, Tx, exec, insert_all, row, sql};
use crate::model::{Job, NewJob};

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
        // A lease that has not ended by the time of this job's making: it is being done.
        "ON CONFLICT (kind, subject) DO UPDATE SET generation = jobs.generation + 1, run_at = CASE WHEN \
         jobs.lease_until > excluded.created_at OR excluded.run_at < jobs.run_at THEN excluded.run_at ELSE jobs.run_at END"
    );
    tx.wake.jobs = true;
    Ok(())
}

/// Claims up to `limit` due jobs for `owner`.
pub async fn claim(
    tx: &mut Tx,
    owner: &str,
    now: Timestamp,
    lease: Duration,
    limit: i64,
) -> Result<Vec<Job>> {
    // Materialized: PostgreSQL may run a subquery that skips locked rows more than once, and then it gives more than its limit.
    let query = format!(
        "WITH due AS MATERIALIZED (SELECT id FROM jobs WHERE run_at <= $2 AND lease_until <= $2 ORDER BY run_at, id LIMIT $4{}) \
         UPDATE jobs SET lease_until = $3, owner = $1, fence = fence + 1, attempt = attempt + 1 WHERE id IN \
         (SELECT id FROM due) RETURNING id, kind, subject, attempt, fence, generation",
        tx.skip_locked()
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(owner)
        .bind(row::micros(now))
        .bind(row::micros(crate::clock::after(now, lease)))
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
    let until = row::micros(crate::clock::after(crate::clock::now(), lease));
    let changed =
        exec!(tx, |c| sqlx::query("UPDATE jobs SET lease_until = $3 WHERE id = $1 AND fence = $2")
            .bind(&job.id)
            .bind(job.fence)
            .bind(until))?;
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

/// When the next job is due, those under way excepted; and how many there are.
pub async fn backlog(tx: &mut Tx, now: Timestamp) -> Result<(i64, Option<Timestamp>)> {
    let (count, next): (i64, Option<i64>) = sql!(tx, |c| sqlx::query_as(
        "SELECT COUNT(*), MIN(CASE WHEN lease_until > $1 THEN lease_until ELSE run_at END) FROM jobs"
    )
    .bind(row::micros(now))
    .fetch_one(c))?;
    Ok((count, next.map(row::time)))
}
