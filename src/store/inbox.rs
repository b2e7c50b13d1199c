//! The inbox: what intake has acknowledged and correlation has not taken yet.
//!
//! In PostgreSQL it is a table beside the others. In the embedded profile it is a database file of its own (`inbox.db`), so that
//! senders do not wait for the state's one writer; the state remembers the last row that it holds the effects of, in the
//! transaction that writes them, and applied rows are deleted later: each row takes effect once, wherever a kill falls.

use std::sync::atomic::Ordering;

use sqlx::{AssertSqlSafe, FromRow};

use super::{
    Result, Store, Tx,
    db::{Engine, LiteInbox, Pools},
    exec,
    leases::{self, Lease},
    row, sql,
};
use crate::model::{AlertEvent, AnomalyEvent};

/// Rows that one batch takes at most, however few alerts each of them brought.
const MOST_ROWS: i64 = 4096;
/// Applied rows that are kept before they are deleted together; each may be as large as [`ROW_BYTES`].
const TRIM: i64 = 256;
/// Rows in one statement, which is a transaction by itself: four parameters each, at most 32,766 in all.
const GROUP: usize = 8000;
/// Deliveries share a row up to so many bytes and alerts, so that a batch of correlation is not much larger than it wants to be.
const ROW_BYTES: usize = 1 << 20;
const ROW_ITEMS: i64 = 1000;
/// What such rows name as their kind. Rows from before deliveries shared them have other kinds, and one line.
const LINES: &str = "lines";

/// What one delivery brought.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    Alerts(Vec<AlertEvent>),
    Anomaly(Box<AnomalyEvent>),
}

impl Delivery {
    /// How much work it is, in alerts.
    fn items(&self) -> usize {
        match self {
            Self::Alerts(events) => events.len(),
            Self::Anomaly(_) => 1,
        }
    }
}

/// A delivery made ready for the database, so that the writer only copies it.
#[derive(Clone, Debug)]
pub struct Prepared {
    received_at: i64,
    items: i64,
    /// JSON without line breaks.
    line: String,
}

impl Prepared {
    pub fn new(delivery: &Delivery) -> Self {
        Self {
            received_at: row::micros(crate::clock::now()),
            items: delivery.items().max(1) as i64,
            line: row::to_json(delivery),
        }
    }
    /// What it holds in memory until it is written.
    pub fn bytes(&self) -> usize {
        self.line.len()
    }
    /// For tests.
    pub(super) fn unreadable() -> Self {
        Self { received_at: row::micros(crate::clock::now()), items: 1, line: "{}".into() }
    }
}

/// A row to be written.
struct Packed {
    received_at: i64,
    items: i64,
    body: String,
}

/// Puts deliveries into rows, in their order.
fn pack(deliveries: &[Prepared]) -> Vec<Packed> {
    let mut rows: Vec<Packed> = Vec::new();
    let mut left: usize = deliveries.iter().map(|d| d.line.len() + 1).sum();
    for d in deliveries {
        match rows.last_mut() {
            Some(row) if row.body.len() + d.line.len() < ROW_BYTES && row.items + d.items <= ROW_ITEMS => {
                row.body.push('\n');
                row.body.push_str(&d.line);
                row.items += d.items;
                row.received_at = row.received_at.min(d.received_at);
            }
            _ => {
                let mut body = String::with_capacity(left.min(ROW_BYTES.max(d.line.len())));
                body.push_str(&d.line);
                rows.push(Packed { received_at: d.received_at, items: d.items, body });
            }
        }
        left -= d.line.len() + 1;
    }
    rows
}

/// Appends deliveries; they are durable when this returns.
pub async fn append(store: &Store, deliveries: &[Prepared]) -> Result<()> {
    for group in pack(deliveries).chunks(GROUP) {
        let is_usual = group.len() == 1;
        match &store.pools {
            Pools::Lite { inbox, .. } => {
                let mut turn = inbox.write.begin(false).await?;
                insert(group).build().persistent(is_usual).execute(&mut *turn).await?;
                turn.commit().await?;
            }
            Pools::Postgres(pool) => {
                insert(group).build().persistent(is_usual).execute(pool).await?;
            }
        }
    }
    store.bells.inbox.notify_one();
    Ok(())
}

