//! Makes what was committed to a SQLite file durable, beside those who go on writing to it.
//!
//! Left to SQLite (`synchronous = FULL`), a commit waits for the disk while it keeps everybody else from writing. Here a commit only
//! reaches the write-ahead log; a thread of its own then syncs the log, once for all who have committed meanwhile, and only then
//! do they hear of it. Others may see sooner what was committed: what they make of it is written to the log after it, and so is
//! never durable without it. See <https://www.sqlite.org/wal.html>, "Performance Considerations".

use std::{fs::File, io, path::Path, sync::Arc, sync::mpsc};

use tokio::sync::oneshot;

/// Who waits for the disk, and hears whether it holds what he committed.
pub(super) type Told = oneshot::Sender<Result<(), Arc<sqlx::Error>>>;

/// The way to the thread, which ends when this is dropped and everybody has been told.
pub(super) struct Durable(mpsc::Sender<Vec<Told>>);

impl Durable {
    /// For the write-ahead log of the file at `path`, which is there as long as a connection has it open.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::syncing(File::options().write(true).open(log)?, format!("sync-{stem}"))
    }

    fn syncing(log: File, thread: String) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name(thread).spawn(move || sync(&log, &receiver))?;
        Ok(Self(sender))
    }

    /// Tells them when what is in the log now is on the disk.
    pub fn tell(&self, told: Vec<Told>) {
        if let Err(mpsc::SendError(told)) = self.0.send(told) {
            let gone = Arc::new(sqlx::Error::WorkerCrashed);
            told.into_iter().for_each(|t| drop(t.send(Err(gone.clone()))));
        }
    }
}

fn sync(log: &File, queue: &mpsc::Receiver<Vec<Told>>) {
    let mut broken: Option<Arc<sqlx::Error>> = None;
    while let Ok(first) = queue.recv() {
        let all: Vec<Told> = first.into_iter().chain(queue.try_iter().flatten()).collect();
        // The system forgets what it could not write, and says so once. What is written to the log behind that would be lost with
        // it, so nothing is durable any more until the file is opened anew.
        if broken.is_none()
            && let Err(error) = log.sync_data()
        {
            tracing::error!(%error, "the disk did not take what was written to the store; nothing is acknowledged until a restart");
            broken = Some(Arc::new(error.into()));
        }
        let outcome = broken.as_ref().map_or(Ok(()), |error| Err(error.clone()));
        for told in all {
            // One that is gone wanted to know no more.
            let _ = told.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits() -> (Told, oneshot::Receiver<Result<(), Arc<sqlx::Error>>>) {
        oneshot::channel()
    }

    #[tokio::test]
    async fn all_who_wait_are_told_also_when_it_ends() {
        let durable =
            Durable::syncing(tempfile::tempfile().expect("a file"), "sync".into()).expect("started");
        let (told, heard): (Vec<_>, Vec<_>) = (0..10).map(|_| waits()).unzip();
        durable.tell(told);
        let (last, last_heard) = waits();
        durable.tell(vec![last]);
        drop(durable);
        for heard in heard.into_iter().chain([last_heard]) {
            heard.await.expect("told").expect("a file can be synced");
        }
    }

    #[tokio::test]
    async fn after_a_failure_nothing_is_acknowledged_any_more() {
        // A pipe cannot be synced.
        let (_reader, writer) = io::pipe().expect("a pipe");
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let durable = Durable::syncing(pipe, "sync".into()).expect("started");
        for _ in 0..2 {
            let (told, heard) = waits();
            durable.tell(vec![told]);
            let error = heard.await.expect("told").expect_err("it is not on the disk");
            assert!(matches!(*error, sqlx::Error::Io(_)), "{error}");
        }
    }
}
