//! Threads of our own beside the runtime's, for what must neither wait behind other work nor hold it up.

use std::future::Future;

use anyhow::Context;
use tokio::{runtime::Handle, sync::oneshot};

/// Runs a future on a thread of its own. What is received is what it returned; an error, if it panicked. Must be called on a
/// tokio runtime, whose timers and sockets it uses: what it opens is not tied to its thread.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl Future<Output = T> + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<T>> {
    let runtime = Handle::current();
    let (done, received) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = done.send(runtime.block_on(run));
    });
    thread.with_context(|| format!("starting the thread {name}"))?;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_runs_elsewhere_and_tells_how_it_ended() {
        let name = || std::thread::current().name().map(str::to_owned);
        let there = spawn("apart", async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            name()
        });
        assert_eq!(there.expect("started").await.expect("it returned").as_deref(), Some("apart"));
        assert!(spawn("apart", async { panic!("on purpose") }).expect("started").await.is_err());
    }
}