/// Appends what only the owner of the lease may append. The embedded profile has one process, and the inbox in another file.
pub async fn append_held(store: &Store, lease: &Lease, deliveries: &[Prepared]) -> Result<()> {
    let mut tx = store.write().await?;
    leases::hold(&mut tx, lease).await?;
    if append_within(&mut tx, deliveries).await? {
        return tx.commit().await;
    }
    drop(tx);
    append(store, deliveries).await
}

/// Appends deliveries within a transaction, where the inbox is part of the state; false where it is a file of its own.
pub(super) async fn append_within(tx: &mut Tx, deliveries: &[Prepared]) -> Result<bool> {
    let Engine::Postgres(t) = &mut tx.engine else { return Ok(false) };
    for group in pack(deliveries).chunks(GROUP) {
        insert(group).build().persistent(group.len() == 1).execute(&mut **t).await?;
    }
    tx.wake.inbox = true;
    Ok(true)
}

fn insert<DB>(rows: &[Packed]) -> sqlx::QueryBuilder<DB>
where
    DB: sqlx::Database,
    for<'q> &'q str: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
{
    let mut q = sqlx::QueryBuilder::new("INSERT INTO inbox (kind, received_at, items, body) ");
    q.push_values(rows, |mut row, r| {
        row.push_bind(LINES).push_bind(r.received_at).push_bind(r.items).push_bind(r.body.as_str());
    });
    q
}

/// Deletes applied rows, if it is worth a transaction.
async fn trim(inbox: &LiteInbox) -> Result<()> {
    let applied = inbox.applied.load(Ordering::Acquire);
    if applied - inbox.trimmed.load(Ordering::Relaxed) >= TRIM {
        let mut turn = inbox.write.begin(false).await?;
        sqlx::query("DELETE FROM inbox WHERE id <= $1").bind(applied).execute(&mut *turn).await?;
        turn.commit().await?;
        inbox.trimmed.fetch_max(applied, Ordering::Relaxed);
    }
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: i64,
    kind: String,
    received_at: i64,
    items: i64,
    body: String,
}

/// The oldest rows after `$1`: at most `$2` of them, and no more once they bring `$3` alerts.
const OLDEST: &str = "SELECT id FROM (SELECT id, SUM(items) OVER (ORDER BY id) - items AS before FROM \
     (SELECT id, items FROM inbox WHERE id > $1 ORDER BY id LIMIT $2) AS oldest) AS counted WHERE before < $3";

/// Takes the oldest deliveries off the inbox, until they bring `most` alerts. They are gone when the transaction commits; one
/// owner at a time. Unreadable ones are set aside in `inbox_dead` and counted. `None` if nothing waits.
pub async fn take(store: &Store, most: usize) -> Result<Option<(Tx, Vec<Delivery>)>> {
    let most = most as i64;
    let (mut tx, read) = match &store.pools {
        Pools::Lite { inbox, .. } => {
            trim(inbox).await?;
            let query = format!(
                "SELECT id, kind, received_at, items, body FROM inbox WHERE id IN ({OLDEST}) ORDER BY id"
            );
            let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(query))
                .bind(inbox.applied.load(Ordering::Acquire))
                .bind(MOST_ROWS)
                .bind(most)
                .fetch_all(&mut *inbox.read_few.begin().await?)
                .await?;
            let Some(last) = rows.last().map(|r| r.id) else { return Ok(None) };
            // Read before the state's one writer is held.
            let read = read(rows);
            let mut tx = store.write_much().await?;
            let applied: i64 = sql!(tx, |c| sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(c))?;
            if applied >= last {
                // A commit that failed to say so: what was remembered of it is behind the truth, and would be for ever.
                inbox.applied.fetch_max(applied, Ordering::Release);
                return Ok(None);
            }
            let read: Vec<Read> = read.into_iter().filter(|r| r.row.id > applied).collect();
            let items: i64 = read.iter().map(|r| r.row.items).sum();
            exec!(tx, |c| {
                sqlx::query("UPDATE inbox_applied SET id = $1, items = items + $2").bind(last).bind(items)
            })?;
            tx.applies = Some((inbox.applied.clone(), last));
            (tx, read)
        }
        Pools::Postgres(_) => {
            let mut tx = store.write_much().await?;
            tx.lock("correlate").await?;
            // In one statement: a row that commits beside it with a smaller number is neither taken nor deleted.
            let query = format!(
                "DELETE FROM inbox WHERE id IN ({OLDEST}) RETURNING id, kind, received_at, items, body"
            );
            let mut rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
                .bind(0_i64)
                .bind(MOST_ROWS)
                .bind(most)
                .fetch_all(c))?;
            if rows.is_empty() {
                return Ok(None);
            }
            let items: i64 = rows.iter().map(|r| r.items).sum();
            exec!(tx, |c| sqlx::query("UPDATE inbox_applied SET items = items + $1").bind(items))?;
            rows.sort_by_key(|r| r.id);
            (tx, read(rows))
        }
    };
    let mut taken = Vec::with_capacity(read.len());
    for Read { row, deliveries, unreadable } in read {
        taken.extend(deliveries);
        if let Some(error) = unreadable {
            set_aside(&mut tx, &row, &error).await?;
        }
    }
    Ok(Some((tx, taken)))
}

