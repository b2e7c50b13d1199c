//! Approvals: questions to humans, each about one exact plan.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Page, Result, Tx, exec, page, row, sql};
use crate::model::{Actor, Approval, ApprovalState};

#[derive(FromRow)]
struct Row {
    id: String,
    incident_id: String,
    state: String,
    plan: String,
    plan_hash: String,
    requested_at: i64,
    expires_at: i64,
    decided_by: Option<String>,
    decided_at: Option<i64>,
    reason: Option<String>,
}

const COLUMNS: &str =
    "id, incident_id, state, plan, plan_hash, requested_at, expires_at, decided_by, decided_at, reason";

impl Row {
    fn model(self) -> Result<Approval> {
        Ok(Approval {
            state: row::word(&self.state)?,
            plan: row::from_json(&self.plan)?,
            requested_at: row::time(self.requested_at),
            expires_at: row::time(self.expires_at),
            decided_by: row::from_json_opt(self.decided_by.as_deref())?,
            decided_at: self.decided_at.map(row::time),
            id: self.id,
            incident_id: self.incident_id,
            plan_hash: self.plan_hash,
            reason: self.reason,
        })
    }
}

pub async fn insert(tx: &mut Tx, a: &Approval) -> Result<()> {
    exec!(tx, |c| sqlx::query(
        "INSERT INTO approvals (id, incident_id, state, plan, plan_hash, requested_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)"
    )
    .bind(&a.id)
    .bind(&a.incident_id)
    .bind(a.state.as_str())
    .bind(row::to_json(&a.plan))
    .bind(&a.plan_hash)
    .bind(row::micros(a.requested_at))
    .bind(row::micros(a.expires_at)))?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Approval>> {
    let query = format!("SELECT {COLUMNS} FROM approvals WHERE id = $1");
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(c))?;
    row.map(Row::model).transpose()
}

/// Oldest first.
pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Approval>> {
    let query =
        format!("SELECT {COLUMNS} FROM approvals WHERE incident_id = $1 ORDER BY requested_at, id LIMIT 100");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Newest first.
pub async fn list(
    tx: &mut Tx,
    state: Option<ApprovalState>,
    limit: i64,
    cursor: Option<&str>,
) -> Result<Page<Approval>> {
    let limit = page::clamp(limit);
    let query = format!(
        "SELECT {COLUMNS} FROM approvals WHERE (CAST($1 AS TEXT) IS NULL OR state = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(state.map(ApprovalState::as_str))
        .bind(cursor)
        .bind(limit + 1)
        .fetch_all(c))?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |a| a.id.clone()))
}

/// Closes a pending one. False if it was not pending any more: it works once, whoever asks.
pub async fn decide(
    tx: &mut Tx,
    id: &str,
    state: ApprovalState,
    by: &Actor,
    at: Timestamp,
    reason: Option<&str>,
) -> Result<bool> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE approvals SET state = $2, decided_by = $3, decided_at = $4, reason = $5 WHERE id = $1 AND state = 'pending'"
    )
    .bind(id)
    .bind(state.as_str())
    .bind(row::to_json(by))
    .bind(row::micros(at))
    .bind(reason)
    })?;
    Ok(changed == 1)
}
