//! Silences that people made at run time.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Page, Result, Tx, exec, page, row, sql};
use crate::model::Silence;

#[derive(FromRow)]
struct Row {
    id: String,
    matches: String,
    reason: String,
    made_by: String,
    created_at: i64,
    ends_at: i64,
}

const COLUMNS: &str = "id, matches, reason, made_by, created_at, ends_at";

impl Row {
    fn model(self) -> Result<Silence> {
        Ok(Silence {
            matches: row::from_json(&self.matches)?,
            by: row::from_json(&self.made_by)?,
            created_at: row::time(self.created_at),
            until: row::time(self.ends_at),
            id: self.id,
            reason: self.reason,
        })
    }
}

pub async fn insert(tx: &mut Tx, s: &Silence) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO silences (id, matches, reason, made_by, created_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6)"
    )
    .bind(&s.id)
    .bind(row::to_json(&s.matches))
    .bind(&s.reason)
    .bind(row::to_json(&s.by))
    .bind(row::micros(s.created_at))
    .bind(row::micros(s.until))
    })?;
    Ok(())
}

/// All that have not ended at `at`, oldest first.
pub async fn active(tx: &mut Tx, at: Timestamp) -> Result<Vec<Silence>> {
    let query = format!("SELECT {COLUMNS} FROM silences WHERE ends_at > $1 ORDER BY id");
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(row::micros(at)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Newest first; with `after`, only those that end later than that.
pub async fn list(
    tx: &mut Tx,
    after: Option<Timestamp>,
    limit: i64,
    cursor: Option<&str>,
) -> Result<Page<Silence>> {
    let limit = page::clamp(limit);
    let query = format!(
        "SELECT {COLUMNS} FROM silences WHERE (CAST($1 AS BIGINT) IS NULL OR ends_at > $1) \
         AND (CAST($2 AS TEXT) IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(after.map(row::micros))
        .bind(cursor)
        .bind(limit + 1)
        .fetch_all(c))?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |s| s.id.clone()))
}

/// Finds by the whole id or by a unique ending of at least four characters; `None` if it fits none or several.
pub async fn find(tx: &mut Tx, text: &str) -> Result<Option<Silence>> {
    if text.len() < 4 || !text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(None);
    }
    let query = format!("SELECT {COLUMNS} FROM silences WHERE id LIKE $1 ORDER BY id DESC LIMIT 2");
    let pattern = format!("%{}", text.to_ascii_lowercase());
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(pattern).fetch_all(c))?;
    match <[Row; 1]>::try_from(rows) {
        Ok([row]) => row.model().map(Some),
        Err(_) => Ok(None),
    }
}

/// Ends it at `at`. False if it had ended before.
pub async fn end(tx: &mut Tx, id: &str, at: Timestamp) -> Result<bool> {
    let changed =
        exec!(tx, |c| sqlx::query("UPDATE silences SET ends_at = $2 WHERE id = $1 AND ends_at > $2")
            .bind(id)
            .bind(row::micros(at)))?;
    Ok(changed == 1)
}
