//! What happened to each incident, in one sequence over all of them: the live stream reads it on from any position.

use sqlx::{AssertSqlSafe, FromRow};

use super::{Result, Tx, insert_all, row, sql};
use crate::model::{Actor, Said, TimelineEntry, TimelineKind};

#[derive(FromRow)]
struct Row {
    seq: i64,
    incident_id: String,
    at: i64,
    kind: String,
    text: String,
    actor: Option<String>,
    said: Option<String>,
}

impl Row {
    fn model(self) -> Result<TimelineEntry> {
        Ok(TimelineEntry {
            seq: self.seq,
            at: row::time(self.at),
            kind: row::word(&self.kind)?,
            actor: row::from_json_opt(self.actor.as_deref())?,
            incident_id: self.incident_id,
            text: row::said(self.text, self.said.as_deref()),
        })
    }
}

const COLUMNS: &str = "seq, incident_id, at, kind, text, actor, said";

/// A line to be added.
#[derive(Clone, Debug)]
pub struct Line {
    pub incident_id: String,
    pub at: jiff::Timestamp,
    pub kind: TimelineKind,
    pub text: Said,
    pub actor: Option<Actor>,
}

pub async fn add(
    tx: &mut Tx,
    incident_id: &str,
    kind: TimelineKind,
    text: impl Into<Said>,
    actor: Option<&Actor>,
) -> Result<()> {
    let line = Line {
        incident_id: incident_id.to_owned(),
        at: crate::clock::now(),
        kind,
        text: text.into(),
        actor: actor.cloned(),
    };
    add_all(tx, &[line]).await
}

/// Adds lines in this order.
pub async fn add_all(tx: &mut Tx, lines: &[Line]) -> Result<()> {
    insert_all!(
        tx,
        "INSERT INTO timeline (incident_id, at, kind, text, actor, said)",
        lines,
        |row, l| row
            .push_bind(l.incident_id.as_str())
            .push_bind(row::micros(l.at))
            .push_bind(l.kind.as_str())
            .push_bind(l.text.as_str())
            .push_bind(l.actor.as_ref().map(row::to_json))
            .push_bind(row::phrase(&l.text)),
        ""
    );
    tx.wake.timeline = true;
    Ok(())
}

/// Oldest first; the newest 2,000.
pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<TimelineEntry>> {
    let query = format!("SELECT {COLUMNS} FROM timeline WHERE incident_id = $1 ORDER BY seq DESC LIMIT 2000");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).fetch_all(c))?;
    rows.into_iter().rev().map(Row::model).collect()
}

/// The newest so many but for those of some kinds, oldest first.
pub async fn newest_of(
    tx: &mut Tx,
    incident_id: &str,
    without: &[TimelineKind],
    limit: i64,
) -> Result<Vec<TimelineEntry>> {
    // The words of an enum: nothing from outside.
    let without: Vec<String> = without.iter().map(|kind| format!("'{kind}'")).collect();
    let query = format!(
        "SELECT {COLUMNS} FROM timeline WHERE incident_id = $1 AND kind NOT IN ({}) ORDER BY seq DESC LIMIT $2",
        without.join(", ")
    );
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).bind(limit).fetch_all(c))?;
    rows.into_iter().rev().map(Row::model).collect()
}

/// Over all incidents, after a position.
pub async fn since(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<TimelineEntry>> {
    let query = format!("SELECT {COLUMNS} FROM timeline WHERE seq > $1 ORDER BY seq LIMIT $2");
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(seq).bind(limit).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// The newest position; 0 if there is none.
pub async fn newest(tx: &mut Tx) -> Result<i64> {
    let seq: Option<i64> = sql!(tx, |c| sqlx::query_scalar("SELECT MAX(seq) FROM timeline").fetch_one(c))?;
    Ok(seq.unwrap_or(0))
}
