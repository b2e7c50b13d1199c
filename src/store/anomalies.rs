//! Anomalies that detectors found.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Result, Tx, exec, row, sql};
use crate::model::Anomaly;

#[derive(FromRow)]
struct Row {
    id: String,
    kind: String,
    key: String,
    service: String,
    severity: String,
    title: String,
    detail: String,
    started_at: i64,
    ended_at: Option<i64>,
    incident_id: Option<String>,
}

const COLUMNS: &str = "id, kind, key, service, severity, title, detail, started_at, ended_at, incident_id";

impl Row {
    fn model(self) -> Result<Anomaly> {
        Ok(Anomaly {
            kind: row::word(&self.kind)?,
            severity: row::word(&self.severity)?,
            detail: row::from_json(&self.detail)?,
            started_at: row::time(self.started_at),
            ended_at: self.ended_at.map(row::time),
            id: self.id,
            key: self.key,
            service: self.service,
            title: self.title,
            incident_id: self.incident_id,
        })
    }
}

pub async fn insert(tx: &mut Tx, a: &Anomaly) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO anomalies (id, kind, key, service, severity, title, detail, started_at, ended_at, incident_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    )
    .bind(&a.id)
    .bind(a.kind.as_str())
    .bind(&a.key)
    .bind(&a.service)
    .bind(a.severity.as_str())
    .bind(&a.title)
    .bind(row::to_json(&a.detail))
    .bind(row::micros(a.started_at))
    .bind(a.ended_at.map(row::micros))
    .bind(a.incident_id.as_deref())
    })?;
    Ok(())
}

/// The one with this key that is not over.
pub async fn open_by_key(tx: &mut Tx, key: &str) -> Result<Option<Anomaly>> {
    let query = format!(
        "SELECT {COLUMNS} FROM anomalies WHERE key = $1 AND ended_at IS NULL ORDER BY started_at DESC LIMIT 1"
    );
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(key).fetch_optional(c))?;
    row.map(Row::model).transpose()
}

/// What a detector now says of one that it reported before.
pub async fn update(tx: &mut Tx, a: &Anomaly) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "UPDATE anomalies SET severity = $2, title = $3, detail = $4, ended_at = $5, incident_id = $6 WHERE id = $1"
    )
    .bind(&a.id)
    .bind(a.severity.as_str())
    .bind(&a.title)
    .bind(row::to_json(&a.detail))
    .bind(a.ended_at.map(row::micros))
    .bind(a.incident_id.as_deref())
    })?;
    Ok(())
}

pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Anomaly>> {
    let query =
        format!("SELECT {COLUMNS} FROM anomalies WHERE incident_id = $1 ORDER BY started_at, id LIMIT 1000");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Those that began since `from`, with or without an incident.
pub async fn since(tx: &mut Tx, from: Timestamp) -> Result<Vec<Anomaly>> {
    let query =
        format!("SELECT {COLUMNS} FROM anomalies WHERE started_at >= $1 ORDER BY started_at, id LIMIT 5000");
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(row::micros(from)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Gives an anomaly to an incident.
pub async fn attach(tx: &mut Tx, id: &str, incident_id: &str) -> Result<()> {
    exec!(tx, |c| sqlx::query("UPDATE anomalies SET incident_id = $2 WHERE id = $1")
        .bind(id)
        .bind(incident_id))?;
    Ok(())
}

/// Those that are not over, for the detectors that go on watching them after a restart.
pub async fn open(tx: &mut Tx) -> Result<Vec<Anomaly>> {
    let query =
        format!("SELECT {COLUMNS} FROM anomalies WHERE ended_at IS NULL ORDER BY started_at DESC LIMIT 5000");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}
