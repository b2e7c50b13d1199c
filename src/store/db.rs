//! The two engines behind one transaction type.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Sqlite, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Notify;
use tracing::Instrument;

use super::{
    damage,
    inline::{self, Failure, For},
    migrate::{MigrateWhen, Standing},
    readers::{Look, Readers},
    writer::{Turn, Writer},
};

/// What a store call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store: {0}")]
    Sql(sqlx::Error),
    /// The commit failed that this transaction shared with others.
    #[error("the store: {0}")]
    Together(Arc<sqlx::Error>),
    /// A row does not read back as what was written; the table and column are in the text.
    #[error("the store holds something unreadable: {0}")]
    Damaged(String),
    /// The job, message or name was taken over by another owner; nothing may be written for it any more.
    #[error("the lease was lost to another owner")]
    LeaseLost,
}

pub type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if code(&error).as_deref() == Some(READ_ONLY) {
            *lock(&READ_ONLY_AT) = Some(Instant::now());
        }
        Self::Sql(error)
    }
}

/// PostgreSQL's code for a write to what takes none: a standby, or a server that was told so.
const READ_ONLY: &str = "25006";
/// When a connection last turned out to be of such a server. After a fail-over, connections that were open then may lead to
/// the old one still.
static READ_ONLY_AT: Mutex<Option<Instant>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

impl Error {
    /// True if the store itself is not there, or not for this: what was asked may well work later.
    pub fn is_unavailable(&self) -> bool {
        let error = match self {
            Self::Sql(error) => error,
            Self::Together(error) => error,
            _ => return false,
        };
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(e)
                if e.try_downcast_ref::<Failure>().is_some()
                    || e.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() =>
            {
                // Busy, read-only, failing or full disk: the primary codes 5, 8, 10 and 13.
                let code = e.code().and_then(|code| code.parse::<u32>().ok());
                code.is_some_and(|code| [5, 8, 10, 13].contains(&(code & 0xff)))
            }
            sqlx::Error::Database(e) => e.code().is_some_and(|code| {
                // No connection, no resources, ended by the operator, taken back, or read-only.
                ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
                    || ["25P03", "55P03", READ_ONLY].contains(&code.as_ref())
            }),
            _ => false,
        }
    }

    /// True for a broken unique constraint: somebody else was first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}

/// Who waits for what a commit may have brought: set by the functions that write it, rung at the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    pub inbox: bool,
    pub jobs: bool,
    pub messages: bool,
    pub timeline: bool,
}

/// Bells that commits ring; see [`Wake`].
#[derive(Default)]
pub struct Bells {
    pub inbox: Notify,
    pub jobs: Notify,
    pub messages: Notify,
    pub timeline: Notify,
}

/// The state store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) pools: Pools,
    pub bells: Arc<Bells>,
    /// Whether changes are noted for the export.
    exports: bool,
}

#[derive(Clone)]
pub(super) enum Pools {
    /// One writer, because SQLite has one; readers beside it see the last commit.
    Lite {
        write: Writer,
        read: SqlitePool,
        read_few: Readers,
        inbox: LiteInbox,
    },
    Postgres(PgPool),
}

/// The inbox of the embedded profile is a database file of its own: a file has one writer, and what a sender waits for must not
/// wait for what correlation writes.
#[derive(Clone)]
pub(super) struct LiteInbox {
    pub write: Writer,
    pub read: SqlitePool,
    /// For correlation, which has a thread of its own.
    pub read_few: Readers,
    /// The last row that the state holds the effects of. The truth is `inbox_applied` in the state; this is its last commit.
    pub applied: Arc<AtomicI64>,
    /// Up to which row applied ones have been deleted.
    pub trimmed: Arc<AtomicI64>,
}

