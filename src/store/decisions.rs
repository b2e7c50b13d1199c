//! Decisions, for `explain`.

use sqlx::FromRow;

use super::{Result, Tx, insert_all, row, sql};
use crate::model::{Decision, Stage};

#[derive(FromRow)]
struct Row {
    at: i64,
    stage: String,
    fingerprint: Option<String>,
    incident_id: Option<String>,
    outcome: String,
    clause: String,
    why: String,
}

impl Row {
    fn model(self) -> Result<Decision> {
        Ok(Decision {
            at: row::time(self.at),
            stage: row::word(&self.stage)?,
            fingerprint: self.fingerprint,
            incident_id: self.incident_id,
            outcome: self.outcome,
            clause: self.clause,
            why: self.why,
        })
    }
}

/// What a decision is about: an alert, an incident, or an alert in an incident.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    pub fingerprint: Option<&'a str>,
    pub incident_id: Option<&'a str>,
}

impl<'a> About<'a> {
    pub fn incident(id: &'a str) -> Self {
        Self { fingerprint: None, incident_id: Some(id) }
    }
    pub fn alert(fingerprint: &'a str, incident_id: Option<&'a str>) -> Self {
        Self { fingerprint: Some(fingerprint), incident_id }
    }
}

/// Records a choice; also the choice to do nothing.
pub async fn add(
    tx: &mut Tx,
    stage: Stage,
    about: About<'_>,
    outcome: &str,
    clause: &str,
    why: &str,
) -> Result<()> {
    let decision = Decision {
        at: crate::clock::now(),
        stage,
        fingerprint: about.fingerprint.map(str::to_owned),
        incident_id: about.incident_id.map(str::to_owned),
        outcome: outcome.to_owned(),
        clause: clause.to_owned(),
        why: why.to_owned(),
    };
    add_all(tx, &[decision]).await
}

/// Records choices, in this order.
pub async fn add_all(tx: &mut Tx, decisions: &[Decision]) -> Result<()> {
    insert_all!(
        tx,
        "INSERT INTO decisions (at, stage, fingerprint, incident_id, outcome, clause, why)",
        decisions,
        |row, d| row
            .push_bind(row::micros(d.at))
            .push_bind(d.stage.as_str())
            .push_bind(d.fingerprint.as_deref())
            .push_bind(d.incident_id.as_deref())
            .push_bind(d.outcome.as_str())
            .push_bind(d.clause.as_str())
            .push_bind(d.why.as_str()),
        ""
    );
    Ok(())
}

/// Everything about alerts, anomalies and incidents after a row, oldest first: the number of each row with it.
pub async fn after(tx: &mut Tx, row: i64, limit: i64) -> Result<Vec<(i64, Decision)>> {
    #[derive(FromRow)]
    struct Numbered {
        id: i64,
        #[sqlx(flatten)]
        row: Row,
    }
    let rows: Vec<Numbered> = sql!(tx, |c| sqlx::query_as(
        "SELECT id, at, stage, fingerprint, incident_id, outcome, clause, why FROM decisions \
         WHERE id > $1 ORDER BY id LIMIT $2"
    )
    .bind(row)
    .bind(limit)
    .fetch_all(c))?;
    rows.into_iter().map(|r| Ok((r.id, r.row.model()?))).collect()
}

/// Oldest first: all about an incident, or all about an alert; the newest 1,000.
pub async fn of(tx: &mut Tx, about: About<'_>) -> Result<Vec<Decision>> {
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(
        "SELECT at, stage, fingerprint, incident_id, outcome, clause, why FROM decisions \
         WHERE fingerprint = $1 OR incident_id = $2 ORDER BY id DESC LIMIT 1000"
    )
    .bind(about.fingerprint)
    .bind(about.incident_id)
    .fetch_all(c))?;
    rows.into_iter().rev().map(Row::model).collect()
}
