//! Diagnoses of an incident, oldest first.

use super::{Result, Tx, exec, row, sql};
use crate::model::Diagnosis;

/// Replaces an earlier one with the same id.
pub async fn save(tx: &mut Tx, d: &Diagnosis) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO diagnoses (id, incident_id, tier, body, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO UPDATE SET tier = excluded.tier, body = excluded.body, created_at = excluded.created_at"
    )
    .bind(&d.id)
    .bind(&d.incident_id)
    .bind(d.tier.as_str())
    .bind(row::to_json(d))
    .bind(row::micros(d.created_at))
    })?;
    Ok(())
}

pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Diagnosis>> {
    let rows: Vec<String> = sql!(tx, |c| sqlx::query_scalar(
        "SELECT body FROM diagnoses WHERE incident_id = $1 ORDER BY created_at, id LIMIT 100"
    )
    .bind(incident_id)
    .fetch_all(c))?;
    rows.iter().map(|text| row::from_json(text)).collect()
}

/// What people see: the newest one.
pub async fn latest(tx: &mut Tx, incident_id: &str) -> Result<Option<Diagnosis>> {
    let text: Option<String> = sql!(tx, |c| sqlx::query_scalar(
        "SELECT body FROM diagnoses WHERE incident_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    .bind(incident_id)
    .fetch_optional(c))?;
    row::from_json_opt(text.as_deref())
}
