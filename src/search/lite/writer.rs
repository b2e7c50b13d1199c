//! Takes lines into `logs.db` in batches beside the hot path: within a number of lines a second, within bounds of waiting and of
//! the file. What exceeds them is left out, the less serious first, and counted.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, SqliteConnection, SqlitePool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{own, words};
use crate::{
    clock, config, metrics,
    model::{LogLevel, LogRecord},
    redact,
    search::MAX_MESSAGE,
};

/// Bytes of lines that wait for the writer at most.
const WAITING: usize = 16 << 20;
/// Lines of one transaction, and of one statement (seven values each; SQLite takes 32,766).
const BATCH: usize = 4000;
const STATEMENT: usize = 500;
/// Lines can be found after about so long.
const GATHER: Duration = Duration::from_millis(200);
/// The index is forgotten in so many parts.
const SEGMENTS: u64 = 8;
/// How often bounds are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Minutes for which it is remembered how many lines were left out.
const MINUTES: usize = 24 * 60;

/// Where intake leaves the lines; cheap to clone. Never waits.
#[derive(Clone)]
pub struct Sink {
    queue: mpsc::UnboundedSender<Vec<LogRecord>>,
    shared: Arc<Shared>,
}

struct Shared {
    waiting: AtomicUsize,
    budget: Mutex<Budget>,
    left_out: Mutex<VecDeque<(i64, u64)>>,
    /// A line was ever kept.
    any: AtomicBool,
    bytes: AtomicUsize,
    max_rate: u64,
    max_bytes: u64,
}

/// What may still be taken within this second.
struct Budget {
    second: i64,
    left: u64,
}

/// Lines that were chosen; not kept unless told so.
#[derive(Default)]
#[must_use = "what is not kept is not found"]
pub struct Picked(Option<(Sink, Vec<LogRecord>)>);

impl Picked {
    /// Hands them to the writer.
    pub fn keep(self) {
        if let Some((sink, lines)) = self.0.filter(|(_, lines)| !lines.is_empty()) {
            sink.hand_on(lines);
        }
    }
}

impl Sink {
    /// Chooses lines within what this second still allows. Half of it is for warnings and worse alone.
    pub fn pick(&self, records: &[LogRecord]) -> Picked {
        let now = clock::now();
        let max = self.shared.max_rate;
        let mut picked = Vec::new();
        {
            let mut budget = lock(&self.shared.budget);
            if budget.second != now.as_second() {
                *budget = Budget { second: now.as_second(), left: max };
            }
            for record in records {
                let reserved = if record.level >= LogLevel::Warn { 0 } else { max / 2 };
                if budget.left > reserved {
                    budget.left -= 1;
                    picked.push(record.clone());
                }
            }
        }
        self.leave_out("rate", records.len() - picked.len(), now);
        Picked(Some((self.clone(), picked)))
    }

    fn hand_on(&self, lines: Vec<LogRecord>) {
        let bytes: usize = lines.iter().map(size).sum();
        let count = lines.len();
        let before = self.shared.waiting.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > WAITING || self.queue.send(lines).is_err() {
            self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.leave_out("waiting", count, clock::now());
        }
    }

    fn leave_out(&self, reason: &str, count: usize, now: Timestamp) {
        if count == 0 {
            return;
        }
        metrics::LOG_LINES_LEFT_OUT.with_label_values(&[reason]).inc_by(count as u64);
        let minute = now.as_second() / 60;
        let mut ring = lock(&self.shared.left_out);
        match ring.back_mut() {
            Some((last, sum)) if *last == minute => *sum += count as u64,
            _ => ring.push_back((minute, count as u64)),
        }
        while ring.len() > MINUTES {
            ring.pop_front();
        }
    }

    /// False where no lines were ever sent: then there is nothing to ask the file, at every diagnosis of a storm.
    pub(super) fn holds_any(&self) -> bool {
        self.shared.any.load(Ordering::Acquire)
    }

    /// Lines that arrived in this time and were not kept, to the minute.
    pub(super) fn left_out(&self, from: Timestamp, to: Timestamp) -> u64 {
        let minutes = from.as_second() / 60..=to.as_second() / 60;
        lock(&self.shared.left_out).iter().filter(|(m, _)| minutes.contains(m)).map(|(_, n)| n).sum()
    }

