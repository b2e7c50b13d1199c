//! Maintenance windows and silences: whether people are told of an incident now, and when to look again.

use jiff::Timestamp;

use super::{batch::Batch, signal::Signal};
use crate::{
    model::{AlertState, Labels},
    store::{Result, Tx, alerts, decisions::About},
};

/// What keeps a signal from being told.
struct Hold {
    clause: String,
    why: String,
    /// None: it ends when the settings change.
    until: Option<Timestamp>,
}

/// A maintenance window of the settings, else the silence that lasts longest.
fn hold(batch: &Batch<'_>, labels: &Labels, service: &str) -> Option<Hold> {
    if batch.set.maintenance.is_empty() && batch.silences.is_empty() {
        return None;
    }
    let now = batch.now;
    let mut labels = labels.clone();
    labels.insert("service".into(), service.to_owned());
    if let Some(w) = batch.set.maintenance(&labels, now) {
        let why = format!("maintenance: {}", w.reason);
        return Some(Hold { clause: "correlate.maintenance".into(), why, until: w.until });
    }
    let silence = batch.silences.iter().filter(|s| s.covers(&labels, now)).max_by_key(|s| s.until)?;
    let clause = format!("silence {}", silence.short_id());
    Some(Hold { clause, why: silence.to_string(), until: Some(silence.until) })
}

/// An incident that opens (or reopens: `anew`) under a window or silence is not told until that ends, or a signal outside
/// joins. One that people know of already is not hidden from them.
pub(super) fn suppress(batch: &mut Batch<'_>, id: &str, s: &Signal, anew: bool) {
    let was = batch.incident(id).and_then(|i| i.suppressed.clone());
    match hold(batch, &s.labels, &s.service) {
        Some(hold) if anew || was.is_some() => {
            batch.decide(About::incident(id), "suppressed", &hold.clause, hold.why.as_str());
            batch.out.settle.extend(hold.until.map(|t| (id.to_owned(), t)));
            batch.change(id, |i| i.suppressed = Some(hold.why));
        }
        _ => {
            if let Some(was) = was {
                let why = format!("{} is not covered by what held it back ({was})", s.title);
                batch.decide(About::incident(id), "told", "a signal outside", why);
                batch.change(id, |i| i.suppressed = None);
            }
        }
    }
}

/// Lets go of an open incident if a signal of it that still goes on is held back by nothing any more; otherwise, when to look
/// again. A resolved one stays as it is: of what came and went in silence nobody is told.
pub(super) async fn look_again(batch: &mut Batch<'_>, tx: &mut Tx, id: &str) -> Result<Option<Timestamp>> {
    let Some(i) = batch.incident(id).filter(|i| i.suppressed.is_some() && i.is_open()) else {
        return Ok(None);
    };
    let (was, service) = (i.suppressed.clone().unwrap_or_default(), i.service.clone());
    let firing = alerts::of(tx, id, 1000).await?.into_iter().filter(|a| a.state == AlertState::Firing);
    let mut signals: Vec<(Labels, String)> =
        firing.map(|a| (batch.set.service_of(&a.labels), a.labels)).map(|(s, l)| (l, s)).collect();
    if signals.is_empty() {
        // It was opened by anomalies.
        signals.push((Labels::new(), service));
    }
    let holds: Option<Vec<Hold>> = signals.iter().map(|(l, s)| hold(batch, l, s)).collect();
    let Some(mut holds) = holds else {
        batch.decide(About::incident(id), "told", "its end", format!("what held it back is over: {was}"));
        batch.change(id, |i| i.suppressed = None);
        return Ok(None);
    };
    let until = holds.iter().filter_map(|h| h.until).min();
    let why = holds.pop().map(|h| h.why);
    batch.change(id, |i| i.suppressed = why);
    Ok(until)
}
