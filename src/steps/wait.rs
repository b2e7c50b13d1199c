//! Waits. Measured from the journal's time, so that a restart in between does not begin it anew.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Context, Ended, Outcome};
use crate::clock;

pub(super) async fn run(duration: Duration, context: &Context, stop: &CancellationToken) -> Outcome {
    let end = clock::after(context.started_at, duration);
    let text = format!("waited {}", humantime::format_duration(duration));
    tokio::select! {
        () = stop.cancelled() => Outcome::new(Ended::Stopped, "stopped while waiting"),
        () = tokio::time::sleep(clock::between(clock::now(), end)) => Outcome::succeeded(&text),
    }
}
