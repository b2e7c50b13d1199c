//! The call graph that spans teach: how many calls each day, added up over all replicas.

use jiff::Timestamp;

use super::{Result, Tx, exec, insert_all, sql};
use crate::model::Called;

/// Days after which calls are forgotten. They count half as much every day: of ten thousand, ten are left by then.
const DAYS: i64 = 10;
/// Rows that are read: the latest, and of one day the most frequent.
const MOST: i64 = 50_000;
const SECONDS: i64 = 86_400;

fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(SECONDS)
}

/// Adds calls to those of a day, and forgets what is old.
pub async fn add(tx: &mut Tx, calls: &[Called], at: Timestamp) -> Result<()> {
    let today = day(at);
    insert_all!(
        tx,
        "INSERT INTO calls (caller, callee, day, count)",
        calls,
        |row, call| row
            .push_bind(&call.caller)
            .push_bind(&call.callee)
            .push_bind(today)
            .push_bind(call.count),
        "ON CONFLICT (day, caller, callee) DO UPDATE SET count = calls.count + excluded.count"
    );
    exec!(tx, |c| sqlx::query("DELETE FROM calls WHERE day <= $1").bind(today - DAYS))?;
    Ok(())
}

/// All that is not forgotten, each with the middle of its day; at most so many as fit into memory.
pub async fn all(tx: &mut Tx) -> Result<Vec<(Called, Timestamp)>> {
    let rows: Vec<(String, String, i64, f64)> = sql!(tx, |c| {
        sqlx::query_as(
            "SELECT caller, callee, day, count FROM calls ORDER BY day DESC, count DESC, caller, callee LIMIT $1",
        )
        .bind(MOST)
        .fetch_all(c)
    })?;
    let noon = |day: i64| crate::clock::from_micros((day * SECONDS + SECONDS / 2) * 1_000_000);
    Ok(rows
        .into_iter()
        .map(|(caller, callee, day, count)| (Called { caller, callee, count }, noon(day)))
        .collect())
}
