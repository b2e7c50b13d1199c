//! The one writer of a SQLite file, shared by everybody who writes: those who wait for each other anyway share a commit.
//!
//! A file has one writer, and each commit of it costs. So a transaction is a savepoint within a transaction of the file; it is
//! committed together with those that were waiting behind it when it ended, and every one of them hears of its end only when the
//! disk has it. One that is rolled back takes nothing of the others with it.

use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    task::spawn_blocking,
};

use super::{
    Error, Result,
    durable::{Durable, Told},
    inline::{self, For, Inline},
};

/// How long a transaction waits for its turn, before it fails as if the store could not be reached.
const TURN: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// First come, first served: whoever ends and waits for others comes after all that waited at that moment.
    file: Arc<Mutex<Option<File>>>,
    waiting: AtomicUsize,
}

struct File {
    connection: Inline,
    /// A transaction of the file is open.
    open: bool,
    /// The last savepoint was left by somebody who did not say how it ends: it is to be rolled back.
    left: bool,
    /// Who has ended in the open transaction and waits for its commit.
    ended: Vec<Told>,
    /// Why the last transaction of the file did not begin.
    refused: Option<sqlx::Error>,
    /// None for scratch: nobody needs it after a crash, and nobody else looks at it, so nothing is committed at all.
    durable: Option<Durable>,
    /// Pages of the log after the last commit, and at how many it is to be written back.
    logged: i32,
    write_back_at: i32,
}

impl Writer {
    /// Of a file that is there and has its schema.
    pub fn open(path: &Path, purpose: For) -> anyhow::Result<Self> {
        let connection = Inline::open(path, purpose)?;
        let file = File {
            connection,
            open: false,
            left: false,
            ended: Vec::new(),
            refused: None,
            durable: if purpose == For::Scratch { None } else { Some(Durable::of(path)?) },
            logged: 0,
            write_back_at: inline::CHECKPOINT,
        };
        Ok(Self::over(path, Some(file)))
    }

    /// Of a file that is only read: every transaction is refused.
    pub fn none() -> Self {
        Self::over(Path::new(""), None)
    }

    fn over(path: &Path, file: Option<File>) -> Self {
        let (path, file) = (path.to_owned(), Arc::new(Mutex::new(file)));
        Self(Arc::new(Shared { path, file, waiting: AtomicUsize::new(0) }))
    }

    /// Waits for a turn and begins a transaction. A long one has those who ended before it commit first, lest they wait for it.
    pub async fn begin(&self, long: bool) -> Result<Turn> {
        let waits = Waits::new(&self.0.waiting);
        let lock = self.0.file.clone().lock_owned();
        let mut guard =
            tokio::time::timeout(TURN, lock).await.map_err(|_| Error::Sql(sqlx::Error::PoolTimedOut))?;
        drop(waits);
        let file = guard.as_mut().ok_or(Error::Sql(sqlx::Error::PoolClosed))?;
        file.clean_up();
        if long && !file.is_scratch() {
            self.commit(file);
        }
        let mut file = file;
        if !file.open {
            // Another process has the file for a moment: a backup, or somebody with a shell.
            file.open = file.connection.try_begin_immediate()?;
            if !file.open {
                guard = apart(guard, File::begin).await?;
                file = guard.as_mut().ok_or(Error::Sql(sqlx::Error::PoolClosed))?;
                if let Some(error) = file.refused.take() {
                    return Err(error.into());
                }
            }
        }
        // Whoever drops this from here on leaves something to be rolled back.
        file.left = true;
        if let Err(error) = file.connection.run("SAVEPOINT turn") {
            return Err(Error::Together(file.fail(error)));
        }
        Ok(Turn { guard: Some(guard), writer: self.clone() })
    }

    /// Ends what waits for a commit, then closes the file.
    pub async fn close(&self) {
        let mut guard = self.0.file.lock().await;
        if let Some(mut file) = guard.take() {
            if !file.is_scratch() {
                file.settle();
            }
            if let Err(error) = file.connection.close() {
                tracing::warn!(%error, "closing the store");
            }
        }
    }
}

type Guard = OwnedMutexGuard<Option<File>>;

/// Does what may wait for the disk, or for another process, on a thread that may wait; to its end, also if nobody waits for it
/// any more.
async fn apart(mut guard: Guard, what: fn(&mut File)) -> Result<Guard> {
    let done = spawn_blocking(move || {
        if let Some(file) = guard.as_mut() {
            what(file);
        }
        guard
    });
    match done.await {
        Ok(guard) => Ok(guard),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // The runtime ends, and with it everything else.
        Err(_) => Err(Error::Sql(sqlx::Error::PoolClosed)),
    }
}

