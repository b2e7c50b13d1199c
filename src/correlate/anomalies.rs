//! One anomaly event: stored always, joined to an incident where there is one, and opening one only if the settings let it.

use super::{batch::Batch, lifecycle, signal::Signal};
use crate::{
    clock,
    config::AnomalyOpens,
    ids,
    model::{Anomaly, AnomalyEvent, AnomalyKind, Labels, Phrase, Severity, TimelineKind},
    store::decisions::About,
};

pub(super) fn apply(batch: &mut Batch<'_>, event: AnomalyEvent) {
    let open = batch.anomalies_of(&event.service).filter(|a| a.key == event.key && a.ended_at.is_none());
    match (open.max_by_key(|a| a.started_at).cloned(), event.ended_at) {
        (Some(known), Some(_)) => {
            ends(batch, Anomaly { ended_at: event.ended_at, detail: event.detail, ..known });
        }
        (Some(known), None) => {
            let now = Anomaly { title: event.title, detail: event.detail, severity: event.severity, ..known };
            batch.save_anomaly(now);
        }
        // A reader of telemetry that was killed: its successor reads the same again and finds the same.
        (None, None) if was_told(batch, &event) => {}
        (None, None) => begins(batch, event),
        // The end of one whose onset retention has already forgotten, or that was sent twice.
        (None, Some(_)) => {}
    }
}

/// It is known from its beginning to its end.
fn was_told(batch: &Batch<'_>, event: &AnomalyEvent) -> bool {
    batch.anomalies_of(&event.service).any(|a| a.key == event.key && a.started_at == event.started_at)
}

fn begins(batch: &mut Batch<'_>, event: AnomalyEvent) {
    let mut anomaly = Anomaly {
        id: ids::new(),
        kind: event.kind,
        key: event.key,
        service: event.service,
        severity: event.severity,
        title: event.title,
        detail: event.detail,
        started_at: event.started_at,
        ended_at: None,
        incident_id: None,
    };
    let joined = lifecycle::find_open(batch, &anomaly.service, anomaly.started_at);
    let (id, clause, why) = match joined {
        Some(incident) => {
            let why = format!("incident {} of {} is open", incident.short_id(), incident.service);
            (Some(incident.id.clone()), "correlate.window", why)
        }
        None => may_open(batch, &anomaly),
    };
    let outcome = if id.is_some() { "attached" } else { "kept" };
    let about = About { fingerprint: Some(&anomaly.key), incident_id: id.as_deref() };
    batch.decide(about, outcome, clause, format!("{}: {why}", anomaly.title));
    if let Some(id) = &id {
        batch.tell(id, TimelineKind::AnomalyFound, &anomaly.title);
        batch.change(id, |i| {
            i.last_signal_at = i.last_signal_at.max(anomaly.started_at);
            i.started_at = i.started_at.min(anomaly.started_at);
        });
        batch.out.diagnose.push(id.clone());
    }
    anomaly.incident_id = id;
    batch.save_anomaly(anomaly);
}

fn may_open(batch: &mut Batch<'_>, anomaly: &Anomaly) -> (Option<String>, &'static str, String) {
    let clause = "correlate.anomaly_opens";
    let from = clock::before(anomaly.started_at, batch.set.window);
    let corroborated = batch.anomalies_of(&anomaly.service).any(|a| {
        a.incident_id.is_none()
            && a.ended_at.is_none()
            && a.started_at >= from
            && is_log(a.kind) != is_log(anomaly.kind)
    });
    let (opens, why) = match batch.set.anomaly_opens {
        AnomalyOpens::Never => (false, "anomalies never open an incident".to_owned()),
        AnomalyOpens::Always => (true, "every anomaly opens an incident".to_owned()),
        AnomalyOpens::Corroborated if corroborated => {
            (true, format!("logs and metrics of {} agree", anomaly.service))
        }
        AnomalyOpens::Corroborated => {
            (false, format!("no alert, and only one kind of telemetry of {} is anomalous", anomaly.service))
        }
    };
    if !opens {
        return (None, clause, why);
    }
    let signal = Signal {
        service: anomaly.service.clone(),
        severity: Severity::Warning.min(anomaly.severity),
        title: anomaly.title.clone(),
        started_at: anomaly.started_at,
        labels: Labels::from([("service".to_owned(), anomaly.service.clone())]),
        fingerprint: None,
        previous_incident: None,
    };
    (Some(lifecycle::admit(batch, &signal)), clause, why)
}

fn is_log(kind: AnomalyKind) -> bool {
    kind != AnomalyKind::Metric
}

fn ends(batch: &mut Batch<'_>, over: Anomaly) {
    let (incident, title) = (over.incident_id.clone(), over.title.clone());
    batch.save_anomaly(over);
    if let Some(id) = incident {
        batch.tell(&id, TimelineKind::AnomalyEnded, Phrase::AnomalyOver { what: title });
        lifecycle::resolve_if_over(batch, &id, Phrase::LastAnomalyOver {});
    }
}
