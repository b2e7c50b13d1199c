//! The inbox: what intake has acknowledged and correlation has not taken yet.
//!
//! In PostgreSQL it is a table beside the others. In the embedded profile it is a database file of its own (`inbox.db`), so that
//! senders do not wait for the state's one writer; the state remembers the last row that it holds the effects of, in the
//! transaction that writes them, and applied rows are deleted later: each row takes effect once, wherever a kill falls.

use std::sync::atomic::Ordering;

use sqlx::{AssertSqlSafe, FromRow, SqlitePool};

use super::{
    Result, Store, Tx,
    db::{LiteInbox, Pools},
    exec, row, sql,
};
use crate::model::{AlertEvent, AnomalyEvent};

/// Rows that one batch takes at most, however few alerts each of them brought.
const MOST_ROWS: i64 = 4096;
/// Applied rows that are kept before they are deleted together.
const TRIM: i64 = 4096;
/// Rows in one statement, which is a transaction by itself: four parameters each, at most 32,766 in all.
const GROUP: usize = 8000;

/// What one delivery brought.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    Alerts(Vec<AlertEvent>),
    Anomaly(Box<AnomalyEvent>),
}

impl Delivery {
    fn kind(&self) -> &'static str {
        match self {
            Self::Alerts(_) => "alerts",
            Self::Anomaly(_) => "anomaly",
        }
    }
    /// How much work it is, in alerts.
    fn items(&self) -> usize {
        match self {
            Self::Alerts(events) => events.len(),
            Self::Anomaly(_) => 1,
        }
    }
}

/// A delivery made ready for the database, so that the writer only binds it.
#[derive(Clone, Debug)]
pub struct Prepared {
    kind: &'static str,
    received_at: i64,
    items: i64,
    body: String,
}

impl Prepared {
    pub fn new(delivery: &Delivery) -> Self {
        Self {
            kind: delivery.kind(),
            received_at: row::micros(crate::clock::now()),
            items: delivery.items() as i64,
            body: row::to_json(delivery),
        }
    }
    /// For tests.
    pub(super) fn unreadable() -> Self {
        Self { kind: "alerts", received_at: row::micros(crate::clock::now()), items: 1, body: "{}".into() }
    }
}

/// Makes the file ready: its table, and row numbers that go on where the state stands, also if the file is new and the state is not.
pub(super) async fn prepare_file(file: &SqlitePool, applied: i64) -> sqlx::Result<()> {
    let mut tx = file.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS inbox (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \
         received_at BIGINT NOT NULL, items BIGINT NOT NULL, body TEXT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM inbox WHERE id <= $1").bind(applied).execute(&mut *tx).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'")
        .fetch_optional(&mut *tx)
        .await?;
    let statement = match last {
        None => "INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', $1)",
        Some(_) => "UPDATE sqlite_sequence SET seq = MAX(seq, $1) WHERE name = 'inbox'",
    };
    sqlx::query(statement).bind(applied).execute(&mut *tx).await?;
    tx.commit().await
}

/// Appends deliveries; they are durable when this returns.
pub async fn append(store: &Store, deliveries: &[Prepared]) -> Result<()> {
    for group in deliveries.chunks(GROUP) {
        let is_usual = group.len() == 1;
        match &store.pools {
            Pools::Lite { inbox, .. } => {
                insert(group).build().persistent(is_usual).execute(&inbox.write).await?;
            }
            Pools::Postgres(pool) => {
                insert(group).build().persistent(is_usual).execute(pool).await?;
            }
        }
    }
    store.bells.inbox.notify_one();
    Ok(())
}

fn insert<DB>(deliveries: &[Prepared]) -> sqlx::QueryBuilder<DB>
where
    DB: sqlx::Database,
    for<'q> &'q str: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
    for<'q> i64: sqlx::Encode<'q, DB> + sqlx::Type<DB>,
{
    let mut q = sqlx::QueryBuilder::new("INSERT INTO inbox (kind, received_at, items, body) ");
    q.push_values(deliveries, |mut row, d| {
        row.push_bind(d.kind).push_bind(d.received_at).push_bind(d.items).push_bind(d.body.as_str());
    });
    q
}

/// Deletes applied rows, if it is worth a transaction.
async fn trim(inbox: &LiteInbox) -> Result<()> {
    let applied = inbox.applied.load(Ordering::Acquire);
    if applied - inbox.trimmed.load(Ordering::Relaxed) >= TRIM {
        sqlx::query("DELETE FROM inbox WHERE id <= $1").bind(applied).execute(&inbox.write).await?;
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
                .fetch_all(&inbox.read)
                .await?;
            let Some(last) = rows.last().map(|r| r.id) else { return Ok(None) };
            // Read before the state's one writer is held.
            let read = read(rows);
            let mut tx = store.write().await?;
            let applied: i64 = sql!(tx, |c| sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(c))?;
            if applied >= last {
                // A commit that failed to say so: what was remembered of it is behind the truth, and would be for ever.
                inbox.applied.fetch_max(applied, Ordering::Release);
                return Ok(None);
            }
            exec!(tx, |c| sqlx::query("UPDATE inbox_applied SET id = $1").bind(last))?;
            tx.applies = Some((inbox.applied.clone(), last));
            (tx, read.into_iter().filter(|(r, _)| r.id > applied).collect::<Vec<_>>())
        }
        Pools::Postgres(_) => {
            let mut tx = store.write().await?;
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
            rows.sort_by_key(|r| r.id);
            (tx, read(rows))
        }
    };
    let mut taken = Vec::with_capacity(read.len());
    for (row, delivery) in read {
        match delivery {
            Ok(delivery) => taken.push(delivery),
            Err(e) => set_aside(&mut tx, &row, &e.to_string()).await?,
        }
    }
    Ok(Some((tx, taken)))
}

fn read(rows: Vec<Row>) -> Vec<(Row, Result<Delivery>)> {
    let read = rows.into_iter().map(|r| {
        let delivery = row::from_json(&r.body);
        (r, delivery)
    });
    read.collect()
}

async fn set_aside(tx: &mut Tx, r: &Row, error: &str) -> Result<()> {
    tracing::error!(
        inbox.id = r.id,
        items = r.items,
        error,
        "an inbox row is unreadable; it is kept in inbox_dead"
    );
    crate::metrics::INBOX_DEAD.inc();
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

/// How many deliveries wait, and since when the oldest does.
pub async fn backlog(store: &Store) -> Result<(i64, Option<jiff::Timestamp>)> {
    let (count, oldest): (i64, Option<i64>) = match &store.pools {
        Pools::Lite { inbox, .. } => {
            let applied = inbox.applied.load(Ordering::Acquire);
            // Rows are numbered without gaps but for failed commits: a count that costs nothing however many wait.
            sqlx::query_as(
                "SELECT COALESCE((SELECT MAX(id) FROM inbox), $1) - $1, \
                 (SELECT received_at FROM inbox WHERE id > $1 ORDER BY id LIMIT 1)",
            )
            .bind(applied)
            .fetch_one(&inbox.read)
            .await?
        }
        Pools::Postgres(pool) => {
            sqlx::query_as("SELECT COUNT(*), MIN(received_at) FROM inbox").fetch_one(pool).await?
        }
    };
    Ok((count.max(0), oldest.map(row::time)))
}
