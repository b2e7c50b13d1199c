//! An incident's life: it opens, signals join, it resolves when they do, it reopens, it flaps.

use jiff::Timestamp;

use super::{Deps, batch::Batch, quiet, signal::Signal};
use crate::{
    clock, ids, metrics,
    model::{Anomaly, Incident, IncidentState, Phrase, Seconds, TimelineKind, Times},
    store::{Result, Tx, decisions::About},
};

/// Finds the incident that the signal belongs to, reopens one, or opens one; its id.
pub(super) fn admit(batch: &mut Batch<'_>, s: &Signal) -> String {
    let (id, outcome, clause, why) = match place(batch, s) {
        Place::Join(id, clause, why) => (id, "attached", clause, why),
        Place::Reopen(id, clause, why) => {
            reopen(batch, &id);
            (id, "reopened", clause, why)
        }
        Place::Open(clause, why) => (open(batch, s), "opened", clause, why),
    };
    let about = About { fingerprint: s.fingerprint.as_deref(), incident_id: Some(&id) };
    batch.decide(about, outcome, clause, why);
    batch.change(&id, |incident| {
        if incident.alert_count == 0 && s.fingerprint.is_some() {
            // A rule that somebody wrote says better what broke than the anomaly that opened the incident.
            incident.title.clone_from(&s.title);
            incident.service.clone_from(&s.service);
        }
        incident.severity = incident.severity.max(s.severity);
        incident.started_at = incident.started_at.min(s.started_at);
        incident.last_signal_at = incident.last_signal_at.max(s.started_at);
    });
    quiet::suppress(batch, &id, s, outcome != "attached");
    batch.touch(&id);
    adopt_anomalies(batch, &id, s);
    if batch.incident(&id).is_some_and(|i| !i.flapping) {
        batch.out.diagnose.push(id.clone());
    }
    id
}

/// By the incident's id.
enum Place {
    Join(String, &'static str, String),
    Reopen(String, &'static str, String),
    Open(&'static str, String),
}

fn place(batch: &Batch<'_>, s: &Signal) -> Place {
    let (set, now) = (batch.set, batch.now);
    if let Some(incident) = s.previous_incident.as_deref().and_then(|id| batch.incident(id)) {
        let id = incident.id.clone();
        if incident.is_open() {
            return Place::Join(id, "same alert", "it belongs to this incident already".into());
        }
        let since = clock::between(incident.resolved_at.unwrap_or(now), now);
        if since <= set.reopen_within {
            let why = format!("it fires again {} s after the incident was resolved", since.as_secs());
            return Place::Reopen(id, "correlate.reopen_within", why);
        }
    }
    let window = set.window.as_secs();
    if let Some(incident) = find_open(batch, &s.service, s.started_at) {
        let id = incident.id.clone();
        if incident.service == s.service {
            let why =
                format!("an incident of {} is open and its last signal is within {window} s", s.service);
            return Place::Join(id, "correlate.window", why);
        }
        let why = format!("{} is a neighbour of {}, whose incident is open", s.service, incident.service);
        return Place::Join(id, "correlate.topology", why);
    }
    let since = clock::before(now, set.window);
    let resolved = batch.incidents_of(&s.service).filter(|i| !i.is_open() && i.resolved_at >= Some(since));
    if let Some(incident) = resolved.max_by_key(|i| i.resolved_at) {
        let why = format!("the incident of {} was resolved less than {window} s ago", s.service);
        return Place::Reopen(incident.id.clone(), "correlate.window", why);
    }
    let why = format!("no incident of {} or its neighbours is open within {window} s", s.service);
    Place::Open("correlate.window", why)
}

/// The open incident of this service, else of a neighbour, whose signals are close in time; of several the one that changed
/// last.
pub(super) fn find_open<'b>(
    batch: &'b Batch<'_>,
    service: &str,
    started_at: Timestamp,
) -> Option<&'b Incident> {
    let window = batch.set.window;
    let near = |i: &&Incident| {
        i.is_open()
            && clock::before(i.started_at, window) <= started_at
            && started_at <= clock::after(i.last_signal_at, window)
    };
    let newest = |service: &str| batch.incidents_of(service).filter(near).max_by_key(|i| i.updated_at);
    newest(service).or_else(|| batch.neighbours(service).iter().find_map(|n| newest(n)))
}

fn open(batch: &mut Batch<'_>, s: &Signal) -> String {
    let now = batch.now;
    let id = ids::new();
    batch.add_incident(Incident {
        id: id.clone(),
        state: IncidentState::Open,
        severity: s.severity,
        title: s.title.clone(),
        service: s.service.clone(),
        started_at: s.started_at,
        opened_at: now,
        updated_at: now,
        last_signal_at: s.started_at,
        resolved_at: None,
        alert_count: 0,
        firing_count: 0,
        version: 0,
        episode: 1,
        flapping: false,
        suppressed: None,
        acknowledged_by: None,
        resolved_by: None,
    });
    batch.tell(
        &id,
        TimelineKind::Opened,
        Phrase::OfService { service: s.service.clone(), what: s.title.clone() },
    );
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Open.as_str()]).inc();
    tracing::info!(incident.id = %id, service = %s.service, severity = %s.severity, title = %s.title, "incident opened");
    id
}