    pub fn report(&self) -> serde_json::Value {
        let hour = clock::before(clock::now(), Duration::from_secs(3600));
        json!({
            "bytes": self.shared.bytes.load(Ordering::Relaxed),
            "max_bytes": self.shared.max_bytes,
            "left_out_last_hour": self.left_out(hour, clock::now()),
        })
    }
}

fn size(record: &LogRecord) -> usize {
    size_of::<LogRecord>() + record.message.len() + record.service.len() + record.host.len()
}

/// The one writer of the file.
pub struct Writer {
    pool: SqlitePool,
    queue: mpsc::UnboundedReceiver<Vec<LogRecord>>,
    sink: Sink,
    keep_for: Duration,
    max_bytes: u64,
}

pub(super) async fn new(pool: SqlitePool, settings: &config::Logs) -> anyhow::Result<(Sink, Writer)> {
    let (sender, queue) = mpsc::unbounded_channel();
    let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM lines)").fetch_one(&pool).await?;
    let shared = Shared {
        waiting: AtomicUsize::new(0),
        budget: Mutex::new(Budget { second: 0, left: 0 }),
        left_out: Mutex::default(),
        any: AtomicBool::new(any),
        bytes: AtomicUsize::new(0),
        max_rate: settings.max_rate,
        max_bytes: settings.max_bytes,
    };
    let sink = Sink { queue: sender, shared: Arc::new(shared) };
    let (keep_for, max_bytes) = (settings.keep_for, settings.max_bytes);
    let writer = Writer { pool, queue, sink: sink.clone(), keep_for, max_bytes };
    let mut c = writer.pool.acquire().await?;
    current_segment(&mut c).await.context("making the log index ready")?;
    drop(c);
    Ok((sink, writer))
}

impl Writer {
    /// Writes until stopped, then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    if let Err(error) = self.stay_within_bounds(clock::now()).await {
                        tracing::warn!(%error, "old log lines could not be forgotten; trying again");
                    }
                }
                batch = self.queue.recv() => {
                    let Some(batch) = batch else { break };
                    tokio::select! {
                        () = tokio::time::sleep(GATHER) => {}
                        () = stop.cancelled() => {}
                    }
                    self.write(batch).await;
                }
            }
        }
        while let Ok(batch) = self.queue.try_recv() {
            self.write(batch).await;
        }
        self.pool.close().await;
    }

    /// Writes this batch together with others that wait.
    async fn write(&mut self, first: Vec<LogRecord>) {
        let mut lines = first;
        while lines.len() < BATCH
            && let Ok(more) = self.queue.try_recv()
        {
            lines.extend(more);
        }
        self.sink.shared.waiting.fetch_sub(lines.iter().map(size).sum(), Ordering::AcqRel);
        let count = lines.len();
        match self.insert(lines).await {
            Ok(()) => {
                self.sink.shared.any.store(true, Ordering::Release);
                metrics::LOG_LINES_KEPT.inc_by(count as u64);
            }
            Err(error) => {
                tracing::warn!(%error, count, "log lines could not be kept for search");
                self.sink.leave_out("failed", count, clock::now());
            }
        }
    }

    async fn insert(&self, lines: Vec<LogRecord>) -> sqlx::Result<()> {
        // What is masked here cannot be searched for either.
        let masking = tokio::task::spawn_blocking(|| lines.into_iter().map(masked).collect::<Vec<_>>());
        let lines = masking.await.map_err(|e| sqlx::Error::Io(std::io::Error::other(e)))?;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let words = words(current_segment(&mut tx).await?);
        let mut id: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM lines").fetch_one(&mut *tx).await?;
        for chunk in lines.chunks(STATEMENT) {
            let ids: Vec<i64> = (id + 1..).take(chunk.len()).collect();
            id += chunk.len() as i64;
            let mut q =
                QueryBuilder::new("INSERT INTO lines (id, at, service, host, level, trace, message) ");
            q.push_values(ids.iter().zip(chunk), |mut row, (id, line)| {
                row.push_bind(*id)
                    .push_bind(line.at.as_microsecond())
                    .push_bind(line.service.as_str())
                    .push_bind(line.host.as_str())
                    .push_bind(line.level as i64)
                    .push_bind(line.trace_id.as_deref())
                    .push_bind(line.message.as_str());
            });
            q.build().persistent(false).execute(&mut *tx).await?;
            let mut q = QueryBuilder::new(format!("INSERT INTO {words} (rowid, message) "));
            q.push_values(ids.iter().zip(chunk), |mut row, (id, line)| {
                row.push_bind(*id).push_bind(line.message.as_str());
            });
            q.build().persistent(false).execute(&mut *tx).await?;
        }
        tx.commit().await
    }

    /// Begins a new segment when the current one is large or old enough, and drops the oldest ones that are too much or too old.
    async fn stay_within_bounds(&self, now: Timestamp) -> sqlx::Result<()> {
        let mut c = self.pool.acquire().await?;
        let used = used(&mut c).await?;
        self.sink.shared.bytes.store(used as usize, Ordering::Relaxed);
        let segments: Vec<(i64, i64, i64)> =
            sqlx::query_as("SELECT id, first_line, began_at FROM segments ORDER BY id")
                .fetch_all(&mut *c)
                .await?;
        let Some(&(last, first_line, began_at)) = segments.last() else { return Ok(()) };
        let (oldest, newest): (i64, i64) =
            sqlx::query_as("SELECT COALESCE(MIN(id), 1), COALESCE(MAX(id), 0) FROM lines")
                .fetch_one(&mut *c)
                .await?;
        // Numbers have no gaps; a segment's share of the file is that of its lines.
        let (lines, all) = (newest - first_line + 1, newest - oldest + 1);
        let size = used.saturating_mul(lines as u64) / (all as u64).max(1);
        let age = clock::between(clock::from_micros(began_at), now);
        if lines > 0 && (size > self.max_bytes / SEGMENTS || age > self.keep_for / SEGMENTS as u32) {
            new_segment(&mut c, last + 1, now).await?;
        }
        let oldest_allowed = clock::before(now, self.keep_for).as_microsecond();
        for pair in segments.windows(2) {
            let ((oldest, ..), (_, next_first, next_began)) = (pair[0], pair[1]);
            let used = self::used(&mut c).await?;
            if used <= self.max_bytes - self.max_bytes / SEGMENTS && next_began > oldest_allowed {
                break;
            }
            drop_segment(&mut c, oldest, next_first).await?;
        }
        Ok(())
    }
}

