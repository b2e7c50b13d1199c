//! Gathers facts about an incident from every source at once, each with its deadline; hands on masked, bounded, numbered
//! evidence and a word about every source that had nothing to say for a bad reason.

mod alerts;
mod changes;
mod logs;
mod number;
mod past_incidents;
mod prometheus;
mod promql;
mod ranking;
mod telemetry;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    admission::Admission,
    breaker::Breakers,
    clock,
    config::Settings,
    metrics,
    model::{self, Alert, Anomaly, Change, EvidenceKind, Incident, Missing, Phrase, Said, Short, Span},
    redact,
    search::Logs,
    store::Store,
};

pub use number::number;

crate::model::words!(
    /// Where evidence comes from.
    SourceName {
        Alerts = "alerts",
        Telemetry = "telemetry",
        Logs = "logs",
        Changes = "changes",
        PastIncidents = "past_incidents",
        Prometheus = "prometheus",
        Ranking = "ranking",
    }
);

/// What the sources need.
#[derive(Clone)]
pub struct Access {
    pub store: Store,
    pub settings: Arc<Settings>,
    /// None: only what is at hand in this process is asked.
    pub http: Option<reqwest::Client>,
    pub breakers: Breakers,
    pub telemetry: Arc<dyn model::Telemetry>,
    pub logs: Logs,
    pub admission: Arc<Admission>,
}

/// The incident as it stands when the gathering begins.
#[derive(Clone, Debug)]
pub struct About {
    pub incident: Incident,
    pub alerts: Vec<Alert>,
    pub anomalies: Vec<Anomaly>,
    /// Services that call it or that it calls.
    pub neighbours: Vec<String>,
    /// Of any service, from `diagnose.change_window` before the onset until now, newest first.
    pub changes: Vec<Change>,
    pub now: Timestamp,
}

impl About {
    /// True for the incident's service and its neighbours.
    pub fn concerns(&self, service: &str) -> bool {
        service == self.incident.service || self.neighbours.iter().any(|n| n == service)
    }
}

/// A fact before it has a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    pub kind: EvidenceKind,
    pub source: SourceName,
    pub service: String,
    pub summary: Said,
    /// An object whose `id` tells the fact from others of its kind: gathering it again adds nothing.
    pub data: Value,
    pub observed_at: Timestamp,
}

/// What one source has to say. Both may be filled: some of it was found, some could not be asked.
#[derive(Debug, Default)]
pub struct Found {
    pub facts: Vec<Fact>,
    /// Why something could not be asked.
    pub missing: Vec<Said>,
}

/// One kind of place where facts are found.
#[async_trait]
trait Source: Send + Sync {
    fn name(&self) -> SourceName;
    /// True for what costs next to nothing: it is asked under overload, too.
    fn is_at_hand(&self) -> bool {
        false
    }
    /// Most telling first: what exceeds the limit is dropped from the end.
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found>;
}

/// Every source, in the order in which their facts are numbered.
const TABLE: &[&dyn Source] = &[
    &alerts::Alerts,
    &telemetry::OwnTelemetry,
    &logs::KeptLogs,
    &changes::Changes,
    &past_incidents::PastIncidents,
    &prometheus::Prometheus,
    &ranking::Ranking,
];

/// Asks all sources in parallel, each for at most `within`.
pub async fn gather(about: &About, access: &Access, within: Duration) -> (Vec<Fact>, Vec<Missing>) {
    let asked = TABLE.iter().map(|source| ask(*source, about, access, within));
    let mut facts = Vec::new();
    let mut missing = Vec::new();
    for (found, gaps) in futures_util::future::join_all(asked).await {
        facts.extend(found);
        missing.extend(gaps);
    }
    (facts, missing)
}

async fn ask(
    source: &dyn Source,
    about: &About,
    access: &Access,
    within: Duration,
) -> (Vec<Fact>, Vec<Missing>) {
    let name = source.name();
    let gap = |reason: Said| Missing { source: name.to_string(), reason };
    if !source.is_at_hand() && !access.admission.gathers_from_afar() {
        metrics::EVIDENCE.with_label_values(&[name.as_str(), "missing"]).inc();
        metrics::OVERLOAD_POSTPONED.with_label_values(&["evidence"]).inc();
        return (Vec::new(), vec![gap(Phrase::NotAskedOverloaded {}.into())]);
    }
    let (mut facts, missing) = match tokio::time::timeout(within, source.gather(about, access)).await {
        Ok(Ok(found)) => (found.facts, found.missing.into_iter().map(gap).collect()),
        Ok(Err(e)) => {
            tracing::warn!(incident.id = %about.incident.id, source = %name, error = format!("{e:#}"), "an evidence source failed");
            (Vec::new(), vec![gap(bounded(&format!("{e:#}"), 200).into())])
        }
        Err(_) => (Vec::new(), vec![gap(Phrase::TimedOut { after: Span(within) }.into())]),
    };
    let result = if missing.is_empty() { "ok" } else { "missing" };
    metrics::EVIDENCE.with_label_values(&[name.as_str(), result]).inc();
    let limit = access.settings.diagnose.max_per_source;
    let dropped = facts.len().saturating_sub(limit);
    metrics::EVIDENCE_DROPPED.with_label_values(&[name.as_str()]).inc_by(dropped as u64);
    facts.truncate(limit);
    (facts.into_iter().map(tidy).collect(), missing)
}

const MAX_SUMMARY: usize = 300;
const MAX_DATA: usize = 4096;

/// Masks and bounds what goes into the store, to people and to models.
fn tidy(mut fact: Fact) -> Fact {
    fact.summary = fact.summary.map(&|part| bounded(part, MAX_SUMMARY));
    fact.service = bounded(&fact.service, 100);
    redact::mask_json(&mut fact.data);
    if fact.data.to_string().len() > MAX_DATA {
        let id = fact.data["id"].take();
        fact.data = serde_json::json!({"id": id, "omitted": format!("more than {MAX_DATA} bytes")});
    }
    fact
}

/// One line, secrets masked before it is cut: a cut secret may no longer look like one.
pub(super) fn bounded(text: &str, max: usize) -> String {
    let line: String = redact::mask(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    match redact::cut(line, max) {
        cut if cut.len() < line.len() => format!("{}…", redact::cut(cut, max.saturating_sub(3))),
        whole => whole.to_owned(),
    }
}

/// How far `at` is from the onset, for people: `12m before the onset`.
fn from_onset(onset: Timestamp, at: Timestamp) -> Said {
    let (before, after) = (clock::between(at, onset), clock::between(onset, at));
    let phrase = match before.max(after) {
        gap if gap < Duration::from_secs(1) => Phrase::AtOnset {},
        gap if at <= onset => Phrase::BeforeOnset { gap: Short(gap) },
        gap => Phrase::AfterOnset { gap: Short(gap) },
    };
    phrase.into()
}
