//! Named leases: one owner at a time for what must have one (polling, schedules, reconcilers).

use std::time::Duration;

use super::{Result, Tx, row, sql};

/// Takes or renews a lease. The fencing number if it is ours now, else `None`.
pub async fn acquire(tx: &mut Tx, name: &str, owner: &str, lease: Duration) -> Result<Option<i64>> {
    let now = crate::clock::now();
    let fence: Option<i64> = sql!(tx, |c| {
        sqlx::query_scalar(
        "INSERT INTO leases (name, owner, until, fence) VALUES ($1, $2, $3, 1) ON CONFLICT (name) DO UPDATE SET \
         fence = CASE WHEN leases.owner = excluded.owner THEN leases.fence ELSE leases.fence + 1 END, \
         owner = excluded.owner, until = excluded.until WHERE leases.owner = excluded.owner OR leases.until <= $4 \
         RETURNING fence"
    )
    .bind(name)
    .bind(owner)
    .bind(row::micros(crate::clock::after(now, lease)))
    .bind(row::micros(now))
    .fetch_optional(c)
    })?;
    Ok(fence)
}

/// Gives a lease back early, so that the next owner need not wait.
pub async fn release(tx: &mut Tx, name: &str, owner: &str) -> Result<()> {
    super::exec!(tx, |c| sqlx::query("UPDATE leases SET until = 0 WHERE name = $1 AND owner = $2")
        .bind(name)
        .bind(owner))?;
    Ok(())
}

/// Ends every lease of jobs, messages and names: for the start of the only process that can have held any.
pub async fn end_all(tx: &mut Tx) -> Result<()> {
    super::exec!(tx, |c| sqlx::query("UPDATE jobs SET lease_until = 0, fence = fence + 1"))?;
    super::exec!(tx, |c| sqlx::query("UPDATE messages SET lease_until = 0, fence = fence + 1"))?;
    super::exec!(tx, |c| sqlx::query("UPDATE leases SET until = 0"))?;
    Ok(())
}
