//! Evidence of an incident, numbered from 1.

use sqlx::FromRow;

use super::{Error, Result, Tx, exec, row, rows_in, sql};
use crate::model::{Evidence, EvidenceKind};

#[derive(FromRow)]
struct Row {
    number: i64,
    kind: String,
    source: String,
    service: String,
    summary: String,
    said: Option<String>,
    data: String,
    observed_at: i64,
}

impl Row {
    fn model(self) -> Result<Evidence> {
        Ok(Evidence {
            id: format!("E{}", self.number),
            kind: row::word(&self.kind)?,
            data: row::from_json(&self.data)?,
            observed_at: row::time(self.observed_at),
            source: self.source,
            service: self.service,
            summary: row::said(self.summary, self.said.as_deref()),
        })
    }
}

/// Stores one under its id (`E` and a number); the same id again replaces it.
pub async fn save(tx: &mut Tx, incident_id: &str, e: &Evidence) -> Result<()> {
    let number: i64 =
        e.id.strip_prefix('E')
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| Error::Damaged(format!("evidence id {:?} is not E and a number", e.id)))?;
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO evidence (incident_id, number, kind, source, service, summary, data, observed_at, said) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (incident_id, number) DO UPDATE SET kind = excluded.kind, \
         source = excluded.source, service = excluded.service, summary = excluded.summary, data = excluded.data, \
         observed_at = excluded.observed_at, said = excluded.said"
    )
    .bind(incident_id)
    .bind(number)
    .bind(e.kind.as_str())
    .bind(&e.source)
    .bind(&e.service)
    .bind(e.summary.as_str())
    .bind(row::to_json(&e.data))
    .bind(row::micros(e.observed_at))
    .bind(row::phrase(&e.summary))
    })?;
    Ok(())
}

/// What the evidence of this kind holds of these incidents, with the incident's id, in no order.
pub async fn data_of(
    tx: &mut Tx,
    incident_ids: &[&str],
    kind: EvidenceKind,
) -> Result<Vec<(String, serde_json::Value)>> {
    let head = "SELECT incident_id, kind, data FROM evidence WHERE incident_id";
    let rows: Vec<(String, String, String)> = rows_in!(tx, (String, String, String), head, incident_ids, "");
    let ours = rows.into_iter().filter(|(_, of, _)| of == kind.as_str());
    ours.map(|(id, _, data)| Ok((id, row::from_json(&data)?))).collect()
}

/// In the order of the numbers.
pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Evidence>> {
    let rows: Vec<Row> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT number, kind, source, service, summary, data, observed_at, said FROM evidence WHERE incident_id = $1 \
         ORDER BY number LIMIT 1000"
    )
    .bind(incident_id)
    .fetch_all(c)
    })?;
    rows.into_iter().map(Row::model).collect()
}
