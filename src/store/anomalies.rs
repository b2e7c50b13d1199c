//! Anomalies that detectors found.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Result, Tx, insert_all, row, rows_in, sql};
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
    said: Option<String>,
}

const COLUMNS: &str =
    "id, kind, key, service, severity, title, detail, started_at, ended_at, incident_id, said";

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
            title: row::said(self.title, self.said.as_deref()),
            incident_id: self.incident_id,
        })
    }
}

/// Inserts them, or writes what a detector now says of them and where they belong. None may come twice.
pub async fn save(tx: &mut Tx, anomalies: &[&Anomaly]) -> Result<()> {
    let head = format!("INSERT INTO anomalies ({COLUMNS})");
    insert_all!(
        tx,
        head.as_str(),
        anomalies,
        |row, a| row
            .push_bind(a.id.as_str())
            .push_bind(a.kind.as_str())
            .push_bind(a.key.as_str())
            .push_bind(a.service.as_str())
            .push_bind(a.severity.as_str())
            .push_bind(a.title.as_str())
            .push_bind(row::to_json(&a.detail))
            .push_bind(row::micros(a.started_at))
            .push_bind(a.ended_at.map(row::micros))
            .push_bind(a.incident_id.as_deref())
            .push_bind(row::phrase(&a.title)),
        "ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, title = excluded.title, detail = excluded.detail, \
         ended_at = excluded.ended_at, incident_id = excluded.incident_id, said = excluded.said"
    );
    Ok(())
}

/// Those with these keys that are not over.
pub async fn open_by_key(tx: &mut Tx, keys: &[&str]) -> Result<Vec<Anomaly>> {
    let head = format!("SELECT {COLUMNS} FROM anomalies WHERE ended_at IS NULL AND key");
    rows_in!(tx, Row, head.as_str(), keys, "ORDER BY started_at").into_iter().map(Row::model).collect()
}

/// Those with these keys that began since `from` and are over.
pub async fn over_by_key(tx: &mut Tx, keys: &[&str], from: Timestamp) -> Result<Vec<Anomaly>> {
    let head = format!("SELECT {COLUMNS} FROM anomalies WHERE ended_at IS NOT NULL AND key");
    let tail = format!("AND started_at >= {} ORDER BY started_at", row::micros(from));
    rows_in!(tx, Row, head.as_str(), keys, &tail).into_iter().map(Row::model).collect()
}

/// Those that began since `from` and belong to no incident; the oldest 5,000.
pub async fn loose_since(tx: &mut Tx, from: Timestamp) -> Result<Vec<Anomaly>> {
    let query = format!(
        "SELECT {COLUMNS} FROM anomalies WHERE started_at >= $1 AND incident_id IS NULL ORDER BY started_at, id LIMIT 5000"
    );
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(row::micros(from)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Those of these incidents that are not over.
pub async fn lasting(tx: &mut Tx, incidents: &[&str]) -> Result<Vec<Anomaly>> {
    let head = format!("SELECT {COLUMNS} FROM anomalies WHERE ended_at IS NULL AND incident_id");
    rows_in!(tx, Row, head.as_str(), incidents, "ORDER BY started_at").into_iter().map(Row::model).collect()
}

/// How many there are, and how many of them belong to no incident.
pub async fn count(tx: &mut Tx) -> Result<(u64, u64)> {
    let query = "SELECT COUNT(*), COUNT(incident_id) FROM anomalies";
    let (all, placed): (i64, i64) = sql!(tx, |c| sqlx::query_as(query).fetch_one(c))?;
    Ok((all as u64, (all - placed) as u64))
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

/// Those that began between two times, oldest first.
pub async fn between(tx: &mut Tx, from: Timestamp, to: Timestamp) -> Result<Vec<Anomaly>> {
    let query = format!(
        "SELECT {COLUMNS} FROM anomalies WHERE started_at >= $1 AND started_at <= $2 ORDER BY started_at, id"
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(row::micros(from))
        .bind(row::micros(to))
        .fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Those that are not over, for the detectors that go on watching them after a restart.
pub async fn open(tx: &mut Tx) -> Result<Vec<Anomaly>> {
    let query =
        format!("SELECT {COLUMNS} FROM anomalies WHERE ended_at IS NULL ORDER BY started_at DESC LIMIT 5000");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}