/// Bytes of the file that hold something.
async fn used(c: &mut SqliteConnection) -> sqlx::Result<u64> {
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *c).await?;
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *c).await?;
    let size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *c).await?;
    Ok(((pages - free) * size).max(0) as u64)
}

async fn current_segment(c: &mut SqliteConnection) -> sqlx::Result<i64> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(id) FROM segments").fetch_one(&mut *c).await?;
    match last {
        Some(id) => Ok(id),
        None => {
            new_segment(c, 1, clock::now()).await?;
            Ok(1)
        }
    }
}

async fn new_segment(c: &mut SqliteConnection, id: i64, now: Timestamp) -> sqlx::Result<()> {
    let words = words(id);
    let create = format!("CREATE VIRTUAL TABLE IF NOT EXISTS {words} USING fts5 (message, content='')");
    sqlx::query(own(create)).execute(&mut *c).await?;
    sqlx::query(
        "INSERT INTO segments (id, first_line, began_at) SELECT $1, COALESCE(MAX(id), 0) + 1, $2 FROM lines",
    )
    .bind(id)
    .bind(now.as_microsecond())
    .execute(&mut *c)
    .await?;
    Ok(())
}

async fn drop_segment(c: &mut SqliteConnection, id: i64, next_first: i64) -> sqlx::Result<()> {
    use sqlx::Connection;
    let mut tx = c.begin().await?;
    sqlx::query("DELETE FROM segments WHERE id = $1").bind(id).execute(&mut *tx).await?;
    sqlx::query(own(format!("DROP TABLE IF EXISTS {}", words(id)))).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM lines WHERE id < $1").bind(next_first).execute(&mut *tx).await?;
    tx.commit().await
}

fn masked(mut line: LogRecord) -> LogRecord {
    line.message = redact::cut(&redact::mask(&line.message), MAX_MESSAGE).to_owned();
    line
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic between two lines of counting leaves numbers that are still numbers.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
