//! An incident's life: it opens, signals join, it resolves when they do, it reopens, it flaps.

use jiff::Timestamp;

use super::{At, Deps, Outcome, quiet, signal::Signal};
use crate::{
    clock, ids, metrics,
    model::{Incident, IncidentState, Stage, TimelineKind},
    steer,
    store::{
        Result, Tx, alerts, anomalies,
        decisions::{self, About},
        incidents, messages, silences, timeline,
    },
};

/// Finds the incident that the signal belongs to, reopens one, or opens one; its id.
pub(super) async fn admit(deps: &At<'_>, tx: &mut Tx, s: &Signal, out: &mut Outcome) -> Result<String> {
    let (mut incident, outcome, clause, why) = match place(deps, tx, s).await? {
        Place::Join(incident, clause, why) => (incident, "attached", clause, why),
        Place::Reopen(incident, clause, why) => {
            (reopen(deps, tx, incident, out).await?, "reopened", clause, why)
        }
        Place::Open(clause, why) => (open(deps, tx, s).await?, "opened", clause, why),
    };
    let about = About { fingerprint: s.fingerprint.as_deref(), incident_id: Some(&incident.id) };
    decisions::add(tx, Stage::Correlate, about, outcome, clause, &why).await?;
    if incident.alert_count == 0 && s.fingerprint.is_some() {
        // A rule that somebody wrote says better what broke than the anomaly that opened the incident.
        incident.title.clone_from(&s.title);
        incident.service.clone_from(&s.service);
    }
    incident.severity = incident.severity.max(s.severity);
    incident.started_at = incident.started_at.min(s.started_at);
    incident.last_signal_at = incident.last_signal_at.max(s.started_at);
    quiet::suppress(deps, tx, &mut incident, s, outcome != "attached", out).await?;
    incidents::save(tx, &incident).await?;
    incidents::touch(tx, &incident.id).await?;
    adopt_anomalies(deps, tx, &incident).await?;
    if !incident.flapping {
        out.diagnose.push(incident.id.clone());
    }
    Ok(incident.id)
}

