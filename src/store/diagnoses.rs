//! Diagnoses of an incident, oldest first.

use sqlx::FromRow;

use super::{Result, Tx, exec, exports, row, sql};
use crate::model::{Diagnosis, Phrase, Said};

#[derive(FromRow)]
struct Row {
    body: String,
    said: Option<String>,
}

impl Row {
    /// The body keeps the English; the phrases stand beside it, in the order of [`Diagnosis::sentences`].
    fn model(self) -> Result<Diagnosis> {
        let mut diagnosis: Diagnosis = row::from_json(&self.body)?;
        let phrases: Vec<serde_json::Value> = row::from_json_opt(self.said.as_deref())?.unwrap_or_default();
        for (sentence, phrase) in diagnosis.sentences().zip(phrases) {
            *sentence = Said::stored(sentence.to_string(), serde_json::from_value(phrase).ok());
        }
        Ok(diagnosis)
    }
}

fn phrases(d: &Diagnosis) -> String {
    let mut d = d.clone();
    let phrases: Vec<Option<Phrase>> = d.sentences().map(|s| s.phrase().cloned()).collect();
    row::to_json(&phrases)
}

/// Replaces an earlier one with the same id.
pub async fn save(tx: &mut Tx, d: &Diagnosis) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO diagnoses (id, incident_id, tier, body, created_at, said) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET tier = excluded.tier, body = excluded.body, created_at = excluded.created_at, \
         said = excluded.said"
    )
    .bind(&d.id)
    .bind(&d.incident_id)
    .bind(d.tier.as_str())
    .bind(row::to_json(d))
    .bind(row::micros(d.created_at))
    .bind(phrases(d))
    })?;
    exports::note(tx, exports::Kind::Diagnosis, &[&d.id]).await
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Diagnosis>> {
    let row: Option<Row> = sql!(tx, |c| {
        sqlx::query_as("SELECT body, said FROM diagnoses WHERE id = $1").bind(id).fetch_optional(c)
    })?;
    row.map(Row::model).transpose()
}

pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Diagnosis>> {
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(
        "SELECT body, said FROM diagnoses WHERE incident_id = $1 ORDER BY created_at, id LIMIT 100"
    )
    .bind(incident_id)
    .fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// What people see: the newest one.
pub async fn latest(tx: &mut Tx, incident_id: &str) -> Result<Option<Diagnosis>> {
    let row: Option<Row> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT body, said FROM diagnoses WHERE incident_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    .bind(incident_id)
    .fetch_optional(c)
    })?;
    row.map(Row::model).transpose()
}
