//! Named leases: one owner at a time for what must have one (polling, schedules, reconcilers, partitions), and who is alive.
//!
//! On PostgreSQL every time is the database's, so that a replica whose clock is wrong, or jumps, neither steals a lease nor
//! keeps one.

use std::time::Duration;

use super::{Error, Result, Tx, exec, row, sql};

/// Names of living replicas begin with it.
const MEMBER: &str = "member.";
/// A member is asked for a sign of life much more often; what claims to live longer was written by a clock that jumped.
const MEMBER_AT_MOST: i64 = 120_000_000;
/// Those who ended so long ago are forgotten.
const FORGOTTEN_AFTER: i64 = 3_600_000_000;

/// A name that is ours until somebody else takes it over after its time. The fence grows with each owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub owner: String,
    pub fence: i64,
}

/// Takes or renews the lease on a name for so long from now; `None` if it is another owner's. A renewal keeps its fence.
pub async fn acquire(tx: &mut Tx, name: &str, owner: &str, duration: Duration) -> Result<Option<Lease>> {
    let now = tx.now();
    // What ends later than a lease that begins now was written before the clock jumped back: waiting for it could take days.
    let statement = format!(
        "INSERT INTO leases (name, owner, until, fence) VALUES ($1, $2, {now} + $3, 1) ON CONFLICT (name) DO UPDATE SET \
         fence = CASE WHEN leases.owner = excluded.owner THEN leases.fence ELSE leases.fence + 1 END, \
         owner = excluded.owner, until = excluded.until WHERE leases.owner = excluded.owner OR leases.until <= {now} \
         OR leases.until > {now} + $3 RETURNING fence"
    );
    let fence: Option<i64> = sql!(tx, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
        .bind(name)
        .bind(owner)
        .bind(row::length(duration))
        .fetch_optional(c))?;
    Ok(fence.map(|fence| Lease { name: name.to_owned(), owner: owner.to_owned(), fence }))
}

/// Keeps the lease ours until this transaction ends. Fails if it is not any more: then nothing of the transaction may be
/// committed. A paused owner that wakes up cannot write past it.
pub async fn hold(tx: &mut Tx, lease: &Lease) -> Result<()> {
    let query =
        format!("SELECT fence FROM leases WHERE name = $1 AND owner = $2 AND fence = $3{}", tx.for_share());
    let found: Option<i64> = sql!(tx, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .bind(&lease.name)
        .bind(&lease.owner)
        .bind(lease.fence)
        .fetch_optional(c))?;
    found.map(|_| ()).ok_or(Error::LeaseLost)
}

/// Gives it back early, so that the next owner need not wait. Nothing can be written by it afterwards.
pub async fn release(tx: &mut Tx, lease: &Lease) -> Result<()> {
    exec!(tx, |c| sqlx::query(
        "UPDATE leases SET until = 0, fence = fence + 1 WHERE name = $1 AND owner = $2 AND fence = $3"
    )
    .bind(&lease.name)
    .bind(&lease.owner)
    .bind(lease.fence))?;
    Ok(())
}

/// How long `owner` has to wait for a name at least: nothing if it is free, or its own.
pub async fn busy_for(tx: &mut Tx, name: &str, owner: &str, duration: Duration) -> Result<Duration> {
    let now = tx.now();
    let query = format!("SELECT until - {now} FROM leases WHERE name = $1 AND owner <> $2");
    let left: Option<i64> = sql!(tx, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .bind(name)
        .bind(owner)
        .fetch_optional(c))?;
    let left = left.filter(|left| *left <= row::length(duration)).unwrap_or(0);
    Ok(Duration::from_micros(u64::try_from(left).unwrap_or(0)))
}

/// Says that this replica is alive, for so long from now.
pub async fn attend(tx: &mut Tx, owner: &str, duration: Duration) -> Result<()> {
    acquire(tx, &format!("{MEMBER}{owner}"), owner, duration).await?;
    Ok(())
}

/// This replica ends; those that ended long ago are forgotten with it.
pub async fn leave(tx: &mut Tx, owner: &str) -> Result<()> {
    let now = tx.now();
    exec!(tx, |c| sqlx::query("UPDATE leases SET until = 0 WHERE name = $1")
        .bind(format!("{MEMBER}{owner}")))?;
    let old = format!("DELETE FROM leases WHERE name LIKE 'member.%' AND until < {now} - $1");
    exec!(tx, |c| sqlx::query(sqlx::AssertSqlSafe(old)).bind(FORGOTTEN_AFTER))?;
    Ok(())
}

/// The living replicas' names, in their order.
pub async fn members(tx: &mut Tx) -> Result<Vec<String>> {
    let now = tx.now();
    let query = format!(
        "SELECT owner FROM leases WHERE name LIKE 'member.%' AND until > {now} AND until <= {now} + $1 ORDER BY owner"
    );
    Ok(sql!(tx, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(MEMBER_AT_MOST).fetch_all(c))?)
}

/// Ends every lease of jobs, messages and names: for the start of the only process that can have held any.
pub async fn end_all(tx: &mut Tx) -> Result<()> {
    exec!(tx, |c| sqlx::query("UPDATE jobs SET lease_until = 0, fence = fence + 1"))?;
    exec!(tx, |c| sqlx::query("UPDATE messages SET lease_until = 0, fence = fence + 1"))?;
    exec!(tx, |c| sqlx::query("UPDATE leases SET until = 0, fence = fence + 1"))?;
    Ok(())
}
