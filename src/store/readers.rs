//! Connections of SQLite that read a few rows on the thread of whoever asks.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Error, Result,
    inline::{For, Inline},
};

/// How many transactions read at a time: each runs on a thread of its own, and there are hardly more that are busy.
const AT_A_TIME: usize = 8;
/// How long a transaction waits for one of them to end, before it fails as if the store could not be reached.
const TURN: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers(Arc<Shared>);

struct Shared {
    file: PathBuf,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Inline>>,
}

impl Readers {
    pub fn new(file: PathBuf) -> Self {
        Self(Arc::new(Shared { file, free: Arc::new(Semaphore::new(AT_A_TIME)), idle: Mutex::default() }))
    }

    pub async fn begin(&self) -> Result<Look> {
        let permit = tokio::time::timeout(TURN, self.0.free.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Error::Sql(sqlx::Error::PoolTimedOut))?;
        let permit = permit.map_err(|_| Error::Sql(sqlx::Error::PoolClosed))?;
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = Box::new(match idle {
            Some(connection) => connection,
            None => Inline::open(&self.0.file, For::Reading)?,
        });
        connection.run("BEGIN")?;
        Ok(Look { connection: Some(connection), readers: self.clone(), _permit: permit })
    }

    /// Waits for those under way.
    pub async fn close(&self) {
        let all = u32::try_from(AT_A_TIME).unwrap_or(u32::MAX);
        let everybody_ended = self.0.free.acquire_many(all).await;
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(everybody_ended);
        self.0.free.close();
    }
}

/// A transaction that reads one snapshot; ends as it is dropped.
pub(super) struct Look {
    /// Present until it is dropped.
    connection: Option<Box<Inline>>,
    readers: Readers,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Look {
    type Target = Inline;
    fn deref(&self) -> &Inline {
        self.connection.as_ref().expect("not dropped yet")
    }
}

impl DerefMut for Look {
    fn deref_mut(&mut self) -> &mut Inline {
        self.connection.as_mut().expect("not dropped yet")
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // One that cannot even do this is not used again.
        if let Some(mut connection) = self.connection.take()
            && connection.run("ROLLBACK").is_ok()
        {
            self.readers.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(*connection);
        }
    }
}