/// Counts one who waits for a turn, also if he gives up.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A transaction. Dropped without [`Turn::commit`] it is rolled back.
pub(super) struct Turn {
    /// Present until it ends; the file is there as long as somebody has a turn.
    guard: Option<Guard>,
    writer: Writer,
}

impl Turn {
    /// Makes it durable, together with those that wait for their turn now. That goes on if nobody waits for it any more.
    pub async fn commit(mut self) -> Result<()> {
        let (told, mut durable) = oneshot::channel();
        let Some(mut guard) = self.guard.take() else { return Ok(()) };
        let writer = self.writer.clone();
        let file = guard.as_mut().expect("open while somebody has a turn");
        file.left = false;
        if file.is_scratch() {
            let released = file.connection.run("RELEASE turn");
            return released.map_err(|error| Error::Together(file.fail(error)));
        }
        file.ended.push(told);
        let closed = || Err(Arc::new(sqlx::Error::PoolClosed));
        let outcome = if writer.0.waiting.load(Ordering::Relaxed) == 0 {
            writer.commit(file);
            drop(guard);
            durable.await.unwrap_or_else(|_| closed())
        } else {
            if let Err(error) = file.connection.run("RELEASE turn") {
                file.fail(error);
            }
            drop(guard);
            // Unless one of those who were waiting does so before: the first who comes round again commits for all.
            let outcome = tokio::spawn(async move {
                tokio::select! {
                    biased;
                    outcome = &mut durable => return outcome.unwrap_or_else(|_| closed()),
                    guard = writer.0.file.clone().lock_owned() => writer.settle(guard),
                }
                durable.await.unwrap_or_else(|_| closed())
            });
            match outcome.await {
                Ok(outcome) => outcome,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                // The runtime ends, and with it everything else.
                Err(_) => closed(),
            }
        };
        outcome.map_err(Error::Together)
    }
}

impl Writer {
    /// Commits for everybody who ended; has the log written back if it has grown.
    fn commit(&self, file: &mut File) {
        if !file.commit() {
            return;
        }
        let writer = self.clone();
        tokio::spawn(async move {
            if let Err(error) = writer.write_back().await {
                tracing::warn!(%error, path = %writer.0.path.display(), "writing the store's log back; it grows until that works");
            }
        });
    }

    /// Ends what others have left or have ended in.
    fn settle(&self, mut guard: Guard) {
        if let Some(file) = guard.as_mut() {
            file.clean_up();
            self.commit(file);
        }
    }

    /// Writes the log back into the file: most of it while others write, the rest, which is little then, while they wait.
    async fn write_back(&self) -> Result<()> {
        let path = self.0.path.clone();
        let most = spawn_blocking(move || inline::checkpoint(&path));
        most.await.map_err(|_| Error::Sql(sqlx::Error::WorkerCrashed))??;
        drop(apart(self.0.file.clone().lock_owned().await, File::restart_log).await?);
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Rolled back by whoever comes next; if nobody does, by us: an open transaction would keep the file's log from being
        // written back.
        let Some(guard) = self.guard.take() else { return };
        let is_scratch = guard.as_ref().is_some_and(File::is_scratch);
        drop(guard);
        if let (false, Ok(runtime)) = (is_scratch, tokio::runtime::Handle::try_current()) {
            let writer = self.writer.clone();
            runtime.spawn(async move { writer.settle(writer.0.file.clone().lock_owned().await) });
        }
    }
}

impl Deref for Turn {
    type Target = Inline;
    fn deref(&self) -> &Inline {
        &self.guard.as_deref().and_then(Option::as_ref).expect("not ended yet").connection
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Inline {
        &mut self.guard.as_deref_mut().and_then(Option::as_mut).expect("not ended yet").connection
    }
}

impl File {
    fn is_scratch(&self) -> bool {
        self.durable.is_none()
    }

    /// Begins a transaction of the file; waits for another process.
    fn begin(&mut self) {
        self.refused = self.connection.run("BEGIN IMMEDIATE").err();
        self.open = self.refused.is_none();
    }

    /// Rolls back what somebody left. If that does not go, the engine has rolled back everything by itself (a full disk):
    /// those who had ended hear so.
    fn clean_up(&mut self) {
        if std::mem::take(&mut self.left) {
            let back = self.connection.run("ROLLBACK TO turn");
            if let Err(error) = back.and_then(|()| self.connection.run("RELEASE turn")) {
                self.fail(error);
            }
        }
    }

