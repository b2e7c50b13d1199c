//! Runs and their step journal.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Page, Result, Tx, exec, flags, page, row, sql};
use crate::model::{Run, RunState, Said, StepRecord};

#[derive(FromRow)]
struct Row {
    id: String,
    incident_id: Option<String>,
    state: String,
    plan: String,
    plan_hash: String,
    allowed_by: String,
    started_at: i64,
    finished_at: Option<i64>,
    outcome: String,
    said: Option<String>,
}

const COLUMNS: &str =
    "id, incident_id, state, plan, plan_hash, allowed_by, started_at, finished_at, outcome, said";

impl Row {
    fn model(self, steps: Vec<StepRecord>) -> Result<Run> {
        Ok(Run {
            state: row::word(&self.state)?,
            plan: row::from_json(&self.plan)?,
            allowed_by: row::from_json(&self.allowed_by)?,
            started_at: row::time(self.started_at),
            finished_at: self.finished_at.map(row::time),
            id: self.id,
            incident_id: self.incident_id,
            plan_hash: self.plan_hash,
            outcome: row::said(self.outcome, self.said.as_deref()),
            steps,
        })
    }
}

#[derive(FromRow)]
struct StepRow {
    phase: String,
    position: i64,
    attempt: i64,
    step_id: String,
    state: String,
    started_at: i64,
    finished_at: Option<i64>,
    output: String,
}

impl StepRow {
    fn model(self) -> Result<StepRecord> {
        Ok(StepRecord {
            phase: row::word(&self.phase)?,
            position: self.position,
            attempt: self.attempt,
            step_id: self.step_id,
            state: row::word(&self.state)?,
            started_at: row::time(self.started_at),
            finished_at: self.finished_at.map(row::time),
            output: self.output,
        })
    }
}

/// Fails with a conflict (see [`super::Error::is_conflict`]) while another run holds the target.
pub async fn insert(tx: &mut Tx, r: &Run) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO runs (id, incident_id, state, playbook, target, plan, plan_hash, allowed_by, started_at, outcome, said) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
    )
    .bind(&r.id)
    .bind(r.incident_id.as_deref())
    .bind(r.state.as_str())
    .bind(&r.plan.playbook)
    .bind(&r.plan.target)
    .bind(row::to_json(&r.plan))
    .bind(&r.plan_hash)
    .bind(row::to_json(&r.allowed_by))
    .bind(row::micros(r.started_at))
    .bind(r.outcome.as_str())
    .bind(row::phrase(&r.outcome))
    })?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Run>> {
    let query = format!("SELECT {COLUMNS} FROM runs WHERE id = $1");
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(c))?;
    match row {
        Some(row) => with_steps(tx, row).await.map(Some),
        None => Ok(None),
    }
}

/// Oldest first.
pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Run>> {
    let query =
        format!("SELECT {COLUMNS} FROM runs WHERE incident_id = $1 ORDER BY started_at, id LIMIT 100");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).fetch_all(c))?;
    let mut runs = Vec::with_capacity(rows.len());
    for row in rows {
        runs.push(with_steps(tx, row).await?);
    }
    Ok(runs)
}

/// Newest first.
pub async fn list(
    tx: &mut Tx,
    state: Option<RunState>,
    limit: i64,
    cursor: Option<&str>,
) -> Result<Page<Run>> {
    let limit = page::clamp(limit);
    let query = format!(
        "SELECT {COLUMNS} FROM runs WHERE (CAST($1 AS TEXT) IS NULL OR state = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(state.map(RunState::as_str))
        .bind(cursor)
        .bind(limit + 1)
        .fetch_all(c))?;
    let mut runs = Vec::with_capacity(rows.len());
    for row in rows {
        runs.push(with_steps(tx, row).await?);
    }
    Ok(Page::of(runs, limit, |r| r.id.clone()))
}

async fn with_steps(tx: &mut Tx, row: Row) -> Result<Run> {
    let steps = steps(tx, &row.id).await?;
    row.model(steps)
}

/// The journal in the order of doing.
pub async fn steps(tx: &mut Tx, run_id: &str) -> Result<Vec<StepRecord>> {
    let rows: Vec<StepRow> = sql!(tx, |c| sqlx::query_as(
        "SELECT phase, position, attempt, step_id, state, started_at, finished_at, output FROM run_steps \
         WHERE run_id = $1 ORDER BY phase, position, attempt"
    )
    .bind(run_id)
    .fetch_all(c))?;
    rows.into_iter().map(StepRow::model).collect()
}

/// Also forgets the wish to cancel it, unless the run goes on: a human who lets it go on later has seen that wish.
pub async fn set_state(tx: &mut Tx, id: &str, state: RunState, outcome: &Said) -> Result<()> {
    let finished = state.is_final().then(|| row::micros(crate::clock::now()));
    exec!(tx, |c| sqlx::query(
        "UPDATE runs SET state = $2, outcome = $3, finished_at = $4, said = $5 WHERE id = $1"
    )
    .bind(id)
    .bind(state.as_str())
    .bind(outcome.as_str())
    .bind(finished)
    .bind(row::phrase(outcome)))?;
    if state.is_final() || state == RunState::NeedsHuman {
        flags::clear(tx, &flags::cancelled(id)).await?;
    }
    Ok(())
}

/// Writes one journal row; the same phase, position and attempt again replaces it.
pub async fn journal(tx: &mut Tx, run_id: &str, s: &StepRecord) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO run_steps (run_id, phase, position, attempt, step_id, state, started_at, finished_at, output) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (run_id, phase, position, attempt) DO UPDATE SET \
         state = excluded.state, finished_at = excluded.finished_at, output = excluded.output"
    )
    .bind(run_id)
    .bind(s.phase.as_str())
    .bind(s.position)
    .bind(s.attempt)
    .bind(&s.step_id)
    .bind(s.state.as_str())
    .bind(row::micros(s.started_at))
    .bind(s.finished_at.map(row::micros))
    .bind(&s.output)
    })?;
    Ok(())
}

/// Target and start of the runs of a playbook since a time, for the guards.
pub async fn recent(tx: &mut Tx, playbook: &str, since: Timestamp) -> Result<Vec<(String, Timestamp)>> {
    let rows: Vec<(String, i64)> = sql!(tx, |c| sqlx::query_as(
        "SELECT target, started_at FROM runs WHERE playbook = $1 AND started_at >= $2 ORDER BY started_at"
    )
    .bind(playbook)
    .bind(row::micros(since))
    .fetch_all(c))?;
    Ok(rows.into_iter().map(|(target, at)| (target, row::time(at))).collect())
}

/// The run that holds a target: one that is not over.
pub async fn active_on(tx: &mut Tx, target: &str) -> Result<Option<String>> {
    Ok(sql!(tx, |c| {
        sqlx::query_scalar(
        "SELECT id FROM runs WHERE target = $1 AND state IN ('running', 'needs_human', 'verifying', 'rolling_back')"
    )
    .bind(target)
    .fetch_optional(c)
    })?)
}
