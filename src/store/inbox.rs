//! The inbox: what intake has acknowledged and correlation has not taken yet.

use sqlx::FromRow;

use super::{Result, Tx, exec, row, sql};
use crate::model::{AlertEvent, AnomalyEvent};

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
}

/// A delivery that waits, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub id: i64,
    pub received_at: jiff::Timestamp,
    pub delivery: Delivery,
}

/// A delivery made ready for the database, so that the writer only binds it.
#[derive(Clone, Debug)]
pub struct Prepared {
    kind: &'static str,
    received_at: i64,
    body: String,
}

impl Prepared {
    pub fn new(delivery: &Delivery) -> Self {
        Self {
            kind: delivery.kind(),
            received_at: row::micros(crate::clock::now()),
            body: row::to_json(delivery),
        }
    }
}

/// Appends deliveries, many rows to a statement.
pub async fn append(tx: &mut Tx, deliveries: &[Prepared]) -> Result<()> {
    for chunk in deliveries.chunks(500) {
        sql!(tx, |c| async move {
            let mut q = sqlx::QueryBuilder::new("INSERT INTO inbox (kind, received_at, body) ");
            q.push_values(chunk, |mut row, d| {
                row.push_bind(d.kind).push_bind(d.received_at).push_bind(d.body.as_str());
            });
            q.build().persistent(false).execute(c).await.map(|_| ())
        })?;
    }
    tx.wake.inbox = true;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: i64,
    kind: String,
    received_at: i64,
    body: String,
}

/// Takes up to `limit` deliveries off the inbox, oldest first. They are gone when `tx` commits; unreadable ones are set
/// aside in `inbox_dead` and counted.
pub async fn take(tx: &mut Tx, limit: i64) -> Result<Vec<Waiting>> {
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as("SELECT id, kind, received_at, body FROM inbox ORDER BY id LIMIT $1")
            .bind(limit)
            .fetch_all(c))?;
    let Some(last) = rows.last().map(|r| r.id) else { return Ok(Vec::new()) };
    let mut taken = Vec::with_capacity(rows.len());
    for r in rows {
        match row::from_json(&r.body) {
            Ok(delivery) => {
                taken.push(Waiting { id: r.id, received_at: row::time(r.received_at), delivery });
            }
            Err(e) => set_aside(tx, &r, &e.to_string()).await?,
        }
    }
    exec!(tx, |c| sqlx::query("DELETE FROM inbox WHERE id <= $1").bind(last))?;
    Ok(taken)
}

async fn set_aside(tx: &mut Tx, r: &Row, error: &str) -> Result<()> {
    tracing::error!(inbox.id = r.id, error, "an inbox row is unreadable; it is kept in inbox_dead");
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

/// How many wait, and since when the oldest does.
pub async fn backlog(tx: &mut Tx) -> Result<(i64, Option<jiff::Timestamp>)> {
    let (count, oldest): (i64, Option<i64>) =
        sql!(tx, |c| sqlx::query_as("SELECT COUNT(*), MIN(received_at) FROM inbox").fetch_one(c))?;
    Ok((count, oldest.map(row::time)))
}
