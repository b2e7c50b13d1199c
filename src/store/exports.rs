//! Which records have changed since their copy in a search index was made. Written only where there is an export.

use sqlx::FromRow;

use super::{Result, Tx, exec, insert_all, sql};

crate::model::words!(
    /// Records that are copied; part of the names of their indices.
    Kind {
        Incident = "incidents",
        Diagnosis = "diagnoses",
        Audit = "audit",
    }
);

/// A record that has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    pub seq: i64,
    pub kind: Kind,
    pub subject: String,
}

#[derive(FromRow)]
struct Row {
    seq: i64,
    kind: String,
    subject: String,
}

/// How much is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    pub waiting: i64,
    pub refused: i64,
}

/// In the transaction of the change. Nothing if there is no export.
pub(super) async fn note<S: AsRef<str>>(tx: &mut Tx, kind: Kind, subjects: &[S]) -> Result<()> {
    if tx.exports {
        append(tx, kind, subjects).await?;
    }
    Ok(())
}

async fn append<S: AsRef<str>>(tx: &mut Tx, kind: Kind, subjects: &[S]) -> Result<()> {
    insert_all!(
        tx,
        "INSERT INTO exports (kind, subject)",
        subjects,
        |row, subject| row.push_bind(kind.as_str()).push_bind(subject.as_ref()),
        ""
    );
    Ok(())
}

/// The oldest changes that were not refused; at most so many.
pub async fn waiting(tx: &mut Tx, limit: i64) -> Result<Vec<Changed>> {
    let rows: Vec<Row> = sql!(tx, |c| {
        sqlx::query_as("SELECT seq, kind, subject FROM exports WHERE refused IS NULL ORDER BY seq LIMIT $1")
            .bind(limit)
            .fetch_all(c)
    })?;
    let changed = |r: Row| Ok(Changed { seq: r.seq, kind: super::row::word(&r.kind)?, subject: r.subject });
    rows.into_iter().map(changed).collect()
}

/// The copy is as new as this change: it and those before it are done.
pub async fn done(tx: &mut Tx, change: &Changed) -> Result<()> {
    exec!(tx, |c| sqlx::query("DELETE FROM exports WHERE kind = $1 AND subject = $2 AND seq <= $3")
        .bind(change.kind.as_str())
        .bind(&change.subject)
        .bind(change.seq))?;
    Ok(())
}

/// The index will not take it as it is.
pub async fn refuse(tx: &mut Tx, change: &Changed, why: &str) -> Result<()> {
    exec!(tx, |c| sqlx::query(
        "UPDATE exports SET refused = $4 WHERE kind = $1 AND subject = $2 AND seq <= $3"
    )
    .bind(change.kind.as_str())
    .bind(&change.subject)
    .bind(change.seq)
    .bind(why))?;
    Ok(())
}

/// What was refused is tried again; how many changes those are.
pub async fn retry(tx: &mut Tx) -> Result<u64> {
    Ok(exec!(tx, |c| sqlx::query("UPDATE exports SET refused = NULL WHERE refused IS NOT NULL"))?)
}

pub async fn backlog(tx: &mut Tx) -> Result<Backlog> {
    let (all, refused): (i64, i64) =
        sql!(tx, |c| sqlx::query_as("SELECT COUNT(*), COUNT(refused) FROM exports").fetch_one(c))?;
    Ok(Backlog { waiting: all - refused, refused })
}

/// Why the last one was refused.
pub async fn refusal(tx: &mut Tx) -> Result<Option<String>> {
    Ok(sql!(tx, |c| sqlx::query_scalar(
        "SELECT refused FROM exports WHERE refused IS NOT NULL ORDER BY seq DESC LIMIT 1"
    )
    .fetch_optional(c))?)
}

/// Notes records that were there before the export was, after the given one in their order; the last of them, if there are any.
/// They are locked: a change that is being made gets its number before ours or after its commit, so the later number is the newer.
pub async fn catch_up(tx: &mut Tx, kind: Kind, after: &str, limit: i64) -> Result<Option<String>> {
    let ids: Vec<String> = match kind {
        Kind::Incident | Kind::Diagnosis => {
            let query =
                format!("SELECT id FROM {kind} WHERE id > $1 ORDER BY id LIMIT $2{}", tx.for_update());
            sql!(tx, |c| sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(after).bind(limit).fetch_all(c))?
        }
        Kind::Audit => {
            let after: i64 = after.parse().unwrap_or(0);
            let seqs: Vec<i64> = sql!(tx, |c| {
                sqlx::query_scalar("SELECT seq FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
                    .bind(after)
                    .bind(limit)
                    .fetch_all(c)
            })?;
            seqs.into_iter().map(|seq| seq.to_string()).collect()
        }
    };
    append(tx, kind, &ids).await?;
    Ok(ids.into_iter().next_back())
}