/// A row and what was in it.
struct Read {
    /// Its body holds what is unreadable of it.
    row: Row,
    deliveries: Vec<Delivery>,
    /// Why the first unreadable line is.
    unreadable: Option<String>,
}

fn read(rows: Vec<Row>) -> Vec<Read> {
    rows.into_iter().map(read_row).collect()
}

fn read_row(mut row: Row) -> Read {
    let body = std::mem::take(&mut row.body);
    let (mut deliveries, mut unreadable) = (Vec::new(), None);
    for line in body.lines() {
        match row::from_json(line) {
            Ok(delivery) => deliveries.push(delivery),
            Err(e) => {
                unreadable.get_or_insert_with(|| e.to_string());
                if !row.body.is_empty() {
                    row.body.push('\n');
                }
                row.body.push_str(line);
            }
        }
    }
    Read { row, deliveries, unreadable }
}

async fn set_aside(tx: &mut Tx, r: &Row, error: &str) -> Result<()> {
    tracing::error!(
        inbox.id = r.id,
        lines = r.body.lines().count(),
        error,
        "deliveries in the inbox are unreadable; they are kept in inbox_dead"
    );
    crate::metrics::INBOX_DEAD.inc_by(r.body.lines().count() as u64);
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO inbox_dead (id, kind, received_at, body, error) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING"
    )
    .bind(r.id)
    .bind(&r.kind)
    .bind(r.received_at)
    .bind(&r.body)
    .bind(error)
    })?;
    Ok(())
}

/// How many alerts and anomalies were ever taken off the inbox.
pub async fn taken(store: &Store) -> Result<i64> {
    let mut tx = store.read().await?;
    Ok(sql!(tx, |c| sqlx::query_scalar("SELECT items FROM inbox_applied").fetch_one(c))?)
}

/// How many alerts and anomalies wait, and since when the oldest does.
pub async fn backlog(store: &Store) -> Result<(i64, Option<jiff::Timestamp>)> {
    let (count, oldest): (i64, Option<i64>) = match &store.pools {
        Pools::Lite { inbox, .. } => {
            let applied = inbox.applied.load(Ordering::Acquire);
            sqlx::query_as("SELECT COALESCE(SUM(items), 0), MIN(received_at) FROM inbox WHERE id > $1")
                .bind(applied)
                .fetch_one(&inbox.read)
                .await?
        }
        Pools::Postgres(pool) => {
            sqlx::query_as("SELECT COALESCE(SUM(items), 0)::BIGINT, MIN(received_at) FROM inbox")
                .fetch_one(pool)
                .await?
        }
    };
    Ok((count.max(0), oldest.map(row::time)))
}
