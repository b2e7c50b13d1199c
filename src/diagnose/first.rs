//! The first diagnosis: evidence within its deadline, then the rules. Runs anew whenever signals join the incident.

use std::{collections::BTreeSet, time::Instant};

use super::{
    Deps, MODELS, Outcome,
    evidence::{self, About},
    hypotheses::Scene,
    rules::{self, Case, Conclusion},
};
use crate::{
    clock, ids, metrics,
    model::{Actor, Diagnosis, Evidence, Facts, Incident, Missing, Phrase, Stage, Tier, TimelineKind},
    playbook::Refusal,
    store::{Tx, alerts, anomalies, changes, decisions, diagnoses, evidence as stored, incidents, timeline},
};

/// Gathers, concludes, and writes evidence, diagnosis, timeline and decision. Doing it again without news changes nothing.
pub async fn first(deps: &Deps, incident_id: &str) -> anyhow::Result<(Tx, Outcome)> {
    let start = Instant::now();
    let Some(about) = look(deps, incident_id).await? else {
        return Ok((deps.access.store.write().await?, Outcome::Skipped("the incident is gone".into())));
    };
    let within = deps.settings().diagnose.evidence_timeout;
    let (facts, missing) = evidence::gather(&about, &deps.access, within).await;
    let (offers, refusals) = deps.offers(&about.incident, &about.alerts, &about.anomalies);

    let mut tx = deps.access.store.write().await?;
    let Some(incident) = incidents::lock(&mut tx, incident_id).await? else {
        return Ok((tx, Outcome::Skipped("the incident is gone".into())));
    };
    let mut all = stored::of(&mut tx, incident_id).await?;
    let fresh = evidence::number(&all, facts);
    for e in &fresh {
        stored::save(&mut tx, incident_id, e).await?;
    }
    note_evidence(&mut tx, incident_id, &fresh).await?;
    all.extend(fresh);

    let topology = deps.settings().correlate.topology.get(&incident.service);
    let mut callees = topology.cloned().unwrap_or_default();
    let learned =
        deps.access.telemetry.calls().into_iter().filter(|(caller, ..)| *caller == incident.service);
    callees.extend(learned.map(|(_, callee, _)| callee));
    callees.sort_unstable();
    callees.dedup();
    let scene = Scene {
        service: &incident.service,
        onset: incident.started_at,
        callees: &callees,
        change_window: deps.settings().diagnose.change_window,
    };
    let case = Case { scene, evidence: &all, missing: &missing, offers: &offers };
    let conclusion = rules::conclude(&case);
    let changed = save(&mut tx, &incident, conclusion, missing, start).await?;
    if changed {
        note_refusals(&mut tx, incident_id, &refusals).await?;
    }
    let enhance = !deps.chain.is_empty();
    metrics::DIAGNOSE_SECONDS
        .with_label_values(&[Tier::Rules.as_str()])
        .observe(start.elapsed().as_secs_f64());
    Ok((tx, if changed { Outcome::Diagnosed { enhance } } else { Outcome::Unchanged }))
}

/// The incident and its signals in one snapshot.
async fn look(deps: &Deps, incident_id: &str) -> anyhow::Result<Option<About>> {
    let mut tx = deps.access.store.read_few().await?;
    let Some(incident) = incidents::get(&mut tx, incident_id).await? else {
        return Ok(None);
    };
    let now = clock::now();
    let change_window = deps.settings().diagnose.change_window;
    Ok(Some(About {
        changes: changes::between(&mut tx, clock::before(incident.started_at, change_window), now).await?,
        alerts: alerts::of(&mut tx, incident_id, alerts::LOOKED_AT).await?,
        anomalies: anomalies::of(&mut tx, incident_id).await?,
        neighbours: neighbours(deps, &incident.service),
        now,
        incident,
    }))
}

/// By the topology of the settings, and by the calls that spans show.
fn neighbours(deps: &Deps, service: &str) -> Vec<String> {
    let mut all = deps.settings().correlate.neighbours(service);
    for (caller, callee, _) in deps.access.telemetry.calls() {
        let other = if caller == service {
            callee
        } else if callee == service {
            caller
        } else {
            continue;
        };
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

async fn note_evidence(tx: &mut Tx, incident_id: &str, fresh: &[Evidence]) -> anyhow::Result<()> {
    let ids = match fresh {
        [] => return Ok(()),
        [one] => one.id.clone(),
        [first, .., last] => format!("{}–{}", first.id, last.id),
    };
    let text = Phrase::FactsGathered { facts: Facts(fresh.len() as i64), ids };
    timeline::add(tx, incident_id, TimelineKind::Evidence, text, Some(&Actor::aiops("diagnose"))).await?;
    Ok(())
}

/// A playbook that people expected and that is not there has to be explained.
async fn note_refusals(tx: &mut Tx, incident_id: &str, refusals: &[Refusal]) -> anyhow::Result<()> {
    let about = decisions::About::incident(incident_id);
    for r in refusals {
        decisions::add(tx, Stage::Diagnose, about, "playbook not offered", &r.clause, &r.why).await?;
    }
    Ok(())
}

/// Which sources are missing; why may be said differently each time, and is no news.
fn sources(missing: &[Missing]) -> BTreeSet<&str> {
    missing.iter().map(|m| m.source.as_str()).filter(|s| *s != MODELS).collect()
}

/// True if it says something else than the last diagnosis by rules.
async fn save(
    tx: &mut Tx,
    incident: &Incident,
    conclusion: Conclusion,
    missing: Vec<Missing>,
    start: Instant,
) -> anyhow::Result<bool> {
    let about = decisions::About::incident(&incident.id);
    let Conclusion { summary, claims, suggestion } = conclusion;
    let earlier = diagnoses::of(tx, &incident.id).await?.into_iter().rfind(|d| d.tier == Tier::Rules);
    let same = |d: &Diagnosis| {
        (&d.summary, &d.claims, &d.suggestion) == (&summary, &claims, &suggestion)
            && sources(&d.missing) == sources(&missing)
    };
    if earlier.as_ref().is_some_and(same) {
        decisions::add(
            tx,
            Stage::Diagnose,
            about,
            "unchanged",
            "diagnose.rules",
            "The evidence says what it said before.",
        )
        .await?;
        return Ok(false);
    }
    let suggested =
        suggestion.as_ref().map_or("no playbook fits".to_owned(), |s| format!("suggests {}", s.playbook));
    decisions::add(
        tx,
        Stage::Diagnose,
        about,
        "diagnosed",
        "diagnose.rules",
        &format!("{summary} ({suggested})"),
    )
    .await?;
    timeline::add(tx, &incident.id, TimelineKind::Diagnosed, &summary, Some(&Actor::aiops("rules"))).await?;
    let diagnosis = Diagnosis {
        id: ids::new(),
        incident_id: incident.id.clone(),
        tier: Tier::Rules,
        model: String::new(),
        summary,
        claims,
        suggestion,
        missing,
        attempts: Vec::new(),
        latency_ms: start.elapsed().as_millis() as u64,
        tokens_in: 0,
        tokens_out: 0,
        cost_usd: 0.0,
        created_at: clock::now(),
    };
    diagnoses::save(tx, &diagnosis).await?;
    incidents::touch(tx, &incident.id).await?;
    Ok(true)
}
