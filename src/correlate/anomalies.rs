//! One anomaly event: stored always, joined to an incident where there is one, and opening one only if the settings let it.

use super::{At, Outcome, lifecycle, signal::Signal};
use crate::{
    clock,
    config::AnomalyOpens,
    ids,
    model::{Anomaly, AnomalyEvent, AnomalyKind, Labels, Severity, Stage, TimelineKind},
    store::{
        Result, Tx, anomalies,
        decisions::{self, About},
        timeline,
    },
};

pub(super) async fn apply(deps: &At<'_>, tx: &mut Tx, event: AnomalyEvent, out: &mut Outcome) -> Result<()> {
    match (anomalies::open_by_key(tx, &event.key).await?, event.ended_at) {
        (Some(known), Some(_)) => {
            ends(deps, tx, Anomaly { ended_at: event.ended_at, detail: event.detail, ..known }, out).await
        }
        (Some(known), None) => {
            let now = Anomaly { title: event.title, detail: event.detail, severity: event.severity, ..known };
            anomalies::update(tx, &now).await
        }
        (None, None) => begins(deps, tx, event, out).await,
        // The end of one whose onset retention has already forgotten, or that was sent twice.
        (None, Some(_)) => Ok(()),
    }
}

async fn begins(deps: &At<'_>, tx: &mut Tx, event: AnomalyEvent, out: &mut Outcome) -> Result<()> {
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
    let joined = lifecycle::find_open(deps, tx, &anomaly.service, anomaly.started_at).await?;
    let (id, clause, why) = match joined {
        Some(incident) => {
            let why = format!("incident {} of {} is open", incident.short_id(), incident.service);
            (Some(incident.id), "correlate.window", why)
        }
        None => may_open(deps, tx, &anomaly, out).await?,
    };
    anomaly.incident_id.clone_from(&id);
    anomalies::insert(tx, &anomaly).await?;
    let Some(id) = id else {
        let about = About { fingerprint: Some(&anomaly.key), incident_id: None };
        return decisions::add(
            tx,
            Stage::Correlate,
            about,
            "kept",
            clause,
            &format!("{}: {why}", anomaly.title),
        )
        .await;
    };
    let about = About { fingerprint: Some(&anomaly.key), incident_id: Some(&id) };
    decisions::add(tx, Stage::Correlate, about, "attached", clause, &format!("{}: {why}", anomaly.title))
        .await?;
    timeline::add(tx, &id, TimelineKind::AnomalyFound, &anomaly.title, None).await?;
    lifecycle::signal_joined(tx, &id, anomaly.started_at).await?;
    out.diagnose.push(id);
    Ok(())
}

async fn may_open(
    deps: &At<'_>,
    tx: &mut Tx,
    anomaly: &Anomaly,
    out: &mut Outcome,
) -> Result<(Option<String>, &'static str, String)> {
    let clause = "correlate.anomaly_opens";
    let from = clock::before(anomaly.started_at, deps.set.window);
    let beside: Vec<Anomaly> = anomalies::since(tx, from)
        .await?
        .into_iter()
        .filter(|a| a.service == anomaly.service && a.incident_id.is_none() && a.ended_at.is_none())
        .collect();
    let corroborated = beside.iter().any(|a| is_log(a.kind) != is_log(anomaly.kind));
    let (opens, why) = match deps.set.anomaly_opens {
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
        return Ok((None, clause, why));
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
    let id = lifecycle::admit(deps, tx, &signal, out).await?;
    Ok((Some(id), clause, why))
}

fn is_log(kind: AnomalyKind) -> bool {
    kind != AnomalyKind::Metric
}

async fn ends(deps: &At<'_>, tx: &mut Tx, over: Anomaly, out: &mut Outcome) -> Result<()> {
    anomalies::update(tx, &over).await?;
    let Some(id) = over.incident_id else { return Ok(()) };
    timeline::add(tx, &id, TimelineKind::AnomalyEnded, &format!("Over: {}", over.title), None).await?;
    lifecycle::resolve_if_over(deps, tx, &id, "its last anomaly is over", out).await
}