    /// Ends what others have left or have ended in.
    fn settle(&mut self) {
        self.clean_up();
        self.commit();
    }

    /// Commits the open transaction, its last savepoint included; whoever ended in it hears of it when the disk has it. True if
    /// it is time to write the log back.
    fn commit(&mut self) -> bool {
        if !self.open {
            return false;
        }
        match self.connection.commit() {
            Ok(logged) => {
                self.open = false;
                let told = std::mem::take(&mut self.ended);
                match &self.durable {
                    Some(durable) if logged.is_some() => durable.tell(told),
                    _ => told.into_iter().for_each(|told| drop(told.send(Ok(())))),
                }
                let Some(logged) = logged else { return false };
                if logged < self.logged {
                    self.write_back_at = inline::CHECKPOINT;
                }
                self.logged = logged;
                let is_long = logged >= self.write_back_at;
                if is_long {
                    self.write_back_at = logged + inline::CHECKPOINT;
                }
                is_long
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    /// Has whoever writes next begin the log anew.
    fn restart_log(&mut self) {
        self.settle();
        match self.connection.restart_log() {
            Ok(true) => {}
            // Somebody reads from it for long: sooner than after as much again.
            Ok(false) => self.write_back_at = self.logged + inline::CHECKPOINT / 4,
            Err(error) => tracing::warn!(%error, "writing the rest of the store's log back"),
        }
    }

    /// Rolls everything back and tells everybody who ended in it why.
    fn fail(&mut self, error: sqlx::Error) -> Arc<sqlx::Error> {
        // This fails where the engine has done so by itself.
        let _ = self.connection.run("ROLLBACK");
        (self.open, self.left) = (false, false);
        let error = Arc::new(error);
        for told in self.ended.drain(..) {
            let _ = told.send(Err(error.clone()));
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::readers::Readers;
    use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

    async fn writer() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = SqliteConnectOptions::new().filename(dir.path().join("w.db")).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
        connection.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER)").await.expect("made");
        connection.close().await.expect("closed");
        let writer = Writer::open(&dir.path().join("w.db"), For::Writing).expect("opens");
        (dir, writer)
    }

    async fn insert(turn: &mut Turn, x: i64) {
        sqlx::query("INSERT INTO t VALUES ($1)").bind(x).execute(&mut **turn).await.expect("inserted");
    }

    /// What another connection sees.
    async fn seen(dir: &tempfile::TempDir) -> Vec<i64> {
        let options = SqliteConnectOptions::new().filename(dir.path().join("w.db")).read_only(true);
        let mut other = SqliteConnection::connect_with(&options).await.expect("opens");
        sqlx::query_scalar("SELECT x FROM t ORDER BY x").fetch_all(&mut other).await.expect("read")
    }

    async fn until_waiting(writer: &Writer, count: usize) {
        while writer.0.waiting.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_wait_share_a_commit_and_a_rolled_back_one_takes_nobody_with_it() {
        let (dir, writer) = writer().await;
        let mut first = writer.begin(false).await.expect("begins");
        insert(&mut first, 0).await;
        let others: Vec<_> = (1..=10)
            .map(|x| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    let mut turn = writer.begin(false).await.expect("begins");
                    insert(&mut turn, x).await;
                    if x % 5 == 0 { drop(turn) } else { turn.commit().await.expect("commits") }
                })
            })
            .collect();
        until_waiting(&writer, 10).await;
        first.commit().await.expect("commits");
        for other in others {
            other.await.expect("ends");
        }
        assert_eq!(seen(&dir).await, [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    }

    #[tokio::test]
    async fn of_scratch_only_its_own_readers_see_what_ended_and_nothing_of_what_was_dropped() {
        let (dir, durable) = writer().await;
        durable.close().await;
        let writer = Writer::open(&dir.path().join("w.db"), For::Scratch).expect("opens");
        let readers = Readers::of(writer.clone());
        for x in 1..=4 {
            let mut turn = writer.begin(x == 2).await.expect("begins");
            insert(&mut turn, x).await;
            if x % 2 == 0 {
                drop(turn)
            } else {
                turn.commit().await.expect("ends")
            }
            let mut look = readers.begin().await.expect("begins");
            let all: Vec<i64> =
                sqlx::query_scalar("SELECT x FROM t ORDER BY x").fetch_all(&mut *look).await.expect("read");
            assert_eq!(all, [1, 3][..usize::try_from(x).expect("small").div_ceil(2)]);
        }
        assert_eq!(seen(&dir).await, [] as [i64; 0], "nothing is committed");
        writer.close().await;
    }

    #[tokio::test]
    async fn nobody_hears_of_a_commit_before_others_can_see_it() {
        let (dir, writer) = writer().await;
        let first = writer.begin(false).await.expect("begins");
        let tasks: Vec<_> = (0..20)
            .map(|x| {
                let (writer, dir) = (writer.clone(), dir.path().to_owned());
                tokio::spawn(async move {
                    let mut turn = writer.begin(x % 7 == 0).await.expect("begins");
                    insert(&mut turn, x).await;
                    turn.commit().await.expect("commits");
                    let options = SqliteConnectOptions::new().filename(dir.join("w.db")).read_only(true);
                    let mut other = SqliteConnection::connect_with(&options).await.expect("opens");
                    let mine = sqlx::query_scalar("SELECT COUNT(*) FROM t WHERE x = $1").bind(x);
                    let count: i64 = mine.fetch_one(&mut other).await.expect("read");
                    assert_eq!(count, 1, "{x} was told too early");
                })
            })
            .collect();
        until_waiting(&writer, 20).await;
        first.commit().await.expect("commits");
        for task in tasks {
            task.await.expect("seen");
        }
    }

    #[tokio::test]
    async fn one_who_ends_is_committed_though_those_behind_give_up() {
        let (dir, writer) = writer().await;
        let mut first = writer.begin(false).await.expect("begins");
        insert(&mut first, 1).await;
        let behind = tokio::spawn({
            let writer = writer.clone();
            async move { drop(writer.begin(false).await) }
        });
        until_waiting(&writer, 1).await;
        let ending = tokio::spawn(first.commit());
        behind.abort();
        ending.await.expect("ends").expect("commits");
        assert_eq!(seen(&dir).await, [1]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_committed_or_rolled_back_all_the_same() {
        let (dir, writer) = writer().await;
        let mut turn = writer.begin(false).await.expect("begins");
        insert(&mut turn, 1).await;
        let behind = tokio::spawn({
            let writer = writer.clone();
            async move {
                let mut turn = writer.begin(false).await.expect("begins");
                insert(&mut turn, 2).await;
            }
        });
        until_waiting(&writer, 1).await;
        // Polled once, then dropped: as the future of a request whose client has gone.
        let mut commit = Box::pin(turn.commit());
        assert!(futures_util::poll!(&mut commit).is_pending());
        drop(commit);
        behind.await.expect("ends");
        while seen(&dir).await != [1] {
            tokio::task::yield_now().await;
        }
        while writer.0.file.lock().await.as_ref().is_some_and(|file| file.open) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_who_gives_up_waiting_for_another_process_leaves_the_file_usable() {
        let (dir, writer) = writer().await;
        let options = SqliteConnectOptions::new().filename(dir.path().join("w.db"));
        let mut other = SqliteConnection::connect_with(&options).await.expect("opens");
        other.execute("BEGIN IMMEDIATE").await.expect("held");
        let waits = tokio::spawn({
            let writer = writer.clone();
            async move { drop(writer.begin(false).await) }
        });
        while writer.0.file.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        waits.abort();
        other.execute("ROLLBACK").await.expect("given back");
        for x in 1..=2 {
            let mut turn = writer.begin(false).await.expect("begins");
            insert(&mut turn, x).await;
            turn.commit().await.expect("commits");
        }
        assert_eq!(seen(&dir).await, [1, 2]);
    }

    #[tokio::test]
    async fn if_the_engine_rolls_all_back_all_hear_so_and_the_next_begins_anew() {
        let (dir, writer) = writer().await;
        let mut first = writer.begin(false).await.expect("begins");
        insert(&mut first, 1).await;
        let second = tokio::spawn({
            let writer = writer.clone();
            async move {
                let mut turn = writer.begin(false).await.expect("begins");
                // As on a full disk.
                turn.run("ROLLBACK").expect("rolled back");
                turn.commit().await
            }
        });
        until_waiting(&writer, 1).await;
        assert!(first.commit().await.is_err());
        assert!(second.await.expect("ends").is_err());
        let mut third = writer.begin(false).await.expect("begins");
        insert(&mut third, 3).await;
        third.commit().await.expect("commits");
        assert_eq!(seen(&dir).await, [3]);
        writer.close().await;
        assert!(writer.begin(false).await.is_err());
    }
}