fn reopen(batch: &mut Batch<'_>, id: &str) {
    batch.change(id, |i| {
        i.state = IncidentState::Open;
        i.resolved_at = None;
        i.resolved_by = None;
        i.acknowledged_by = None;
        i.episode += 1;
    });
    flip(batch, id);
    batch.owe(id);
    batch.tell(id, TimelineKind::Reopened, Phrase::FiresAgain {});
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Open.as_str()]).inc();
    if let Some(i) = batch.incident(id) {
        tracing::info!(incident.id = %id, episode = i.episode, flapping = i.flapping, "incident reopened");
    }
}

/// Counts an opening or a resolution; too many of them in a short time make the incident flapping: its state goes on
/// following its alerts, but people are told only when it has been quiet for a while.
fn flip(batch: &mut Batch<'_>, id: &str) {
    let (set, now) = (batch.set, batch.now);
    let since = clock::before(now, set.flap_within);
    let recent = batch.flip(id).iter().filter(|t| **t >= since).count();
    if recent < set.flap_count as usize {
        return;
    }
    batch.out.settle.push((id.to_owned(), clock::after(now, set.flap_quiet)));
    if batch.incident(id).is_none_or(|i| i.flapping) {
        return;
    }
    batch.change(id, |i| i.flapping = true);
    let why = format!("it opened or resolved {recent} times within {} s", set.flap_within.as_secs());
    let seconds = |d: std::time::Duration| Seconds(d.as_secs() as i64);
    let text = Phrase::Flapping {
        times: Times(recent as i64),
        within: seconds(set.flap_within),
        quiet: seconds(set.flap_quiet),
    };
    batch.tell(id, TimelineKind::Flapping, text);
    batch.decide(About::incident(id), "flapping", "correlate.flap_count", why);
}

/// Anomalies that were found before the alert and waited for an incident to belong to.
fn adopt_anomalies(batch: &mut Batch<'_>, id: &str, s: &Signal) {
    let window = batch.set.window;
    let from = clock::before(s.started_at, window);
    let near = std::iter::once(&s.service).chain(batch.neighbours(&s.service));
    let mut waiting: Vec<Anomaly> = near
        .flat_map(|service| batch.anomalies_of(service))
        .filter(|a| a.incident_id.is_none() && a.started_at >= from)
        .cloned()
        .collect();
    waiting.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    for anomaly in waiting {
        batch.tell(id, TimelineKind::AnomalyFound, &anomaly.title);
        let why = format!("found in {} within {} s before", anomaly.service, window.as_secs());
        let about = About { fingerprint: Some(&anomaly.key), incident_id: Some(id) };
        batch.decide(about, "attached", "correlate.window", why);
        batch.save_anomaly(Anomaly { incident_id: Some(id.to_owned()), ..anomaly });
    }
}

/// Resolves an incident when nothing of it goes on: no alert fires, or, if it never had one, no anomaly lasts.
pub(super) fn resolve_if_over(batch: &mut Batch<'_>, id: &str, why: Phrase) {
    let Some(i) = batch.incident(id) else { return };
    if !i.is_open() {
        return;
    }
    let had_alerts = i.alert_count > 0;
    if i.firing_count > 0 || (!had_alerts && batch.has_lasting_anomaly(id)) {
        if had_alerts {
            batch.touch(id);
        }
        return;
    }
    let now = batch.now;
    batch.change(id, |i| {
        i.state = IncidentState::Resolved;
        i.resolved_at = Some(now);
        i.resolved_by = Some(Phrase::AlertsResolved {}.into());
    });
    flip(batch, id);
    batch.supersede_questions(id);
    batch.decide(About::incident(id), "resolved", "all alerts resolved", why.to_string());
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Resolved.as_str()]).inc();
    tracing::info!(incident.id = %id, %why, "incident resolved");
    batch.tell(id, TimelineKind::Resolved, Phrase::Resolved { why: why.into() });
    batch.touch(id);
}

/// Looks at a flapping or suppressed incident again: if it has calmed down, or its silence is over, people are told how it
/// stands. Returns when to look once more, if it has not.
pub async fn settle(deps: &Deps, incident_id: &str) -> Result<(Tx, Option<Timestamp>)> {
    let mut tx = deps.store.write().await?;
    let set = deps.settings.get();
    let mut batch = Batch::of_incident(&mut tx, &set, &deps.channels, incident_id).await?;
    let Some(i) = batch.incident(incident_id).cloned() else { return Ok((tx, None)) };
    let mut again = None;
    if i.flapping {
        let quiet_at = clock::after(batch.last_flip(&i.id).unwrap_or(i.opened_at), set.flap_quiet);
        if quiet_at > batch.now {
            again = Some(quiet_at);
        } else {
            batch.change(&i.id, |i| i.flapping = false);
            let why = format!("stable for {} s", set.flap_quiet.as_secs());
            batch.decide(About::incident(&i.id), "settled", "correlate.flap_quiet", why);
        }
    }
    let held_until = quiet::look_again(&mut batch, &mut tx, &i.id).await?;
    again = again.into_iter().chain(held_until).min();
    let is_held = batch.incident(&i.id).is_some_and(|i| i.suppressed.is_some());
    if again.is_none() || (i.suppressed.is_some() && !is_held) {
        batch.touch(&i.id);
    }
    batch.write(&mut tx).await?;
    Ok((tx, again))
}
