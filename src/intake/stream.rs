//! The ingest stream of Redis: JSON that other producers `XADD`, read by one replica and put on the bus as if it had come by
//! HTTP. What nobody can use goes to the dead-letter stream with the reason.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    logs, metrics as samples,
    telemetry::{self, BadBody, Counts, Kind, Limits, Parsed},
};
use crate::{
    bus::{Bus, Raw, Record, Redis},
    clock,
    config::Detect,
};

/// What reading the ingest stream needs.
#[derive(Clone)]
pub struct Deps {
    pub redis: Redis,
    pub bus: Arc<dyn Bus>,
    pub settings: Detect,
}

const IDLE: Duration = Duration::from_millis(100);
/// Bytes of one entry.
const MAX_BYTES: usize = 1 << 20;

/// Reads as `owner`, the only reader at this time, until cancelled.
pub async fn run(deps: Deps, owner: String, cancel: CancellationToken) {
    let mut ingest = deps.redis.ingest(&owner);
    while !cancel.is_cancelled() {
        let pause = match step(&deps, &mut ingest, &cancel).await {
            Ok(0) => IDLE,
            Ok(_) => continue,
            Err(e) => {
                tracing::debug!(error = %e, "the ingest stream cannot be read; trying again");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Works off what is there now; how many entries it was.
async fn step(
    deps: &Deps,
    ingest: &mut crate::bus::Ingest,
    cancel: &CancellationToken,
) -> redis::RedisResult<usize> {
    let entries = ingest.next().await?;
    let mut done = Vec::with_capacity(entries.len());
    for entry in &entries {
        match understand(entry, &deps.settings) {
            Ok(batch) => {
                if !publish(deps, batch, cancel).await {
                    break;
                }
                done.push(entry.id.clone());
            }
            Err(reason) => {
                crate::metrics::INTAKE_REJECTED.with_label_values(&[Kind::Stream.as_str()]).inc();
                ingest.bury(entry, &reason).await?;
            }
        }
    }
    ingest.done(&done).await?;
    Ok(entries.len())
}

fn understand(entry: &Raw, settings: &Detect) -> Result<Parsed<Record>, String> {
    let Some((field, body)) = &entry.body else {
        return Err("no field `log` or `metric` with JSON in it".into());
    };
    if body.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than {MAX_BYTES}", body.len()));
    }
    let limits = Limits::new(settings, clock::now());
    let parsed = match *field {
        "log" => logs::parse(body, "application/json", &limits).map(widen),
        _ => samples::parse(body, "application/json", &limits).map(widen),
    };
    let parsed = parsed.map_err(|e: BadBody| e.to_string())?;
    match (parsed.records.is_empty(), parsed.errors.first()) {
        (true, Some(error)) => Err(error.reason.clone()),
        (true, None) => Err("it is empty".into()),
        (false, _) => Ok(parsed),
    }
}

fn widen<T: Into<Record>>(parsed: Parsed<T>) -> Parsed<Record> {
    let Parsed { records, rejected, errors, replaced, cut } = parsed;
    Parsed { records: records.into_iter().map(Into::into).collect(), rejected, errors, replaced, cut }
}

/// Puts it on the bus, waiting for room; false if the program stops before there is any.
async fn publish(deps: &Deps, batch: Parsed<Record>, cancel: &CancellationToken) -> bool {
    let bus = telemetry::Deps { bus: deps.bus.clone() };
    loop {
        let Counts { dropped, .. } = telemetry::accept(&bus, Kind::Stream, batch.clone()).await;
        if dropped == 0 {
            return true;
        }
        tokio::select! {
            () = cancel.cancelled() => return false,
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}
