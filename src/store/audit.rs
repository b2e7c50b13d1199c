//! The audit trail: who did what. Each row carries the hash of the one before, so that an edited or missing row shows.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Error, Page, Result, Tx, exports, page, row, sql};
use crate::model::{Actor, sha256_hex};

/// One act of a person, or of the program in its own name.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Entry {
    pub seq: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub actor: Actor,
    /// `approve`, `reject`, `ack`, `resolve`, `run`, `token.create` …
    pub action: String,
    /// What it was done to: `approval:…`, `incident:…`, `token:…`.
    pub object: String,
    pub detail: serde_json::Value,
    /// Of the row before; 64 hex digits, empty for the first one.
    pub previous: String,
    /// SHA-256 over `previous` and this row.
    pub hash: String,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    at: i64,
    actor: String,
    action: String,
    object: String,
    detail: String,
    previous: String,
    hash: String,
}

impl Row {
    fn model(self) -> Result<Entry> {
        Ok(Entry {
            seq: self.seq,
            at: row::time(self.at),
            actor: row::from_json(&self.actor)?,
            detail: row::from_json(&self.detail)?,
            action: self.action,
            object: self.object,
            previous: self.previous,
            hash: self.hash,
        })
    }
    fn computed_hash(&self) -> String {
        hash(&self.previous, self.at, &self.actor, &self.action, &self.object, &self.detail)
    }
}

/// Each part is preceded by its length, so that no two different rows give the same text.
fn hash(previous: &str, at: i64, actor: &str, action: &str, object: &str, detail: &str) -> String {
    let at = at.to_string();
    let parts = [previous, &at, actor, action, object, detail];
    let text: String = parts.iter().map(|p| format!("{}:{p}", p.len())).collect();
    sha256_hex(text.as_bytes())
}

pub async fn add(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    object: &str,
    detail: &serde_json::Value,
) -> Result<()> {
    tx.lock("audit").await?;
    let previous: Option<String> =
        sql!(tx, |c| sqlx::query_scalar("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1")
            .fetch_optional(c))?;
    let previous = previous.unwrap_or_default();
    let (at, actor, detail) = (row::micros(crate::clock::now()), row::to_json(actor), row::to_json(detail));
    let hash = hash(&previous, at, &actor, action, object, &detail);
    let seq: i64 = sql!(tx, |c| {
        sqlx::query_scalar(
        "INSERT INTO audit (at, actor, action, object, detail, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         RETURNING seq"
    )
    .bind(at)
    .bind(&actor)
    .bind(action)
    .bind(object)
    .bind(&detail)
    .bind(&previous)
    .bind(&hash)
    .fetch_one(c)
    })?;
    exports::note(tx, exports::Kind::Audit, &[seq.to_string()]).await
}

pub async fn get(tx: &mut Tx, seq: i64) -> Result<Option<Entry>> {
    let row: Option<Row> = sql!(tx, |c| {
        sqlx::query_as(
            "SELECT seq, at, actor, action, object, detail, previous, hash FROM audit WHERE seq = $1",
        )
        .bind(seq)
        .fetch_optional(c)
    })?;
    row.map(Row::model).transpose()
}

/// Newest first; the cursor is the sequence number.
pub async fn list(tx: &mut Tx, limit: i64, cursor: Option<i64>) -> Result<Page<Entry>> {
    let limit = page::clamp(limit);
    let rows: Vec<Row> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT seq, at, actor, action, object, detail, previous, hash FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
    )
    .bind(cursor.unwrap_or(i64::MAX))
    .bind(limit + 1)
    .fetch_all(c)
    })?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |e| e.seq.to_string()))
}

/// Walks the whole chain; the number of rows, or the first row that does not fit. Retention cuts the beginning off, so the
/// first row's `previous` is taken as it is.
pub async fn verify(tx: &mut Tx) -> Result<i64> {
    let (mut seq, mut count, mut expected) = (0, 0, None);
    loop {
        let rows: Vec<Row> = sql!(tx, |c| {
            sqlx::query_as(
            "SELECT seq, at, actor, action, object, detail, previous, hash FROM audit WHERE seq > $1 ORDER BY seq LIMIT 1000"
        )
        .bind(seq)
        .fetch_all(c)
        })?;
        let Some(last) = rows.last().map(|r| r.seq) else { return Ok(count) };
        for r in &rows {
            if expected.as_ref().is_some_and(|e| *e != r.previous) || r.computed_hash() != r.hash {
                return Err(Error::Damaged(format!(
                    "the audit trail was changed at or before row {}",
                    r.seq
                )));
            }
            expected = Some(r.hash.clone());
            count += 1;
        }
        seq = last;
    }
}
