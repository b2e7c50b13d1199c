//! Connections of SQLite that read a few rows on the thread of whoever asks.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Error, Result,
    inline::{For, Inline},
    writer::{Turn, Writer},
};

/// How many transactions read at a time: each runs on a thread of its own, and there are hardly more that are busy.
const AT_A_TIME: usize = 8;
/// How long a transaction waits for one of them to end, before it fails as if the store could not be reached.
const TURN: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub(super) enum Readers {
    File(Arc<Shared>),
    /// Of scratch: who writes it has the only connection, which reads in its turn. Others would read each page anew after each
    /// commit.
    Writer(Writer),
}

pub(super) struct Shared {
    file: PathBuf,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Inline>>,
}

impl Readers {
    pub fn new(file: PathBuf) -> Self {
        let free = Arc::new(Semaphore::new(AT_A_TIME));
        Self::File(Arc::new(Shared { file, free, idle: Mutex::default() }))
    }

    /// Over scratch.
    pub fn of(writer: Writer) -> Self {
        Self::Writer(writer)
    }

    /// Whether only they see what was written.
    pub fn are_alone(&self) -> bool {
        matches!(self, Self::Writer(_))
    }

    pub async fn begin(&self) -> Result<Look> {
        let shared = match self {
            Self::File(shared) => shared,
            Self::Writer(writer) => return Ok(Look::Turn(writer.begin(false).await?)),
        };
        let permit = tokio::time::timeout(TURN, shared.free.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Error::Sql(sqlx::Error::PoolTimedOut))?;
        let permit = permit.map_err(|_| Error::Sql(sqlx::Error::PoolClosed))?;
        let idle = shared.idle().pop();
        let mut connection = Box::new(match idle {
            Some(connection) => connection,
            None => Inline::open(&shared.file, For::Reading)?,
        });
        connection.run("BEGIN")?;
        Ok(Look::Own(Own { connection: Some(connection), shared: shared.clone(), _permit: permit }))
    }

    /// Waits for those under way.
    pub async fn close(&self) {
        let Self::File(shared) = self else { return };
        let all = u32::try_from(AT_A_TIME).unwrap_or(u32::MAX);
        let everybody_ended = shared.free.acquire_many(all).await;
        shared.idle().clear();
        drop(everybody_ended);
        shared.free.close();
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Inline>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that reads one snapshot; ends as it is dropped.
pub(super) enum Look {
    Own(Own),
    Turn(Turn),
}

/// A connection, given back as it is dropped.
pub(super) struct Own {
    /// Present until then.
    connection: Option<Box<Inline>>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Look {
    type Target = Inline;
    fn deref(&self) -> &Inline {
        match self {
            Self::Own(own) => own.connection.as_ref().expect("not dropped yet"),
            Self::Turn(turn) => turn,
        }
    }
}

impl DerefMut for Look {
    fn deref_mut(&mut self) -> &mut Inline {
        match self {
            Self::Own(own) => own.connection.as_mut().expect("not dropped yet"),
            Self::Turn(turn) => turn,
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that cannot even do this is not used again.
        if let Some(mut connection) = self.connection.take()
            && connection.run("ROLLBACK").is_ok()
        {
            self.shared.idle().push(*connection);
        }
    }
}
