//! Resolved incidents of the same service: the same alerts, how they ended, and which runs helped.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{About, Access, Fact, Found, Source, SourceName};
use crate::{
    clock,
    model::{EvidenceKind, Incident, IncidentState, Phrase, Run, RunState, Short},
    store::{evidence, incidents, runs},
};

pub(super) struct PastIncidents;

/// How many resolved incidents of the service are looked into.
const LOOKED_INTO: i64 = 20;

#[async_trait]
impl Source for PastIncidents {
    fn name(&self) -> SourceName {
        SourceName::PastIncidents
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        let oldest = clock::before(about.now, access.settings.diagnose.past_incidents);
        let names: BTreeSet<&str> = about.alerts.iter().map(|a| a.name()).collect();
        let filter = incidents::Filter {
            state: Some(IncidentState::Resolved),
            service: Some(about.incident.service.clone()),
            ..incidents::Filter::default()
        };
        let mut tx = access.store.read_few().await?;
        let listed = incidents::list(&mut tx, &filter, LOOKED_INTO, None).await?.items;
        let is_past = |i: &Incident| i.id != about.incident.id && i.opened_at >= oldest;
        let past: Vec<Incident> = listed.into_iter().filter(is_past).collect();
        let is_named_alike = |i: &Incident| i.title == about.incident.title;
        let others: Vec<&str> = past.iter().filter(|i| !is_named_alike(i)).map(|i| i.id.as_str()).collect();
        // All in one question: twenty would be most of what a diagnosis costs where there is a past.
        let alerts = evidence::data_of(&mut tx, &others, EvidenceKind::Alert).await?;
        let shares = |data: &Value| data["name"].as_str().is_some_and(|name| names.contains(name));
        let alike: BTreeSet<String> =
            alerts.into_iter().filter(|(_, data)| shares(data)).map(|(id, _)| id).collect();
        let mut facts = Vec::new();
        for incident in past.iter().filter(|i| is_named_alike(i) || alike.contains(&i.id)) {
            let runs = runs::of(&mut tx, &incident.id).await?;
            facts.push(fact(incident, &runs));
        }
        // Those that a run healed first; the list itself is newest first.
        facts.sort_by_key(|f| f.data["helped"].is_null());
        Ok(Found { facts, missing: Vec::new() })
    }
}

fn fact(incident: &Incident, runs: &[Run]) -> Fact {
    let helped = runs.iter().rev().find(|r| r.state == RunState::Succeeded);
    let ended = incident.resolved_at.unwrap_or(incident.updated_at);
    let lasted = Short(clock::between(incident.opened_at, ended));
    let how = match (helped, &incident.resolved_by) {
        (Some(run), _) => Phrase::PlaybookHelped { playbook: run.plan.playbook.clone() },
        (None, Some(by)) => Phrase::WasResolvedBy { by: by.clone() },
        (None, None) => Phrase::HowIsNotRecorded {},
    };
    let tried: Vec<String> = runs.iter().map(|r| format!("{}: {}", r.plan.playbook, r.state)).collect();
    let day = incident.opened_at.to_zoned(jiff::tz::TimeZone::UTC).date();
    let (id, day, how) = (incident.short_id().to_owned(), day.to_string(), how.into());
    let said = Phrase::PastIncident { id, day, lasted, how };
    Fact {
        kind: EvidenceKind::PastIncident,
        source: SourceName::PastIncidents,
        service: incident.service.clone(),
        summary: said.into(),
        data: json!({
            "id": incident.id,
            "title": incident.title.as_str(),
            "helped": helped.map(|r| json!({"playbook": r.plan.playbook, "params": r.plan.params})),
            "runs": tried,
        }),
        observed_at: incident.opened_at,
    }
}
