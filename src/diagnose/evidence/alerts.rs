//! The incident's alerts with their annotations.

use async_trait::async_trait;
use serde_json::json;

use super::{About, Access, Fact, Found, Source, SourceName};
use crate::{
    metrics,
    model::{Alert, EvidenceKind},
};

pub(super) struct Alerts;

#[async_trait]
impl Source for Alerts {
    fn name(&self) -> SourceName {
        SourceName::Alerts
    }
    fn is_at_hand(&self) -> bool {
        true
    }
    async fn gather(&self, about: &About, access: &Access) -> anyhow::Result<Found> {
        let service = |a: &Alert| access.settings.correlate.service_of(&a.labels);
        // A flood brings thousands: what would be dropped is not even made.
        let most = access.settings.diagnose.max_per_source;
        let over = about.alerts.len().saturating_sub(most);
        metrics::EVIDENCE_DROPPED.with_label_values(&[self.name().as_str()]).inc_by(over as u64);
        let facts = about.alerts.iter().take(most).map(|a| fact(a, service(a))).collect();
        Ok(Found { facts, missing: Vec::new() })
    }
}

fn fact(alert: &Alert, service: String) -> Fact {
    let mut summary = alert.name().to_owned();
    if alert.title() != alert.name() {
        summary = format!("{summary}: {}", alert.title());
    }
    if let Some(instance) = alert.labels.get("instance") {
        summary = format!("{summary} ({instance})");
    }
    Fact {
        kind: EvidenceKind::Alert,
        source: SourceName::Alerts,
        service,
        summary: summary.into(),
        data: json!({
            // The same alert that fires anew is a new fact.
            "id": format!("{}@{}", alert.fingerprint, alert.starts_at),
            "name": alert.name(),
            "labels": alert.labels,
            "annotations": alert.annotations,
            "source": alert.source,
        }),
        observed_at: alert.starts_at,
    }
}
