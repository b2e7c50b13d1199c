//! Forgets what is older than the settings say.

use jiff::Timestamp;

use super::{Result, Tx, exec, row};
use crate::config::Retention;

/// Tables whose rows belong to an incident and go with it.
const PARTS: [&str; 8] =
    ["timeline", "evidence", "diagnoses", "approvals", "messages", "buttons", "anomalies", "decisions"];

/// Deletes a bounded number of old rows; the number deleted. Call again while it is not 0.
pub async fn sweep(tx: &mut Tx, ages: &Retention, now: Timestamp) -> Result<u64> {
    let incidents = row::micros(crate::clock::before(now, ages.incidents));
    let signals = row::micros(crate::clock::before(now, ages.signals));
    let audit = row::micros(crate::clock::before(now, ages.audit));
    const OLD: &str =
        "SELECT id FROM incidents WHERE state = 'resolved' AND resolved_at < $1 ORDER BY id LIMIT 500";
    let mut deleted = 0;
    for table in PARTS {
        deleted += delete(tx, format!("DELETE FROM {table} WHERE incident_id IN ({OLD})"), incidents).await?;
    }
    let steps =
        format!("DELETE FROM run_steps WHERE run_id IN (SELECT id FROM runs WHERE incident_id IN ({OLD}))");
    deleted += delete(tx, steps, incidents).await?;
    deleted += delete(tx, format!("DELETE FROM runs WHERE incident_id IN ({OLD})"), incidents).await?;
    deleted += delete(tx, format!("DELETE FROM incidents WHERE id IN ({OLD})"), incidents).await?;
    for (query, age) in [
        ("DELETE FROM alerts WHERE state = 'resolved' AND last_seen_at < $1", incidents),
        ("DELETE FROM silences WHERE ends_at < $1", incidents),
        ("DELETE FROM anomalies WHERE incident_id IS NULL AND started_at < $1", signals),
        ("DELETE FROM decisions WHERE incident_id IS NULL AND at < $1", signals),
        ("DELETE FROM changes WHERE at < $1", signals),
        ("DELETE FROM chat_events WHERE handled_at < $1", signals),
        ("DELETE FROM audit WHERE at < $1", audit),
    ] {
        deleted += delete(tx, query.into(), age).await?;
    }
    crate::metrics::RETENTION_DELETED.inc_by(deleted);
    Ok(deleted)
}

async fn delete(tx: &mut Tx, query: String, before: i64) -> Result<u64> {
    Ok(exec!(tx, |c| sqlx::query(sqlx::AssertSqlSafe(query)).bind(before))?)
}