/// A transaction. Dropped without [`Tx::commit`] it is rolled back.
pub struct Tx {
    pub(super) engine: Engine,
    pub(super) wake: Wake,
    /// The inbox row up to which this transaction applies, once it is committed.
    pub(super) applies: Option<(Arc<AtomicI64>, i64)>,
    /// Whether changes are noted for the export.
    pub(super) exports: bool,
    bells: Arc<Bells>,
}

pub(super) enum Engine {
    Lite(Lite),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A transaction on SQLite.
pub(super) enum Lite {
    Read(sqlx::Transaction<'static, Sqlite>),
    ReadFew(Look),
    Write(Turn),
}

impl Store {
    /// Opens SQLite in `data_dir` if `url` is empty, else PostgreSQL; brings the schema up to date.
    pub async fn open(url: &str, data_dir: &Path) -> anyhow::Result<Self> {
        Self::open_when(url, data_dir, MigrateWhen::AtStart).await
    }

    /// Like [`Store::open`], but migrates only if the settings say so; otherwise a schema that is not up to date is an error.
    pub async fn open_when(url: &str, data_dir: &Path, when: MigrateWhen) -> anyhow::Result<Self> {
        let pools = if url.is_empty() {
            open_sqlite(data_dir, when, For::Writing).await?
        } else {
            open_postgres(url, when).await?
        };
        Ok(Self::over(pools))
    }

    /// SQLite in a directory that is thrown away: nothing is durable, nobody else sees it, and of several transactions each waits for
    /// the end of the one before, also to read.
    pub async fn scratch(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self::over(open_sqlite(dir, MigrateWhen::AtStart, For::Scratch).await?))
    }

    pub(super) fn over(pools: Pools) -> Self {
        Self { pools, bells: Arc::default(), exports: false }
    }

    /// From now on, changes of records that are exported are noted with them. For the start, before anybody has a clone.
    pub fn exporting(self) -> Self {
        Self { exports: true, ..self }
    }

    /// A transaction for reading: one snapshot of everything.
    pub async fn read(&self) -> Result<Tx> {
        let engine = match &self.pools {
            Pools::Lite { read_few, .. } if read_few.are_alone() => {
                Engine::Lite(Lite::ReadFew(read_few.begin().await?))
            }
            Pools::Lite { read, .. } => Engine::Lite(Lite::Read(read.begin().await?)),
            Pools::Postgres(pool) => {
                Engine::Postgres(begin_whole(pool, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?)
            }
        };
        Ok(self.begun(engine))
    }

    /// Like [`Store::read`], for a few rows by their keys: on SQLite it runs on the thread that asks, which is cheaper, and holds
    /// up what else runs there.
    pub async fn read_few(&self) -> Result<Tx> {
        match &self.pools {
            Pools::Lite { read_few, .. } => {
                Ok(self.begun(Engine::Lite(Lite::ReadFew(read_few.begin().await?))))
            }
            Pools::Postgres(_) => self.read().await,
        }
    }

    /// A transaction for writing. On SQLite there is one at a time: hold it briefly, and never across an outside call.
    pub async fn write(&self) -> Result<Tx> {
        self.begin(false).await
    }

    /// A transaction that writes much: nobody shares its commit who would have to wait for its end.
    pub async fn write_much(&self) -> Result<Tx> {
        self.begin(true).await
    }

    async fn begin(&self, much: bool) -> Result<Tx> {
        let engine = match &self.pools {
            Pools::Lite { write, .. } => Engine::Lite(Lite::Write(write.begin(much).await?)),
            Pools::Postgres(pool) => Engine::Postgres(begin_whole(pool, "BEGIN").await?),
        };
        Ok(self.begun(engine))
    }

    fn begun(&self, engine: Engine) -> Tx {
        Tx { engine, wake: Wake::default(), applies: None, exports: self.exports, bells: self.bells.clone() }
    }

    /// `sqlite` or `postgresql`.
    pub fn engine_name(&self) -> &'static str {
        match self.pools {
            Pools::Lite { .. } => "sqlite",
            Pools::Postgres(_) => "postgresql",
        }
    }

