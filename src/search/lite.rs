//! The embedded log search: a database file of its own (`logs.db`) with the lines that came through intake lately, and a full-text
//! index over them. It is no record: what does not fit is left out and counted, and a damaged file is begun anew.
//!
//! The index is cut into segments of one FTS5 table each, so that the oldest lines are forgotten by dropping a table.

mod writer;

use std::{path::Path, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    AssertSqlSafe, FromRow, QueryBuilder, Sqlite, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::{Around, Backend, Count, Line, Lines, LogSearch, Occurrences, Rate, SearchError, Wanted};
use crate::{
    clock, config,
    model::{LogLevel, Phrase, Said},
};
pub use writer::{Picked, Sink, Writer};

/// Where the lines are, in the data directory.
pub const FILE: &str = "logs.db";

/// Searches the lines that came through intake.
pub struct Lite {
    read: SqlitePool,
    sink: Sink,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    at: i64,
    service: String,
    host: String,
    level: i64,
    trace: Option<String>,
    message: String,
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self {
            at: clock::from_micros(row.at),
            service: row.service,
            host: row.host,
            level: usize::try_from(row.level).ok().and_then(|l| LogLevel::ALL.get(l).copied()),
            message: row.message,
            trace_id: row.trace,
        }
    }
}

impl Lite {
    /// Opens or makes the file; a damaged one is put aside as `logs.db.damaged`.
    pub async fn open(data_dir: &Path, settings: &config::Logs) -> anyhow::Result<(Self, Sink, Writer)> {
        let path = data_dir.join(FILE);
        let write = match open_file(&path).await {
            Ok(write) => write,
            Err(e) => {
                tracing::warn!(error = format!("{e:#}"), path = %path.display(), "the kept log lines cannot be read; beginning anew");
                for end in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(data_dir.join(format!("{FILE}{end}")));
                }
                std::fs::rename(&path, data_dir.join(format!("{FILE}.damaged")))
                    .with_context(|| format!("putting {} aside", path.display()))?;
                open_file(&path).await?
            }
        };
        let read = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .connect_with(options(&path).read_only(true))
            .await
            .with_context(|| format!("opening {}", path.display()))?;
        let (sink, writer) = writer::new(write, settings).await?;
        Ok((Self { read, sink: sink.clone() }, sink, writer))
    }

    /// What was not kept in this time is told: a smaller number of lines must not pass for silence.
    fn gaps(&self, from: Timestamp, to: Timestamp) -> Vec<Said> {
        match self.sink.left_out(from, to) {
            0 => Vec::new(),
            count => vec![Phrase::LinesNotKept { count: count.to_string() }.into()],
        }
    }
}

/// Hands over each kept line between two times, the oldest first; changes nothing, whoever writes there.
pub async fn each_kept(
    data_dir: &Path,
    from: Timestamp,
    to: Timestamp,
    mut each: impl FnMut(Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = data_dir.join(FILE);
    let reading = || format!("reading {}", path.display());
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let pool =
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await.with_context(reading)?;
    let query = "SELECT id, at, service, host, level, trace, message FROM lines \
         WHERE (at, id) > ($1, $2) AND at <= $3 ORDER BY at, id LIMIT 10000";
    let mut after = (from.as_microsecond() - 1, i64::MAX);
    loop {
        let read = sqlx::query_as(query).bind(after.0).bind(after.1).bind(to.as_microsecond());
        let rows: Vec<Row> = read.fetch_all(&pool).await.with_context(reading)?;
        let Some(last) = rows.last() else { break };
        after = (last.at, last.id);
        for row in rows {
            each(row.into())?;
        }
    }
    pool.close().await;
    Ok(())
}

async fn segments(c: &mut SqliteConnection) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("SELECT id FROM segments ORDER BY id DESC").fetch_all(c).await
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // Losing the last lines at a power cut is no loss here; the file stays whole.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(2))
        .pragma("temp_store", "memory")
}

async fn open_file(path: &Path) -> anyhow::Result<SqlitePool> {
    crate::store::restrict(path)?;
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(options(path).create_if_missing(true).auto_vacuum(SqliteAutoVacuum::Incremental))
        .await
        .with_context(|| format!("opening {}", path.display()))?;
    let prepare = "
        CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, service TEXT NOT NULL,
            host TEXT NOT NULL, level INTEGER NOT NULL, trace TEXT, message TEXT NOT NULL);
        CREATE INDEX IF NOT EXISTS lines_by_time ON lines (at, id);
        CREATE INDEX IF NOT EXISTS lines_by_service ON lines (service, at, id, level);
        CREATE INDEX IF NOT EXISTS lines_by_trace ON lines (trace) WHERE trace IS NOT NULL;
        CREATE TABLE IF NOT EXISTS segments (id INTEGER PRIMARY KEY, first_line INTEGER NOT NULL, began_at INTEGER NOT NULL);";
    let preparing = async {
        sqlx::raw_sql(prepare).execute(&write).await?;
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM segments").fetch_one(&write).await
    };
    preparing.await.with_context(|| format!("preparing {}", path.display()))?;
    Ok(write)
}

#[async_trait]
impl LogSearch for Lite {
    fn backend(&self) -> Backend {
        Backend::Sqlite
    }

