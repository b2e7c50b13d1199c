//! Resolved incidents of the same service: the same alerts, how they ended, and which runs helped.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName};
use crate::{
    clock,
    model::{Evidence, EvidenceKind, Incident, IncidentState, Phrase, Run, RunState, Short},
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
        let past = incidents::list(&mut tx, &filter, LOOKED_INTO, None).await?.items;
        let mut facts = Vec::new();
        for incident in past.into_iter().filter(|i| i.id != about.incident.id && i.opened_at >= oldest) {
            let seen = evidence::of(&mut tx, &incident.id).await?;
            let same = incident.title == about.incident.title || shares_an_alert(&seen, &names);
            if same {
                let runs = runs::of(&mut tx, &incident.id).await?;
                facts.push(fact(&incident, &runs));
            }
        }
        // Those that a run healed first; the list itself is newest first.
        facts.sort_by_key(|f| f.data["helped"].is_null());
        Ok(Found { facts, missing: Vec::new() })
    }
}

fn shares_an_alert(seen: &[Evidence], names: &BTreeSet<&str>) -> bool {
    let alerts = seen.iter().filter(|e| e.kind == EvidenceKind::Alert);
    alerts.filter_map(|e| e.data["name"].as_str()).any(|name| names.contains(name))
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