    /// Whether other processes may use it beside this one.
    pub fn is_shared(&self) -> bool {
        matches!(self.pools, Pools::Postgres(_))
    }

    /// Closes the pools after what is under way.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Lite { write, read, read_few, inbox } => {
                // Whoever closes a file last writes its log back into it: a reader cannot.
                read.close().await;
                read_few.close().await;
                write.close().await;
                inbox.read.close().await;
                inbox.read_few.close().await;
                inbox.write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// Makes it durable, then wakes those who wait for what it wrote.
    pub async fn commit(self) -> Result<()> {
        match self.engine {
            Engine::Lite(Lite::Read(t)) => t.commit().await?,
            // It has nothing to make durable, and ends as it is dropped.
            Engine::Lite(Lite::ReadFew(_)) => {}
            Engine::Lite(Lite::Write(t)) => t.commit().await?,
            Engine::Postgres(t) => t.commit().await?,
        }
        if let Some((applied, row)) = self.applies {
            applied.fetch_max(row, Ordering::Release);
        }
        let (wake, bells) = (self.wake, &self.bells);
        for (rung, bell) in
            [(wake.inbox, &bells.inbox), (wake.jobs, &bells.jobs), (wake.messages, &bells.messages)]
        {
            if rung {
                bell.notify_one();
            }
        }
        if wake.timeline {
            bells.timeline.notify_waiters();
        }
        Ok(())
    }

    /// Rows in the parts in which statements should write them, and whether a part's statement is worth keeping prepared. For
    /// SQLite to prepare one costs as much as to run it, so there are few, each for as many rows as a power of two; PostgreSQL is
    /// far away.
    pub(super) fn chunks<'r, T>(&self, rows: &'r [T]) -> impl Iterator<Item = (&'r [T], bool)> + use<'r, T> {
        const MOST: usize = 64;
        let is_lite = matches!(self.engine, Engine::Lite(_));
        let mut rest = rows;
        std::iter::from_fn(move || {
            let (size, keep) = match rest.len() {
                0 => return None,
                left if is_lite => (MOST.min(1 << left.ilog2()), true),
                left => (left.min(super::CHUNK), left == 1),
            };
            let (chunk, later) = rest.split_at(size);
            rest = later;
            Some((chunk, keep))
        })
    }

    /// Appended to a `SELECT` whose rows this transaction is going to change. SQLite needs none: it has one writer.
    pub(super) fn for_update(&self) -> &'static str {
        match self.engine {
            Engine::Lite(_) => "",
            Engine::Postgres(_) => " FOR UPDATE",
        }
    }

    /// Appended to a `SELECT` of a row that nobody may change before this transaction ends.
    pub(super) fn for_share(&self) -> &'static str {
        match self.engine {
            Engine::Lite(_) => "",
            Engine::Postgres(_) => " FOR SHARE",
        }
    }

    /// The present in microseconds, as SQL. PostgreSQL's own, also late in a transaction: the clocks of replicas may differ.
    pub(super) fn now(&self) -> &'static str {
        match self.engine {
            Engine::Lite(_) => "(CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000)",
            Engine::Postgres(_) => "(SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT)",
        }
    }

    /// Like [`Tx::for_update`], passing over rows that somebody else holds.
    pub(super) fn skip_locked(&self) -> &'static str {
        match self.engine {
            Engine::Lite(_) => "",
            Engine::Postgres(_) => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// Serialises transactions of all replicas that name the same lock, until the end of this one.
    pub(crate) async fn lock(&mut self, name: &'static str) -> Result<()> {
        if let Engine::Postgres(t) = &mut self.engine {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))").bind(name).execute(&mut **t).await?;
        }
        Ok(())
    }
}

