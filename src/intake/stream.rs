//! The ingest stream of Redis: JSON that other producers `XADD`, read by one replica and put on the bus as if it had come by
//! HTTP. What nobody can use goes to the dead-letter stream with the reason.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    logs, metrics as samples,
    telemetry::{self, BadBody, Kind, Limits, Parsed},
};
use crate::{
    bus::{Ingest, Published, Raw, Record, Redis},
    clock,
    config::Detect,
    search::{Logs, Picked},
};

/// What reading the ingest stream needs.
#[derive(Clone)]
pub struct Deps {
    pub redis: Redis,
    pub settings: Detect,
    /// Where lines are kept for search.
    pub logs: Logs,
}

const IDLE: Duration = Duration::from_millis(100);
/// Bytes of one entry.
const MAX_BYTES: usize = 1 << 20;

/// Reads as `owner`, the only reader at this time, until cancelled.
pub async fn run(deps: Deps, owner: String, cancel: CancellationToken) {
    let work = async {
        loop {
            // From what is pending, whatever happened before.
            let mut ingest = deps.redis.ingest(&owner);
            let failed = loop {
                match step(&deps, &mut ingest).await {
                    Ok(0) => tokio::time::sleep(IDLE).await,
                    Ok(_) => {}
                    Err(e) => break e,
                }
            };
            tracing::debug!(error = %failed, "the ingest stream cannot be read; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    // What was not done when it is cancelled comes again.
    let _cancelled = cancel.run_until_cancelled(work).await;
}

/// Works off what is there now; how many entries it was.
async fn step(deps: &Deps, ingest: &mut Ingest) -> redis::RedisResult<usize> {
    let entries = ingest.next().await?;
    let mut done = Vec::with_capacity(entries.len());
    for entry in &entries {
        match understand(entry, deps) {
            Ok((batch, picked)) => {
                while !deps.redis.offer(&batch.records) {
                    hand_over(deps, ingest, &mut done).await?;
                    tokio::time::sleep(IDLE).await;
                }
                let published = Published { taken: batch.records.len(), refused: 0 };
                telemetry::count(Kind::Stream, batch, published);
                picked.keep();
                done.push(entry.id.clone());
            }
            Err(reason) => {
                crate::metrics::INTAKE_REJECTED.with_label_values(&[Kind::Stream.as_str()]).inc();
                ingest.bury(entry, &reason).await?;
            }
        }
    }
    hand_over(deps, ingest, &mut done).await?;
    Ok(entries.len())
}

/// Takes entries off the ingest stream once they cannot be lost with this process; or when Redis has no memory for them where
/// they are to go, and has it again once they are gone from here.
async fn hand_over(deps: &Deps, ingest: &Ingest, done: &mut Vec<String>) -> redis::RedisResult<()> {
    deps.redis.flushed().await;
    ingest.done(done).await?;
    done.clear();
    Ok(())
}

fn understand(entry: &Raw, deps: &Deps) -> Result<(Parsed<Record>, Picked), String> {
    let Some((field, body)) = &entry.body else {
        return Err("no field `log` or `metric` with JSON in it".into());
    };
    if body.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than {MAX_BYTES}", body.len()));
    }
    let limits = Limits::new(&deps.settings, clock::now());
    let parsed = match *field {
        "log" => logs::parse(body, "application/json", &limits).map(|parsed| {
            let picked = deps.logs.pick(&parsed.records);
            (widen(parsed), picked)
        }),
        _ => samples::parse(body, "application/json", &limits).map(|p| (widen(p), Picked::default())),
    };
    let (parsed, picked) = parsed.map_err(|e: BadBody| e.to_string())?;
    match (parsed.records.is_empty(), parsed.errors.first()) {
        (true, Some(error)) => Err(error.reason.clone()),
        (true, None) => Err("it is empty".into()),
        (false, _) => Ok((parsed, picked)),
    }
}

fn widen<T: Into<Record>>(parsed: Parsed<T>) -> Parsed<Record> {
    let Parsed { records, rejected, errors, replaced, cut } = parsed;
    Parsed { records: records.into_iter().map(Into::into).collect(), rejected, errors, replaced, cut }
}