    async fn lines(&self, wanted: &Wanted) -> Result<Lines, SearchError> {
        let cursor = wanted.cursor.as_deref().map(read_cursor).transpose()?;
        if !self.sink.holds_any() {
            return Ok(Lines { gaps: self.gaps(wanted.from, wanted.to), ..Lines::default() });
        }
        let mut q =
            QueryBuilder::new("SELECT id, at, service, host, level, trace, message FROM lines WHERE at >= ");
        q.push_bind(wanted.from.as_microsecond()).push(" AND at < ").push_bind(wanted.to.as_microsecond());
        if let Some(service) = &wanted.service {
            q.push(" AND service = ").push_bind(service);
        }
        if let Some(level) = wanted.level {
            q.push(" AND level >= ").push_bind(level as i64);
        }
        if let Some(trace) = &wanted.trace {
            q.push(" AND trace = ").push_bind(trace);
        }
        if let Some((at, id)) = cursor {
            q.push(" AND (at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        // One snapshot: a segment that is dropped meanwhile is there to the end of it.
        let mut tx = self.read.begin().await.map_err(unreadable)?;
        if !wanted.text.trim().is_empty() {
            let segments = segments(&mut tx).await.map_err(unreadable)?;
            push_matches(&mut q, &segments, &all_words(&wanted.text));
        }
        q.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(wanted.limit as i64 + 1);
        let mut rows: Vec<Row> =
            q.build_query_as().persistent(false).fetch_all(&mut *tx).await.map_err(unreadable)?;
        drop(tx);
        let more = rows.len() > wanted.limit;
        rows.truncate(wanted.limit);
        let next = rows.last().filter(|_| more).map(|r| format!("{}.{}", r.at, r.id));
        let gaps = self.gaps(wanted.from, wanted.to);
        Ok(Lines { lines: rows.into_iter().map(Line::from).collect(), next, gaps })
    }

    async fn rate(&self, service: &str, around: Around, step: Duration) -> Result<Rate, SearchError> {
        if !self.sink.holds_any() {
            return Ok(Rate { gaps: self.gaps(around.from, around.to), ..Rate::default() });
        }
        let (from, onset, to) = micros(around);
        let step = (step.as_micros() as i64).max(1_000_000);
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT (at - $2) / $5 + (at >= $2) AS n, COUNT(*), COALESCE(SUM(level >= $6), 0) FROM lines \
             WHERE service = $1 AND at >= $3 AND at < $4 GROUP BY n ORDER BY n",
        )
        .bind(service)
        .bind(onset)
        .bind(from)
        .bind(to)
        .bind(step)
        .bind(LogLevel::Error as i64)
        .fetch_all(&self.read)
        .await
        .map_err(unreadable)?;
        let first: Option<i64> = sqlx::query_scalar("SELECT MIN(at) FROM lines")
            .fetch_one(&self.read)
            .await
            .map_err(unreadable)?;
        let covered = first.map_or(Duration::ZERO, |first| {
            Duration::from_micros(u64::try_from(onset - first.max(from)).unwrap_or(0))
        });
        let mut rate = Rate { covered, gaps: self.gaps(around.from, around.to), ..Rate::default() };
        for (n, lines, errors) in rows {
            // Steps are counted from the onset: 1, 2 … since, 0, -1 … before it.
            let count = Count { lines: lines as u64, errors: errors as u64 };
            let sum = if n > 0 { &mut rate.since } else { &mut rate.before };
            sum.lines += count.lines;
            sum.errors += count.errors;
            rate.steps.push((clock::from_micros(onset + (n - 1) * step), count));
        }
        Ok(rate)
    }

    async fn occurrences(
        &self,
        service: &str,
        around: Around,
        texts: &[String],
    ) -> Result<Vec<Occurrences>, SearchError> {
        let (from, onset, to) = micros(around);
        let mut tx = self.read.begin().await.map_err(unreadable)?;
        let segments = segments(&mut tx).await.map_err(unreadable)?;
        let mut found = Vec::new();
        for text in texts {
            let mut q = QueryBuilder::new("SELECT COALESCE(SUM(at < ");
            q.push_bind(onset).push("), 0), COALESCE(SUM(at >= ").push_bind(onset);
            q.push("), 0) FROM lines WHERE service = ").push_bind(service);
            q.push(" AND at >= ").push_bind(from).push(" AND at < ").push_bind(to);
            push_matches(&mut q, &segments, &quoted(text));
            let counted: (i64, i64) =
                q.build_query_as().persistent(false).fetch_one(&mut *tx).await.map_err(unreadable)?;
            found.push((counted.0 as u64, counted.1 as u64));
        }
        Ok(found)
    }
}

fn micros(around: Around) -> (i64, i64, i64) {
    (around.from.as_microsecond(), around.onset.as_microsecond(), around.to.as_microsecond())
}

fn push_matches(q: &mut QueryBuilder<Sqlite>, segments: &[i64], expression: &str) {
    q.push(" AND id IN (SELECT NULL WHERE FALSE");
    for segment in segments {
        let words = words(*segment);
        q.push(format!(" UNION ALL SELECT rowid FROM {words} WHERE {words} MATCH "))
            .push_bind(expression.to_owned());
    }
    q.push(")");
}

/// The table of a segment's index.
fn words(segment: i64) -> String {
    format!("words_{segment}")
}

/// Every word of `text`, each as a string of FTS5's: nothing in it is an operator.
fn all_words(text: &str) -> String {
    text.split_whitespace().map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(text: &str) -> String {
    // SQLite ends a text at NUL.
    format!("\"{}\"", text.replace('"', "\"\"").replace('\0', " "))
}

fn read_cursor(text: &str) -> Result<(i64, i64), SearchError> {
    let (at, id) = text.split_once('.').ok_or(SearchError::Cursor)?;
    match (at.parse(), id.parse()) {
        (Ok(at), Ok(id)) => Ok((at, id)),
        _ => Err(SearchError::Cursor),
    }
}

fn unreadable(error: sqlx::Error) -> SearchError {
    tracing::warn!(%error, "searching the kept log lines failed");
    Phrase::Unreachable { why: crate::redact::mask(&error.to_string()) }.into()
}

/// Runs a statement whose text is ours.
fn own(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}