enum Place {
    Join(Incident, &'static str, String),
    Reopen(Incident, &'static str, String),
    Open(&'static str, String),
}

async fn place(deps: &At<'_>, tx: &mut Tx, s: &Signal) -> Result<Place> {
    let set = deps.set;
    let now = clock::now();
    if let Some(id) = &s.previous_incident
        && let Some(incident) = incidents::lock(tx, id).await?
    {
        if incident.is_open() {
            return Ok(Place::Join(incident, "same alert", "it belongs to this incident already".into()));
        }
        let since = clock::between(incident.resolved_at.unwrap_or(now), now);
        if since <= set.reopen_within {
            let why = format!("it fires again {} s after the incident was resolved", since.as_secs());
            return Ok(Place::Reopen(incident, "correlate.reopen_within", why));
        }
    }
    if let Some(incident) = find_open(deps, tx, &s.service, s.started_at).await? {
        let same = incident.service == s.service;
        let why = if same {
            format!(
                "an incident of {} is open and its last signal is within {} s",
                s.service,
                set.window.as_secs()
            )
        } else {
            format!("{} is a neighbour of {}, whose incident is open", s.service, incident.service)
        };
        let clause = if same { "correlate.window" } else { "correlate.topology" };
        return Ok(Place::Join(incident, clause, why));
    }
    if let Some(incident) = incidents::resolved_since(tx, &s.service, clock::before(now, set.window)).await? {
        let why =
            format!("the incident of {} was resolved less than {} s ago", s.service, set.window.as_secs());
        return Ok(Place::Reopen(incident, "correlate.window", why));
    }
    let why =
        format!("no incident of {} or its neighbours is open within {} s", s.service, set.window.as_secs());
    Ok(Place::Open("correlate.window", why))
}

/// The open incident of this service, else of a neighbour, whose signals are close in time.
pub(super) async fn find_open(
    deps: &At<'_>,
    tx: &mut Tx,
    service: &str,
    started_at: Timestamp,
) -> Result<Option<Incident>> {
    let window = deps.set.window;
    let mut services = vec![service.to_owned()];
    services.extend(deps.set.neighbours(service));
    let near = |i: &Incident| {
        i.is_open()
            && clock::before(i.started_at, window) <= started_at
            && started_at <= clock::after(i.last_signal_at, window)
    };
    let open = incidents::open_of(tx, &services).await?;
    let rank = |i: &Incident| services.iter().position(|s| *s == i.service);
    let Some(best) = open.into_iter().filter(near).min_by_key(rank) else { return Ok(None) };
    incidents::lock(tx, &best.id).await
}

async fn open(deps: &At<'_>, tx: &mut Tx, s: &Signal) -> Result<Incident> {
    let now = clock::now();
    let incident = Incident {
        id: ids::new(),
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
    };
    incidents::insert(tx, &incident).await?;
    incidents::set_flips(tx, &incident.id, &[now]).await?;
    messages::owe(tx, &incident.id, deps.channels, now).await?;
    timeline::add(tx, &incident.id, TimelineKind::Opened, &format!("{}: {}", s.service, s.title), None)
        .await?;
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Open.as_str()]).inc();
    tracing::info!(incident.id = %incident.id, service = %s.service, severity = %s.severity, title = %s.title, "incident opened");
    Ok(incident)
}

async fn reopen(deps: &At<'_>, tx: &mut Tx, mut i: Incident, out: &mut Outcome) -> Result<Incident> {
    i.state = IncidentState::Open;
    i.resolved_at = None;
    i.resolved_by = None;
    i.acknowledged_by = None;
    i.episode += 1;
    flip(deps, tx, &mut i, out).await?;
    messages::owe(tx, &i.id, deps.channels, clock::now()).await?;
    timeline::add(tx, &i.id, TimelineKind::Reopened, "It fires again", None).await?;
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Open.as_str()]).inc();
    tracing::info!(incident.id = %i.id, episode = i.episode, flapping = i.flapping, "incident reopened");
    Ok(i)
}

/// Counts an opening or a resolution; too many of them in a short time make the incident flapping: its state goes on
/// following its alerts, but people are told only when it has been quiet for a while.
async fn flip(deps: &At<'_>, tx: &mut Tx, i: &mut Incident, out: &mut Outcome) -> Result<()> {
    let (set, now) = (deps.set, clock::now());
    let since = clock::before(now, set.flap_within);
    let mut flips = incidents::flips(tx, &i.id).await?;
    flips.push(now);
    incidents::set_flips(tx, &i.id, &flips).await?;
    let recent = flips.iter().filter(|t| **t >= since).count();
    if recent >= set.flap_count as usize {
        out.settle.push((i.id.clone(), clock::after(now, set.flap_quiet)));
        if !i.flapping {
            i.flapping = true;
            let why = format!("it opened or resolved {recent} times within {} s", set.flap_within.as_secs());
            let text =
                format!("Flapping: {why}; quiet until it has been stable for {} s", set.flap_quiet.as_secs());
            timeline::add(tx, &i.id, TimelineKind::Flapping, &text, None).await?;
            decisions::add(
                tx,
                Stage::Correlate,
                About::incident(&i.id),
                "flapping",
                "correlate.flap_count",
                &why,
            )
            .await?;
        }
    }
    Ok(())
}

/// Anomalies that were found before the alert and waited for an incident to belong to.
async fn adopt_anomalies(deps: &At<'_>, tx: &mut Tx, incident: &Incident) -> Result<()> {
    let from = clock::before(incident.started_at, deps.set.window);
    let mut services = deps.set.neighbours(&incident.service);
    services.push(incident.service.clone());
    for a in anomalies::since(tx, from).await? {
        if a.incident_id.is_none() && services.contains(&a.service) {
            anomalies::attach(tx, &a.id, &incident.id).await?;
            timeline::add(tx, &incident.id, TimelineKind::AnomalyFound, &a.title, None).await?;
            let about = About { fingerprint: Some(&a.key), incident_id: Some(&incident.id) };
            let why = format!("found in {} within {} s before", a.service, deps.set.window.as_secs());
            decisions::add(tx, Stage::Correlate, about, "attached", "correlate.window", &why).await?;
        }
    }
    Ok(())
}