/// Begins a transaction, also if nobody waits for it any more: a client that hangs up drops its request's future at any
/// `await`. sqlx counts a transaction only once the server has confirmed it, so a `BEGIN` that is dropped half way is not
/// rolled back: the connection would go back to the pool within a transaction, and the next one to use it would inherit that.
async fn begin_whole(pool: &PgPool, statement: &'static str) -> Result<sqlx::Transaction<'static, Postgres>> {
    let pool = pool.clone();
    match tokio::spawn(async move { pool.begin_with(statement).await }.in_current_span()).await {
        Ok(begun) => Ok(begun?),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // The runtime ends, and with it everything else.
        Err(_) => Err(Error::Sql(sqlx::Error::PoolClosed)),
    }
}

async fn open_sqlite(data_dir: &Path, when: MigrateWhen, purpose: For) -> anyhow::Result<Pools> {
    let path = data_dir.join("aiops.db");
    let opening = || format!("opening the store in {}", path.display());
    let (options, write) = open_file(&path, "sql-state", purpose).await?;
    damage::refuse(&write, &path).await?;
    super::migrate::sqlite(&write, when).await.with_context(opening)?;
    let read = readers(options, 4).await.with_context(opening)?;
    let inbox = open_inbox(&data_dir.join("inbox.db"), &write, purpose).await?;
    let writer = Writer::open(&path, purpose).with_context(opening)?;
    write.close().await;
    let read_few = few(path, &writer, purpose);
    Ok(Pools::Lite { write: writer, read, read_few, inbox })
}

async fn open_inbox(path: &Path, state: &SqlitePool, purpose: For) -> anyhow::Result<LiteInbox> {
    let opening = || format!("opening the inbox in {}", path.display());
    let applied: i64 = sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(state).await?;
    let (options, write) = open_file(path, "sql-inbox", purpose).await?;
    damage::refuse(&write, path).await?;
    super::inbox_file::prepare(&write, applied).await.with_context(opening)?;
    let read = readers(options, 2).await.with_context(opening)?;
    let writer = Writer::open(path, purpose).with_context(opening)?;
    write.close().await;
    Ok(LiteInbox {
        read_few: few(path.to_owned(), &writer, purpose),
        write: writer,
        read,
        applied: Arc::new(applied.into()),
        trimmed: Arc::new(applied.into()),
    })
}

/// Who reads a few rows of a database file.
fn few(path: PathBuf, writer: &Writer, purpose: For) -> Readers {
    match purpose {
        For::Scratch => Readers::of(writer.clone()),
        For::Writing | For::Reading => Readers::new(path),
    }
}

/// The one writer of a database file, which is made if it is not there.
async fn open_file(
    path: &Path,
    thread: &'static str,
    purpose: For,
) -> anyhow::Result<(SqliteConnectOptions, SqlitePool)> {
    // Before it is opened: SQLite gives its -wal and -shm files the mode of the database.
    restrict(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match purpose {
            For::Scratch => SqliteSynchronous::Off,
            _ => SqliteSynchronous::Full,
        })
        .busy_timeout(inline::BUSY)
        .pragma("temp_store", "memory")
        .pragma("cache_size", format!("-{}", inline::WRITER_CACHE))
        .pragma("wal_autocheckpoint", inline::CHECKPOINT.to_string())
        .statement_cache_capacity(inline::STATEMENTS)
        .thread_name(move |_| thread.into());
    let write = lite_pool(1)
        .connect_with(options.clone())
        .await
        .map_err(|e| damage::or_refusal(path, e))
        .with_context(|| format!("opening the store in {}", path.display()))?;
    Ok((options, write))
}

async fn readers(options: SqliteConnectOptions, most: u32) -> sqlx::Result<SqlitePool> {
    let options = options
        .read_only(true)
        .pragma("cache_size", format!("-{}", inline::READER_CACHE))
        .thread_name(|_| "sql-read".into());
    lite_pool(most).min_connections(1).connect_with(options).await
}

/// A file does not hang up: its connections are not tried before each use.
fn lite_pool(most: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
}

/// The database holds alert texts and plans: only its owner reads it, from its first byte on.
pub(crate) fn restrict(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)))
        .with_context(|| format!("restricting {} to its owner", path.display()))
}

