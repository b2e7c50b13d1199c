//! Maintenance windows and silences: whether people are told of an incident now, and when to look again.

use jiff::Timestamp;

use super::{At, Outcome, signal::Signal};
use crate::{
    clock,
    model::{AlertState, Incident, Labels, Stage},
    store::{
        Result, Tx, alerts,
        decisions::{self, About},
    },
};

/// What keeps a signal from being told.
struct Hold {
    clause: String,
    why: String,
    /// None: it ends when the settings change.
    until: Option<Timestamp>,
}

/// A maintenance window of the settings, else the silence that lasts longest.
fn hold(deps: &At<'_>, labels: &Labels, service: &str, now: Timestamp) -> Option<Hold> {
    let mut labels = labels.clone();
    labels.insert("service".into(), service.to_owned());
    if let Some(w) = deps.set.maintenance(&labels, now) {
        let why = format!("maintenance: {}", w.reason);
        return Some(Hold { clause: "correlate.maintenance".into(), why, until: w.until });
    }
    let silence = deps.silences.iter().filter(|s| s.covers(&labels, now)).max_by_key(|s| s.until)?;
    let clause = format!("silence {}", silence.short_id());
    Some(Hold { clause, why: silence.to_string(), until: Some(silence.until) })
}

/// An incident that opens (or reopens: `anew`) under a window or silence is not told until that ends, or a signal outside
/// joins. One that people know of already is not hidden from them.
pub(super) async fn suppress(
    deps: &At<'_>,
    tx: &mut Tx,
    i: &mut Incident,
    s: &Signal,
    anew: bool,
    out: &mut Outcome,
) -> Result<()> {
    match hold(deps, &s.labels, &s.service, clock::now()) {
        Some(hold) if anew || i.suppressed.is_some() => {
            let about = About::incident(&i.id);
            decisions::add(tx, Stage::Correlate, about, "suppressed", &hold.clause, &hold.why).await?;
            out.settle.extend(hold.until.map(|t| (i.id.clone(), t)));
            i.suppressed = Some(hold.why);
        }
        _ => {
            if let Some(was) = i.suppressed.take() {
                let why = format!("{} is not covered by what held it back ({was})", s.title);
                let about = About::incident(&i.id);
                decisions::add(tx, Stage::Correlate, about, "told", "a signal outside", &why).await?;
            }
        }
    }
    Ok(())
}

/// Lets go of an open incident if a signal of it that still goes on is held back by nothing any more; otherwise, when to look
/// again. A resolved one stays as it is: of what came and went in silence nobody is told.
pub(super) async fn look_again(deps: &At<'_>, tx: &mut Tx, i: &mut Incident) -> Result<Option<Timestamp>> {
    if i.suppressed.is_none() || !i.is_open() {
        return Ok(None);
    }
    let now = clock::now();
    let firing = alerts::of(tx, &i.id).await?.into_iter().filter(|a| a.state == AlertState::Firing);
    let mut signals: Vec<(Labels, String)> =
        firing.map(|a| (deps.set.service_of(&a.labels), a.labels)).map(|(s, l)| (l, s)).collect();
    if signals.is_empty() {
        // It was opened by anomalies.
        signals.push((Labels::new(), i.service.clone()));
    }
    let holds: Option<Vec<Hold>> = signals.iter().map(|(l, s)| hold(deps, l, s, now)).collect();
    let Some(mut holds) = holds else {
        let why = i.suppressed.take().unwrap_or_default();
        let why = format!("what held it back is over: {why}");
        decisions::add(tx, Stage::Correlate, About::incident(&i.id), "told", "its end", &why).await?;
        return Ok(None);
    };
    let until = holds.iter().filter_map(|h| h.until).min();
    i.suppressed = holds.pop().map(|h| h.why);
    Ok(until)
}