/// An anomaly joined: the window grows.
pub(super) async fn signal_joined(tx: &mut Tx, id: &str, started_at: Timestamp) -> Result<()> {
    if let Some(mut i) = incidents::lock(tx, id).await? {
        i.last_signal_at = i.last_signal_at.max(started_at);
        i.started_at = i.started_at.min(started_at);
        incidents::save(tx, &i).await?;
    }
    Ok(())
}

/// Counts an incident's alerts anew.
pub(super) async fn recount(tx: &mut Tx, id: &str) -> Result<()> {
    if let Some(mut i) = incidents::lock(tx, id).await? {
        (i.alert_count, i.firing_count) = alerts::count(tx, id).await?;
        incidents::save(tx, &i).await?;
    }
    Ok(())
}

/// Resolves an incident when nothing of it goes on: no alert fires, or, if it never had one, no anomaly lasts.
pub(super) async fn resolve_if_over(
    deps: &At<'_>,
    tx: &mut Tx,
    id: &str,
    why: &str,
    out: &mut Outcome,
) -> Result<()> {
    let Some(mut i) = incidents::lock(tx, id).await? else { return Ok(()) };
    let lasting = anomalies::of(tx, id).await?.iter().any(|a| a.ended_at.is_none());
    if !i.is_open() || i.firing_count > 0 || (i.alert_count == 0 && lasting) {
        if i.is_open() && i.alert_count > 0 {
            incidents::touch(tx, id).await?;
        }
        return Ok(());
    }
    i.state = IncidentState::Resolved;
    i.resolved_at = Some(clock::now());
    i.resolved_by = Some("alerts resolved".into());
    flip(deps, tx, &mut i, out).await?;
    incidents::save(tx, &i).await?;
    steer::supersede_questions(tx, id, "the incident was resolved").await?;
    timeline::add(tx, id, TimelineKind::Resolved, &format!("Resolved: {why}"), None).await?;
    decisions::add(tx, Stage::Correlate, About::incident(id), "resolved", "all alerts resolved", why).await?;
    metrics::INCIDENT_TRANSITIONS.with_label_values(&[IncidentState::Resolved.as_str()]).inc();
    tracing::info!(incident.id = %id, why, "incident resolved");
    incidents::touch(tx, id).await
}

/// Looks at a flapping or suppressed incident again: if it has calmed down, or its silence is over, people are told how it
/// stands. Returns when to look once more, if it has not.
pub async fn settle(deps: &Deps, incident_id: &str) -> Result<(Tx, Option<Timestamp>)> {
    let mut tx = deps.store.write().await?;
    let set = deps.settings.get();
    let silences = silences::active(&mut tx, clock::now()).await?;
    let deps = &At { set: &set, channels: &deps.channels, silences: &silences };
    let now = clock::now();
    let Some(mut i) = incidents::lock(&mut tx, incident_id).await? else { return Ok((tx, None)) };
    let mut again = None;
    if i.flapping {
        let last = incidents::flips(&mut tx, &i.id).await?.last().copied().unwrap_or(i.opened_at);
        let quiet_at = clock::after(last, deps.set.flap_quiet);
        if quiet_at > now {
            again = Some(quiet_at);
        } else {
            i.flapping = false;
            let why = format!("stable for {} s", deps.set.flap_quiet.as_secs());
            let about = About::incident(&i.id);
            decisions::add(&mut tx, Stage::Correlate, about, "settled", "correlate.flap_quiet", &why).await?;
        }
    }
    let was_held = i.suppressed.is_some();
    let held_until = quiet::look_again(deps, &mut tx, &mut i).await?;
    again = again.into_iter().chain(held_until).min();
    incidents::save(&mut tx, &i).await?;
    if again.is_none() || (was_held && i.suppressed.is_none()) {
        incidents::touch(&mut tx, &i.id).await?;
    }
    Ok((tx, again))
}
