//! Deploys and configuration changes of the service and its neighbours, from well before the onset until now.

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName, from_onset};
use crate::{
    clock,
    model::{Change, EvidenceKind, Phrase},
};

pub(super) struct Changes;

#[async_trait]
impl Source for Changes {
    fn name(&self) -> SourceName {
        SourceName::Changes
    }
    fn is_at_hand(&self) -> bool {
        true
    }
    async fn gather(&self, about: &About, _: &Access) -> anyhow::Result<Found> {
        let onset = about.incident.started_at;
        let mut found: Vec<&Change> = about.changes.iter().filter(|c| about.concerns(&c.service)).collect();
        found.sort_by_key(|c| {
            (c.service != about.incident.service, clock::between(c.at, onset) + clock::between(onset, c.at))
        });
        let facts = found.into_iter().map(|c| fact(c.clone(), onset)).collect();
        Ok(Found { facts, missing: Vec::new() })
    }
}

fn fact(change: Change, onset: jiff::Timestamp) -> Fact {
    let when = from_onset(onset, change.at);
    let (what, of, summary) = (change.kind.clone(), change.service.clone(), change.summary.clone());
    let said = match change.author.clone() {
        None => Phrase::Change { what, of, summary, when },
        Some(author) => Phrase::ChangeBy { what, of, summary, author, when },
    };
    Fact {
        kind: EvidenceKind::Change,
        source: SourceName::Changes,
        summary: said.into(),
        data: json!({
            "id": change.id,
            "kind": change.kind,
            "what": change.summary,
            "author": change.author,
            "url": change.url,
        }),
        observed_at: change.at,
        service: change.service,
    }
}
