//! What the demo proves, in numbers: every time is taken from the timeline, from the phone, or from the victim's own answers.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock,
    model::{TimelineEntry, TimelineKind},
};

/// The end of the demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The victim's own last answer.
    pub healed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broke_at: Option<Timestamp>,
    /// From the first bad answer to the message that rang the phone.
    pub seconds_to_page: Option<f64>,
    /// … to the first diagnosis.
    pub seconds_to_diagnosis: Option<f64>,
    /// … to the verified fix, the time for the approval included.
    pub seconds_to_fix: Option<f64>,
    /// Of these, from the question to its answer.
    pub seconds_waiting_for_approval: Option<f64>,
    /// … to the end of the incident.
    pub seconds_to_resolve: Option<f64>,
}

impl Summary {
    pub fn of(
        healed: bool,
        broke_at: Option<Timestamp>,
        paged_at: Option<Timestamp>,
        story: &[TimelineEntry],
    ) -> Self {
        let first = |kind: TimelineKind| story.iter().find(|e| e.kind == kind).map(|e| e.at);
        let seconds = |from: Option<Timestamp>, to: Option<Timestamp>| {
            Some(clock::between(from?, to?).as_millis() as f64 / 1000.0)
        };
        let since = |to| seconds(broke_at, to);
        Self {
            healed,
            incident_id: story.first().map(|e| e.incident_id.clone()),
            broke_at,
            seconds_to_page: since(paged_at),
            seconds_to_diagnosis: since(first(TimelineKind::Diagnosed)),
            seconds_to_fix: since(first(TimelineKind::Verified)),
            seconds_waiting_for_approval: seconds(
                first(TimelineKind::Proposed),
                first(TimelineKind::Approved),
            ),
            seconds_to_resolve: since(first(TimelineKind::Resolved)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Said;

    #[test]
    fn numbers_come_from_the_story_and_stay_unknown_without_it() {
        let at = |s: i64| Timestamp::from_second(1_000 + s).expect("in range");
        let entry = |kind, s| TimelineEntry {
            seq: s,
            incident_id: "i".into(),
            at: at(s),
            kind,
            text: Said::default(),
            actor: None,
        };
        use TimelineKind::*;
        let story =
            [(Opened, 3), (Diagnosed, 4), (Proposed, 5), (Diagnosed, 6), (Approved, 9), (Verified, 12)];
        let story = story.map(|(kind, s)| entry(kind, s));
        let summary = Summary::of(true, Some(at(0)), Some(at(3)), &story);
        assert_eq!(summary.seconds_to_page, Some(3.0));
        assert_eq!(summary.seconds_to_diagnosis, Some(4.0));
        assert_eq!(summary.seconds_waiting_for_approval, Some(4.0));
        assert_eq!(summary.seconds_to_fix, Some(12.0));
        assert_eq!(summary.seconds_to_resolve, None);
        assert_eq!(Summary::of(false, None, None, &story).seconds_to_fix, None);
    }
}
