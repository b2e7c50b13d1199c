//! A pool of database connections, as far as a shop can tell: a fixed number, and a limit to how long one waits.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const WAIT: Duration = Duration::from_millis(250);

pub struct Pool {
    free: Arc<Semaphore>,
    size: usize,
}

/// Goes back to the pool when it is dropped.
pub struct Connection(OwnedSemaphorePermit);

/// Nobody gave one back in time.
pub struct Exhausted {
    in_use: usize,
    size: usize,
}

impl Pool {
    pub fn new(size: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(size)), size }
    }
    pub async fn take(&self) -> Result<Connection, Exhausted> {
        match tokio::time::timeout(WAIT, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Connection(permit)),
            _ => Err(Exhausted { in_use: self.in_use(), size: self.size }),
        }
    }
    pub fn in_use(&self) -> usize {
        self.size - self.free.available_permits()
    }
}

impl Connection {
    /// Never comes back.
    pub fn leak(self) {
        self.0.forget();
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_use, size } = self;
        write!(
            f,
            "database connection pool exhausted: {in_use} of {size} in use, none given back within 250 ms"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(pool: &Pool) -> Connection {
        pool.take().await.unwrap_or_else(|e| panic!("{e}"))
    }

    #[tokio::test]
    async fn leaked_connections_never_come_back() {
        let pool = Pool::new(2);
        taken(&pool).await.leak();
        drop(taken(&pool).await);
        assert_eq!(pool.in_use(), 1);
        taken(&pool).await.leak();
        let Err(e) = pool.take().await else { panic!("one is left") };
        assert_eq!(
            e.to_string(),
            "database connection pool exhausted: 2 of 2 in use, none given back within 250 ms"
        );
    }
}
