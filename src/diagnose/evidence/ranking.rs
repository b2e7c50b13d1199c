//! Which service it began in: ranks all services by what the detectors keep in memory of their logs, metrics and spans.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName};
use crate::{
    clock,
    diagnose::rank,
    model::{
        EvidenceKind, Listed, Phrase,
        case::{Case, CaseChange},
    },
};

pub(super) struct Ranking;

/// Services that are told of, and reasons for each: who looks at night wants the first, and the next if it is not that.
const SERVICES: usize = 3;
const REASONS: usize = 3;
/// Less than e¹ : 1 is not worth a look.
const WORTH_A_LOOK: f64 = 1.0;
/// Changes that are weighed.
const MAX_CHANGES: usize = 100;

#[async_trait]
impl Source for Ranking {
    fn name(&self) -> SourceName {
        SourceName::Ranking
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        // Without logs, metrics and spans there is nothing to rank, at none of a storm's diagnoses.
        if !access.telemetry.has_heard() {
            return Ok(Found::default());
        }
        let (telemetry, settings, of) = (access.telemetry.clone(), access.settings.clone(), about.clone());
        // Some tenths of a second of computing where much is kept.
        let ranked = tokio::task::spawn_blocking(move || {
            let mut case = frame(&of, settings.diagnose.look_back);
            let from = clock::before(of.incident.started_at, settings.diagnose.look_back);
            let whole = telemetry.recall(&mut case, from);
            for (caller, callees) in &settings.correlate.topology {
                callees.iter().for_each(|callee| call(&mut case, caller, callee));
            }
            telemetry.calls().iter().for_each(|(caller, callee, _)| call(&mut case, caller, callee));
            let heard = !(case.spans.is_empty() && case.lines.is_empty() && case.series.is_empty());
            (heard.then(|| rank::rank(&case)), whole)
        });
        let (ranking, whole) = ranked.await?;
        let mut found = Found::default();
        if ranking.is_some() && !whole {
            found.missing.push(Phrase::SomeWatchedElsewhere {}.into());
        }
        if let Some(ranking) = ranking.filter(|r| r.verdict != rank::Verdict::NoClearCause) {
            let first = ranking.ranked.iter().filter(|r| r.score >= WORTH_A_LOOK).take(SERVICES);
            found.facts = first.enumerate().map(|(i, r)| fact(i + 1, ranking.among, r, about)).collect();
        }
        Ok(found)
    }
}

/// The window: from the onset until now, or as long as what is usual was looked at.
fn frame(about: &About, look_back: Duration) -> Case {
    let onset = about.incident.started_at;
    let mut case = Case {
        alert_metric: about.alerts.first().map(|alert| alert.name().to_lowercase()),
        from: onset.as_microsecond(),
        to: about.now.min(clock::after(onset, look_back)).as_microsecond(),
        ..Case::default()
    };
    case.alert_service = case.names.sym(&about.incident.service);
    for change in about.changes.iter().take(MAX_CHANGES) {
        let service = case.names.sym(&change.service);
        case.changes.push(CaseChange {
            at: change.at.as_microsecond(),
            service,
            what: change.summary.clone(),
        });
    }
    case
}

fn call(case: &mut Case, caller: &str, callee: &str) {
    let edge = (case.names.sym(caller), case.names.sym(callee));
    if !case.topology.contains(&edge) {
        case.topology.push(edge);
    }
}

/// `among`: the first so many may be it.
fn fact(place: usize, among: usize, ranked: &rank::Ranked, about: &About) -> Fact {
    let told = ranked.evidence.iter().filter(|e| e.nats > 0.0).take(REASONS);
    let reasons = Listed(told.clone().map(|e| e.text.clone().into()).collect());
    let kinds: Vec<&str> = told.map(|e| e.kind.as_str()).collect();
    let service = ranked.service.clone();
    Fact {
        kind: EvidenceKind::Ranking,
        source: SourceName::Ranking,
        summary: Phrase::Suspect { place: place as i64, service: service.clone(), reasons }.into(),
        data: json!({
            // Numbers differ each time; only another place or other reasons are news.
            "id": format!("suspect {place} of {among}: {service} for {}", kinds.join(", ")),
            "place": place,
            "among": among,
            "nats": (ranked.score * 10.0).round() / 10.0,
            "reasons": kinds,
        }),
        service,
        observed_at: about.incident.started_at,
    }
}
