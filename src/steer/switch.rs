//! The global kill switch: while it is on, nothing is started, and what is under way is stopped within a second.

use serde_json::json;

use super::{Error, Result};
use crate::{
    clock,
    model::{Actor, JobKind, NewJob, Phrase, Said},
    store::{Tx, audit, flags, incidents, jobs},
};

/// Stops all automation, for all replicas.
pub async fn stop_automation(tx: &mut Tx, by: &Actor, reason: &str) -> Result<()> {
    if let Some(why) = is_stopped(tx).await? {
        return Err(Error::conflict(Phrase::AutomationIsAlready { stopped: why }));
    }
    let value = json!({ "by": by, "reason": reason, "at": clock::now() });
    flags::set(tx, flags::STOPPED, &value).await?;
    audit::add(tx, by, "automation.stop", "automation", &value).await?;
    Ok(())
}

/// Lets automation act again. Open incidents are decided about anew; runs that were stopped wait for an answer each.
pub async fn start_automation(tx: &mut Tx, by: &Actor) -> Result<()> {
    if is_stopped(tx).await?.is_none() {
        return Err(Error::conflict(Phrase::AutomationIsNotStopped {}));
    }
    flags::clear(tx, flags::STOPPED).await?;
    audit::add(tx, by, "automation.start", "automation", &json!({})).await?;
    let open = incidents::Filter { open_only: true, ..Default::default() };
    for incident in incidents::list(tx, &open, 1000, None).await?.items {
        let job = NewJob { kind: JobKind::Decide, subject: incident.id, run_at: clock::now() };
        jobs::enqueue(tx, &job).await?;
    }
    Ok(())
}

/// `stopped by … : reason`, while it is.
pub async fn is_stopped(tx: &mut Tx) -> Result<Option<Said>> {
    let Some(value) = flags::get(tx, flags::STOPPED).await? else { return Ok(None) };
    let phrase = match who_and_why(&value) {
        (by, None) => Phrase::StoppedBy { by },
        (by, Some(reason)) => Phrase::StoppedByFor { by, reason },
    };
    Ok(Some(phrase.into()))
}

/// From `{"by": …, "reason": …}`; an empty reason is none.
pub(super) fn who_and_why(value: &serde_json::Value) -> (String, Option<String>) {
    let by = serde_json::from_value::<Actor>(value["by"].clone())
        .map_or_else(|_| "somebody".into(), |a| a.to_string());
    (by, value["reason"].as_str().filter(|r| !r.is_empty()).map(str::to_owned))
}
