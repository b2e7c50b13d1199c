//! Our own view of the service and its neighbours: anomalies that the detectors stored, and what is still in memory of the
//! logs. Silence for want of data is told, never taken for health.

use std::collections::HashSet;

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName};
use crate::{
    clock,
    model::{Anomaly, AnomalyKind, Coverage, EvidenceKind, LogRecord, Phrase, TemplateActivity},
    store::anomalies,
};

pub(super) struct OwnTelemetry;

const LINES: usize = 4;
const TEMPLATES: usize = 3;

#[async_trait]
impl Source for OwnTelemetry {
    fn name(&self) -> SourceName {
        SourceName::Telemetry
    }
    fn is_at_hand(&self) -> bool {
        true
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        let from = clock::before(about.incident.started_at, access.settings.diagnose.look_back);
        let mut found = Found { facts: stored(about, access, from).await?, missing: Vec::new() };
        let service = &about.incident.service;
        // Half open: what was logged in this very microsecond counts too.
        let to = clock::after(about.now, std::time::Duration::from_micros(1));
        let recent = access.telemetry.recent(service, from, to);
        if let Coverage::Unknown { reason } = recent.coverage {
            found.missing.push(reason);
        }
        if let Some(since) = access.admission.left_out(service, from, to) {
            found.missing.push(Phrase::TelemetryLeftOut { since: since.to_string() }.into());
        }
        let templates = recent.templates.iter().filter(|t| is_telling(t));
        found.facts.extend(templates.take(TEMPLATES).map(|t| busy(t, service)));
        let mut seen = HashSet::new();
        let lines = recent.errors.into_iter().rev().filter(|l| seen.insert(shape(&l.message)));
        found.facts.extend(lines.take(LINES).map(line));
        Ok(found)
    }
}

/// The incident's own anomalies first, then those around it.
async fn stored(about: &About, access: &Access, from: jiff::Timestamp) -> anyhow::Result<Vec<Fact>> {
    let mut tx = access.store.read_few().await?;
    let mut around = anomalies::since(&mut tx, from).await?;
    around.retain(|a| about.concerns(&a.service) && about.anomalies.iter().all(|own| own.id != a.id));
    Ok(about.anomalies.iter().chain(&around).map(anomaly).collect())
}

fn anomaly(a: &Anomaly) -> Fact {
    let kind = match a.kind {
        AnomalyKind::LogBurst
        | AnomalyKind::LogNovelty
        | AnomalyKind::LogSilence
        | AnomalyKind::LogErrors
        | AnomalyKind::LogValues => EvidenceKind::LogAnomaly,
        AnomalyKind::Metric => EvidenceKind::MetricAnomaly,
    };
    Fact {
        kind,
        source: SourceName::Telemetry,
        service: a.service.clone(),
        summary: a.title.clone(),
        data: json!({"id": a.id, "kind": a.kind, "detail": a.detail, "ended_at": a.ended_at}),
        observed_at: a.started_at,
    }
}

/// Warnings and worse that are more frequent than usual, or have no baseline yet.
fn is_telling(t: &TemplateActivity) -> bool {
    t.level >= crate::model::LogLevel::Warn && t.usual.is_none_or(|usual| t.count as f64 > 2.0 * usual + 2.0)
}

fn busy(t: &TemplateActivity, service: &str) -> Fact {
    let (level, count, template) = (t.level.to_string(), t.count.to_string(), t.template.clone());
    let said = match t.usual {
        None => Phrase::LinesSeen { level, count, template },
        Some(usual) => Phrase::LinesSeenUsually { level, count, usual: format!("{usual:.0}"), template },
    };
    Fact {
        kind: EvidenceKind::LogLine,
        source: SourceName::Telemetry,
        service: service.to_owned(),
        summary: said.into(),
        data: json!({"id": format!("template {}", t.template), "level": t.level, "count": t.count, "sample": t.sample}),
        observed_at: t.first_seen_at,
    }
}

fn line(record: LogRecord) -> Fact {
    Fact {
        kind: EvidenceKind::LogLine,
        source: SourceName::Telemetry,
        summary: format!("{}: {}", record.level, record.message).into(),
        data: json!({
            "id": format!("line {}", shape(&record.message)),
            "level": record.level,
            "host": record.host,
            "trace_id": record.trace_id,
        }),
        observed_at: record.at,
        service: record.service,
    }
}

/// What lines of one statement share: the text without its digits, cut.
fn shape(message: &str) -> String {
    let kept: String = message.chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
    crate::redact::mask(&kept)
}