/// What the store's schema lacks, or has more than this program knows; changes nothing.
pub async fn standing(url: &str, data_dir: &Path) -> anyhow::Result<Standing> {
    if url.is_empty() {
        let path = data_dir.join("aiops.db");
        if !path.exists() {
            return Ok(Standing::of_nothing());
        }
        let options = SqliteConnectOptions::new().filename(&path).read_only(true);
        let opening = || format!("opening the store in {}", path.display());
        let pool = lite_pool(1).connect_with(options).await.with_context(opening)?;
        return super::migrate::standing_sqlite(&mut *pool.acquire().await?).await;
    }
    let (mut c, _) = connect_alone(&postgres_options(url)?).await?;
    super::migrate::standing_postgres(&mut c).await
}

fn postgres_options(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url);
    Ok(options
        .map_err(|e| anyhow::anyhow!("store.url is not a PostgreSQL URL: {e}"))?
        .application_name("aiops"))
}

/// One connection outside of the pool, without its limits, as soon as there is one; and where it leads.
async fn connect_alone(options: &PgConnectOptions) -> anyhow::Result<(PgConnection, String)> {
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let until = Instant::now() + Duration::from_secs(5);
    let connecting = async {
        loop {
            match PgConnection::connect_with(options).await.map_err(Error::from) {
                // It may just be starting.
                Err(e) if e.is_unavailable() && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                outcome => return outcome,
            }
        }
    };
    let connected = match tokio::time::timeout(Duration::from_secs(10), connecting).await {
        Ok(connected) => connected.map_err(anyhow::Error::from),
        Err(_) => Err(anyhow::anyhow!("no answer within 10 s")),
    };
    Ok((connected.with_context(|| format!("connecting to PostgreSQL at {place}"))?, place))
}

async fn open_postgres(url: &str, when: MigrateWhen) -> anyhow::Result<Pools> {
    let options = postgres_options(url)?;
    let (mut alone, place) = connect_alone(&options).await?;
    super::migrate::postgres(&mut alone, when)
        .await
        .with_context(|| format!("migrating PostgreSQL at {place}"))?;
    alone.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(|c, _| Box::pin(begin_session(c)))
        .before_acquire(|_, known| {
            let suspect = lock(&READ_ONLY_AT).is_some_and(|at| at.elapsed() < known.age);
            Box::pin(async move { Ok(!suspect) })
        })
        .connect_with(options)
        .await
        .with_context(|| format!("connecting to PostgreSQL at {place}"))?;
    Ok(Pools::Postgres(pool))
}

/// What a replica that is frozen or cut off leaves behind ends soon: nobody waits long for its locks. Refuses a standby: nothing
/// can be written there, and after a fail-over the address leads elsewhere.
async fn begin_session(c: &mut PgConnection) -> sqlx::Result<()> {
    const LIMITS: &str = "SET idle_in_transaction_session_timeout = '8s'; SET statement_timeout = '30s'; \
         SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
         SET tcp_user_timeout = '10s'";
    sqlx::raw_sql(LIMITS).execute(&mut *c).await?;
    let is_standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(c).await?;
    if is_standby {
        return Err(sqlx::Error::Configuration(
            "this PostgreSQL is a standby; store.url must lead to the primary".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn only_the_owner_reads_the_database_and_its_log_even_in_an_open_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
        let store = Store::open("", dir.path()).await.expect("opened");
        drop(store.read().await.expect("readable"));
        for name in ["aiops.db", "aiops.db-wal", "aiops.db-shm", "inbox.db", "inbox.db-wal", "inbox.db-shm"] {
            let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
