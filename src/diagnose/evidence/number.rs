//! Gives facts their ids within the incident: `E1`, `E2` … An id once given never means anything else.

use serde_json::Value;

use super::Fact;
use crate::{
    metrics,
    model::{Evidence, EvidenceKind},
};

/// More than a person or a model can use; an incident that lasts for days stops here.
const MAX_PER_INCIDENT: usize = 200;

/// The facts that `known` does not hold yet, numbered after it.
pub fn number(known: &[Evidence], facts: Vec<Fact>) -> Vec<Evidence> {
    let identity = |kind: EvidenceKind, data: &Value| (kind, data["id"].to_string());
    let mut seen: std::collections::HashSet<_> = known.iter().map(|e| identity(e.kind, &e.data)).collect();
    let last = known.iter().filter_map(|e| e.id.strip_prefix('E')?.parse::<usize>().ok()).max().unwrap_or(0);
    let mut fresh = Vec::new();
    for fact in facts {
        if !seen.insert(identity(fact.kind, &fact.data)) {
            continue;
        }
        if known.len() + fresh.len() >= MAX_PER_INCIDENT {
            metrics::EVIDENCE_DROPPED.with_label_values(&[fact.source.as_str()]).inc();
            continue;
        }
        fresh.push(Evidence {
            id: format!("E{}", last + 1 + fresh.len()),
            kind: fact.kind,
            source: fact.source.to_string(),
            service: fact.service,
            summary: fact.summary,
            data: fact.data,
            observed_at: fact.observed_at,
        });
    }
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::evidence::SourceName;

    fn fact(id: &str) -> Fact {
        Fact {
            kind: EvidenceKind::Change,
            source: SourceName::Changes,
            service: "shop".into(),
            summary: format!("deploy {id}").into(),
            data: serde_json::json!({ "id": id }),
            observed_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_second_round_appends_and_keeps_the_numbers() {
        let mut known = number(&[], vec![fact("a"), fact("b"), fact("a")]);
        assert_eq!(known.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["E1", "E2"]);
        let fresh = number(&known, vec![fact("b"), fact("c")]);
        assert_eq!(fresh.len(), 1);
        assert_eq!((fresh[0].id.as_str(), fresh[0].summary.as_str()), ("E3", "deploy c"));
        known.extend(fresh);
        assert!(number(&known, vec![fact("c")]).is_empty());
    }
}
