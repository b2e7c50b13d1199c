//! Finds out why: gathers evidence, concludes by rules at once, then asks language models to improve on that. Hands each
//! diagnosis to decide (a playbook) and notify (the words).

mod enhance;
pub mod evidence;
mod first;
mod hypotheses;
mod offers;
mod prompt;
pub mod rank;
mod rules;
mod schema;
mod verdict;

use std::sync::Arc;

use crate::{
    config::Settings,
    llm::Chain,
    model::{Alert, Anomaly, Evidence, Incident, Offer},
    playbook::{Facts, Refusal, Registry},
};

pub use enhance::enhance;
pub use first::first;
pub use prompt::Prompts;

/// What a diagnosis calls the language models when they are what is missing.
const MODELS: &str = "llm";

/// What the stage needs.
#[derive(Clone)]
pub struct Deps {
    /// Store, Prometheus, breakers, telemetry.
    pub access: evidence::Access,
    pub chain: Arc<Chain>,
    pub prompts: Arc<Prompts>,
    pub playbooks: Arc<Registry>,
}

impl Deps {
    fn settings(&self) -> &Settings {
        &self.access.settings
    }
    /// The playbooks that fit, and why those that would fit cannot be offered.
    fn offers(
        &self,
        incident: &Incident,
        alerts: &[Alert],
        anomalies: &[Anomaly],
    ) -> (Vec<Offer>, Vec<Refusal>) {
        self.playbooks.current().offers(&Facts { incident, alerts, anomalies })
    }
}

/// What a stage entry did; its writes are in the transaction beside it.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// A new diagnosis is what people see now.
    Diagnosed {
        /// True if a language model should be asked to improve on it.
        enhance: bool,
    },
    /// Nothing new was found; what people see is as it was.
    Unchanged,
    /// There is nothing to diagnose, for the reason given.
    Skipped(String),
}

/// The evidence that a claim cites first, then the other kinds by how much they tell.
fn by_relevance<'a>(evidence: &'a [Evidence], cited: &[String]) -> Vec<&'a Evidence> {
    use crate::model::EvidenceKind as Kind;
    let weight = |e: &Evidence| match e.kind {
        Kind::Alert | Kind::Ranking => 0,
        Kind::LogAnomaly | Kind::MetricAnomaly => 1,
        Kind::Change => 2,
        Kind::PastIncident => 3,
        Kind::LogLine => 4,
        Kind::LogRate | Kind::MetricRange => 5,
    };
    let mut all: Vec<&Evidence> = evidence.iter().collect();
    all.sort_by_key(|e| (cited.iter().position(|id| *id == e.id).unwrap_or(usize::MAX), weight(e)));
    all
}

#[cfg(test)]
mod sample {
    use crate::{clock, model::*};

    pub fn incident(service: &str) -> Incident {
        let now = clock::now();
        Incident {
            id: crate::ids::new(),
            state: IncidentState::Open,
            severity: Severity::Critical,
            title: format!("{service} answers with errors").into(),
            service: service.into(),
            started_at: now,
            opened_at: now,
            updated_at: now,
            last_signal_at: now,
            resolved_at: None,
            alert_count: 1,
            firing_count: 1,
            version: 1,
            episode: 1,
            flapping: false,
            suppressed: None,
            acknowledged_by: None,
            resolved_by: None,
        }
    }

    pub fn evidence(id: &str, summary: &str) -> Evidence {
        Evidence {
            id: id.into(),
            kind: EvidenceKind::LogLine,
            source: "telemetry".into(),
            service: "shop".into(),
            summary: summary.into(),
            data: serde_json::json!({"id": id}),
            observed_at: clock::now(),
        }
    }
}
