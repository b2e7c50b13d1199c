//! Changes: deploys and configuration.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Result, Tx, exec, row, sql};
use crate::model::Change;

#[derive(FromRow)]
struct Row {
    id: String,
    kind: String,
    service: String,
    summary: String,
    author: Option<String>,
    url: Option<String>,
    at: i64,
}

impl Row {
    fn model(self) -> Change {
        Change {
            at: row::time(self.at),
            id: self.id,
            kind: self.kind,
            service: self.service,
            summary: self.summary,
            author: self.author,
            url: self.url,
        }
    }
}

/// The same id twice is the same change.
pub async fn save(tx: &mut Tx, ch: &Change) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO changes (id, kind, service, summary, author, url, at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, service = excluded.service, summary = excluded.summary, \
         author = excluded.author, url = excluded.url, at = excluded.at"
    )
    .bind(&ch.id)
    .bind(&ch.kind)
    .bind(&ch.service)
    .bind(&ch.summary)
    .bind(ch.author.as_deref())
    .bind(ch.url.as_deref())
    .bind(row::micros(ch.at))
    })?;
    Ok(())
}

/// Those of any service between two times, newest first.
pub async fn between(tx: &mut Tx, from: Timestamp, to: Timestamp) -> Result<Vec<Change>> {
    let rows: Vec<Row> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT id, kind, service, summary, author, url, at FROM changes WHERE at >= $1 AND at <= $2 ORDER BY at DESC LIMIT 1000"
    )
    .bind(row::micros(from))
    .bind(row::micros(to))
    .fetch_all(c)
    })?;
    Ok(rows.into_iter().map(Row::model).collect())
}
