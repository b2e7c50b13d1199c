//! What the detectors know of each partition of the telemetry bus, with the place in it up to which they know it.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{
    Result, Store, Tx, exec, inbox,
    leases::{self, Lease},
    row, sql,
};
use crate::ids;

/// What was saved of a partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// Names this database to Redis.
    pub era: String,
    pub mark: Option<String>,
    pub state: Option<Vec<u8>>,
    /// When.
    pub at: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    era: String,
    mark: Option<String>,
    state: Option<Vec<u8>>,
    saved_at: Option<i64>,
}

impl From<Row> for Saved {
    fn from(row: Row) -> Self {
        Self { era: row.era, mark: row.mark, state: row.state, at: row.saved_at.map(row::time) }
    }
}

/// What the last owner saved, for the owner of the lease.
pub async fn take(tx: &mut Tx, lease: &Lease, id: usize) -> Result<Saved> {
    leases::hold(tx, lease).await?;
    let row: Row = sql!(tx, |c| {
        sqlx::query_as(
            "INSERT INTO partitions (id, era) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET era = partitions.era \
             RETURNING era, mark, state, saved_at",
        )
        .bind(id as i64)
        .bind(ids::opaque())
        .fetch_one(c)
    })?;
    Ok(row.into())
}

/// What was saved, where nobody else has the store.
pub async fn saved(tx: &mut Tx, id: usize) -> Result<Saved> {
    let query = "SELECT era, mark, state, saved_at FROM partitions WHERE id = $1";
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(query).bind(id as i64).fetch_optional(c))?;
    Ok(row.map(Saved::from).unwrap_or_default())
}

/// Writes what is known where nobody else has the store, and telemetry has no place to go back to.
pub async fn save_alone(tx: &mut Tx, id: usize, state: &[u8]) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
            "INSERT INTO partitions (id, era, state, saved_at) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET \
             mark = NULL, state = excluded.state, saved_at = excluded.saved_at",
        )
        .bind(id as i64)
        .bind(ids::opaque())
        .bind(state)
        .bind(row::micros(crate::clock::now()))
    })?;
    Ok(())
}

/// Makes the leases of this database count anew for Redis, for the owner of the lease: a database that was restored from a
/// backup numbers them from where it was.
pub async fn renew_era(tx: &mut Tx, lease: &Lease, id: usize) -> Result<()> {
    leases::hold(tx, lease).await?;
    exec!(tx, |c| sqlx::query("UPDATE partitions SET era = $2 WHERE id = $1")
        .bind(id as i64)
        .bind(ids::opaque()))?;
    Ok(())
}

/// Writes what is known up to `mark`; fails if somebody else owns the partition by now.
pub async fn save(tx: &mut Tx, lease: &Lease, id: usize, mark: &str, state: &[u8]) -> Result<()> {
    leases::hold(tx, lease).await?;
    exec!(tx, |c| {
        sqlx::query("UPDATE partitions SET mark = $2, state = $3, saved_at = $4 WHERE id = $1")
            .bind(id as i64)
            .bind(mark)
            .bind(state)
            .bind(row::micros(crate::clock::now()))
    })?;
    Ok(())
}

/// Makes what was found in a partition durable, unless somebody else owns it by now.
///
/// Where the inbox is a file of its own (SQLite) the look at the lease and the writing are two transactions; there is one
/// process then, and nobody to take over in between.
pub async fn found(store: &Store, lease: &Lease, deliveries: &[inbox::Prepared]) -> Result<()> {
    let mut tx = store.write().await?;
    leases::hold(&mut tx, lease).await?;
    let within = inbox::append_within(&mut tx, deliveries).await?;
    tx.commit().await?;
    if within { Ok(()) } else { inbox::append(store, deliveries).await }
}
