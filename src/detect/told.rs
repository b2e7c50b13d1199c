//! An anomaly that was reported, until it ends.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{clock::at_second, template_detector::Verdict};
use crate::model::{AnomalyEvent, AnomalyKind};

/// The anomaly that was reported and has not ended.
#[derive(Default, Serialize, Deserialize)]
pub struct Told(Option<Box<AnomalyEvent>>);

impl Told {
    pub fn open(&self) -> Option<&AnomalyEvent> {
        self.0.as_deref()
    }

    /// Reports what a detector has to say.
    pub fn apply(
        &mut self,
        verdict: Verdict,
        kind: AnomalyKind,
        key: String,
        service: &str,
        second: i64,
        out: &mut Vec<AnomalyEvent>,
    ) {
        match verdict {
            Verdict::Onset { severity, title, detail, started } => {
                let event = AnomalyEvent {
                    kind,
                    key,
                    service: service.to_owned(),
                    severity,
                    title: title.into(),
                    detail,
                    started_at: at_second(started),
                    ended_at: None,
                };
                out.push(event.clone());
                self.0 = Some(Box::new(event));
            }
            Verdict::End { detail, .. } => self.end(detail, at_second(second + 1), out),
        }
    }

    pub fn end(&mut self, detail: Value, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        if let Some(open) = self.0.take() {
            out.push(ended(*open, detail, at));
        }
    }
}

/// The end of an anomaly: the onset's event with more detail and an end.
pub fn ended(mut onset: AnomalyEvent, detail: Value, at: Timestamp) -> AnomalyEvent {
    if let (Value::Object(all), Value::Object(more)) = (&mut onset.detail, detail) {
        all.extend(more);
    }
    onset.ended_at = Some(at.max(onset.started_at));
    onset
}
