//! Silences: made for a while, ended early.

use jiff::Timestamp;
use serde_json::json;

use super::{Error, Result};
use crate::{
    clock, ids,
    model::{Actor, JobKind, Matchers, NewJob, Phrase, Silence},
    store::{Tx, audit, incidents, jobs, silences},
};

/// Holds messages back about alerts that fit all of `matches`, until `until`.
pub async fn silence(
    tx: &mut Tx,
    matches: Matchers,
    until: Timestamp,
    reason: &str,
    by: &Actor,
) -> Result<Silence> {
    let silence = Silence {
        id: ids::new(),
        matches,
        reason: reason.to_owned(),
        by: by.clone(),
        created_at: clock::now(),
        until,
    };
    silences::insert(tx, &silence).await?;
    let detail = json!({ "matches": silence.matches, "until": until, "reason": reason });
    audit::add(tx, by, "silence.create", &format!("silence:{}", silence.id), &detail).await?;
    Ok(silence)
}

/// Ends a silence now, by its id or the last characters of it. Whatever was held back is looked at again at once.
pub async fn expire_silence(tx: &mut Tx, id: &str, by: &Actor) -> Result<Silence> {
    let Some(mut silence) = silences::find(tx, id).await? else {
        return Err(Error::not_found(Phrase::NoSilence { id: id.to_owned() }));
    };
    let now = clock::now();
    if !silences::end(tx, &silence.id, now).await? {
        return Err(Error::conflict(Phrase::SilenceIsOver { id: silence.short_id().to_owned() }));
    }
    silence.until = now;
    audit::add(tx, by, "silence.expire", &format!("silence:{}", silence.id), &json!({})).await?;
    for id in incidents::suppressed(tx).await? {
        jobs::enqueue(tx, &NewJob { kind: JobKind::Settle, subject: id, run_at: now }).await?;
    }
    Ok(silence)
}
