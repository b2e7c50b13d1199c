//! Small values that survive a restart: the kill switch, poll offsets, the LLM's budget.

use super::{Result, Tx, exec, row, sql};

/// The key of the global kill switch; its value is an object `{"by": …, "reason": …}` while automation is stopped.
pub const STOPPED: &str = "automation.stopped";

/// The key of the wish to cancel one run; its value is as that of [`STOPPED`]. It goes when the run ends or waits for a human.
pub fn cancelled(run_id: &str) -> String {
    format!("run.cancelled:{run_id}")
}

pub async fn get(tx: &mut Tx, key: &str) -> Result<Option<serde_json::Value>> {
    let text: Option<String> = sql!(tx, |c| sqlx::query_scalar("SELECT value FROM flags WHERE key = $1")
        .bind(key)
        .fetch_optional(c))?;
    row::from_json_opt(text.as_deref())
}

pub async fn set(tx: &mut Tx, key: &str, value: &serde_json::Value) -> Result<()> {
    exec!(tx, |c| sqlx::query(
        "INSERT INTO flags (key, value, updated_at) VALUES ($1, $2, $3) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at"
    )
    .bind(key)
    .bind(row::to_json(value))
    .bind(row::micros(crate::clock::now())))?;
    Ok(())
}

pub async fn clear(tx: &mut Tx, key: &str) -> Result<()> {
    exec!(tx, |c| sqlx::query("DELETE FROM flags WHERE key = $1").bind(key))?;
    Ok(())
}
