//! One alert event: is it news, and to which incident does it belong?

use super::{batch::Batch, lifecycle, signal::Signal};
use crate::{
    model::{Alert, AlertEvent, AlertState, Phrase, Severity, TimelineKind},
    store::decisions::About,
};

/// What an event means beside what is known of its alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It fires, and did not before.
    Fires,
    /// It fires, as we knew.
    Repeat,
    /// It fired, and does not any more.
    Resolves,
    /// An end that we knew of, or of something that we never saw fire.
    NothingToResolve,
    /// Sent before what we know, arrived after it.
    Late,
}

/// Compares times, not the order of arrival: retries, HA peers and group flushes deliver out of order.
fn classify(known: Option<&Alert>, event: &AlertEvent, now: jiff::Timestamp) -> News {
    let Some(known) = known else {
        return if event.state == AlertState::Firing { News::Fires } else { News::NothingToResolve };
    };
    match (known.state, event.state) {
        (AlertState::Firing, AlertState::Firing) => News::Repeat,
        (AlertState::Resolved, AlertState::Resolved) => News::NothingToResolve,
        // The end of an earlier episode than the one that we know of.
        (AlertState::Firing, AlertState::Resolved) if event.ends_at.is_some_and(|e| e < known.starts_at) => {
            News::Late
        }
        (AlertState::Firing, AlertState::Resolved) => News::Resolves,
        (AlertState::Resolved, AlertState::Firing) => {
            // Prometheus itself and the reconciler speak of now; a webhook may have been waiting in a retry.
            let speaks_of_now = event.expires_at.is_some_and(|t| t > now) || event.source == "reconcile";
            let began_before_the_end = known.ends_at.is_some_and(|end| event.starts_at <= end);
            if began_before_the_end && !speaks_of_now { News::Late } else { News::Fires }
        }
    }
}

pub(super) fn apply(batch: &mut Batch<'_>, event: AlertEvent) {
    let known = batch.alert(&event.fingerprint);
    match classify(known, &event, batch.now) {
        News::Fires => fires(batch, event),
        News::Resolves => resolves(batch, event),
        News::Repeat => batch.seen(&event.fingerprint, event.expires_at),
        News::NothingToResolve => nothing_to_resolve(batch, event),
        News::Late => {
            let incident = known.and_then(|k| k.incident_id.clone());
            let why = format!(
                "{} says {} of an episode that began {}, but a later state is known already",
                event.source, event.state, event.starts_at
            );
            let about = About::alert(&event.fingerprint, incident.as_deref());
            batch.decide(about, "ignored", "out of order", why);
        }
    }
}

fn fires(batch: &mut Batch<'_>, event: AlertEvent) {
    let previous = batch.alert(&event.fingerprint).and_then(|known| known.incident_id.clone());
    let mut alert = alert_of(event, None, batch.now);
    let signal = Signal {
        service: batch.set.service_of(&alert.labels),
        severity: Severity::of(&alert.labels),
        title: alert.title().into(),
        started_at: alert.starts_at,
        labels: alert.labels.clone(),
        fingerprint: Some(alert.fingerprint.clone()),
        previous_incident: previous.clone(),
    };
    let id = lifecycle::admit(batch, &signal);
    let (name, title) = (alert.name().to_owned(), alert.title().to_owned());
    batch.tell(&id, TimelineKind::AlertFiring, Phrase::AlertFiring { name, title });
    let is_new_here = previous.as_deref() != Some(id.as_str());
    batch.change(&id, |i| {
        i.alert_count += i64::from(is_new_here);
        i.firing_count += 1;
    });
    alert.incident_id = Some(id);
    batch.save_alert(alert);
}

fn resolves(batch: &mut Batch<'_>, event: AlertEvent) {
    let Some(known) = batch.alert(&event.fingerprint).cloned() else { return };
    let alert = Alert {
        state: AlertState::Resolved,
        ends_at: Some(event.ends_at.unwrap_or(batch.now)),
        expires_at: None,
        last_seen_at: batch.now,
        annotations: if event.annotations.is_empty() { known.annotations } else { event.annotations },
        ..known
    };
    if let Some(id) = &alert.incident_id {
        let (name, title) = (alert.name().to_owned(), alert.title().to_owned());
        batch.tell(id, TimelineKind::AlertResolved, Phrase::AlertResolved { name, title });
        batch.change(id, |i| i.firing_count -= 1);
        lifecycle::resolve_if_over(batch, id, Phrase::LastAlertResolved { name: alert.name().to_owned() });
    }
    batch.save_alert(alert);
}

/// Keeps it on record, so that a late firing event of the same episode is known to be late.
fn nothing_to_resolve(batch: &mut Batch<'_>, event: AlertEvent) {
    if batch.alert(&event.fingerprint).is_some() {
        return batch.seen(&event.fingerprint, None);
    }
    let why = format!("{} says resolved, but it was never seen firing here", event.source);
    batch.decide(About::alert(&event.fingerprint, None), "ignored", "resolved before it was seen", why);
    let alert = alert_of(event, None, batch.now);
    batch.save_alert(alert);
}

fn alert_of(event: AlertEvent, incident_id: Option<String>, now: jiff::Timestamp) -> Alert {
    Alert {
        fingerprint: event.fingerprint,
        source: event.source,
        labels: event.labels,
        annotations: event.annotations,
        state: event.state,
        starts_at: event.starts_at,
        ends_at: event.ends_at.filter(|_| event.state == AlertState::Resolved),
        expires_at: event.expires_at,
        generator_url: event.generator_url,
        incident_id,
        last_seen_at: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(seconds).expect("in range")
    }

    fn event(state: AlertState, starts: i64, ends: Option<i64>) -> AlertEvent {
        AlertEvent {
            source: "alertmanager".into(),
            fingerprint: "00".into(),
            state,
            labels: [("alertname".to_owned(), "Down".to_owned())].into(),
            annotations: Default::default(),
            starts_at: at(starts),
            ends_at: ends.map(at),
            expires_at: None,
            generator_url: String::new(),
        }
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        use AlertState::{Firing, Resolved};
        let now = at(1000);
        let firing = alert_of(event(Firing, 100, None), None, now);
        let resolved = alert_of(event(Resolved, 100, Some(200)), None, now);
        let news = |known: Option<&Alert>, e: AlertEvent| classify(known, &e, now);
        assert_eq!(news(None, event(Firing, 100, None)), News::Fires);
        assert_eq!(news(None, event(Resolved, 100, Some(200))), News::NothingToResolve);
        assert_eq!(news(Some(&firing), event(Firing, 100, None)), News::Repeat);
        assert_eq!(news(Some(&firing), event(Resolved, 100, Some(200))), News::Resolves);
        assert_eq!(
            news(Some(&firing), event(Resolved, 10, Some(50))),
            News::Late,
            "an earlier episode's end"
        );
        assert_eq!(news(Some(&resolved), event(Firing, 100, None)), News::Late, "a retry that waited");
        assert_eq!(news(Some(&resolved), event(Firing, 300, None)), News::Fires, "a new episode");
        assert_eq!(news(Some(&resolved), event(Resolved, 100, Some(200))), News::NothingToResolve);
        let mut direct = event(Firing, 100, None);
        direct.expires_at = Some(at(1240));
        assert_eq!(news(Some(&resolved), direct), News::Fires, "Prometheus says that it fires now");
    }
}
