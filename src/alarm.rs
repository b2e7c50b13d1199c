//! Internal alarms: what is wrong with the program itself. Raised and cleared by whoever sees it, told of by `selfwatch`.

use std::{collections::BTreeMap, sync::Mutex};

use jiff::Timestamp;

use crate::{metrics::ALARMS, model::Severity};

crate::model::words!(
    /// What can be wrong with ourselves.
    Alarm {
        /// Acknowledged deliveries wait too long for correlation.
        InboxAging = "inbox_aging",
        /// Nothing can be made durable: senders are told 503.
        StoreFailing = "store_failing",
        /// More comes in than can be handled: telemetry, or more, is shed.
        Overloaded = "overloaded",
        /// Due jobs wait too long.
        JobsAging = "jobs_aging",
        /// A channel refuses for good, or a message missed its deadline.
        MessageDead = "message_dead",
        /// Telemetry used to come, and does not any more.
        DetectorStarving = "detector_starving",
        /// The reconciler cannot reach any Alertmanager.
        ReconcilerBlind = "reconciler_blind",
    }
);

impl Alarm {
    /// Whether what people rely on has stopped, or only a safety net has.
    pub fn severity(self) -> Severity {
        match self {
            Self::InboxAging | Self::StoreFailing | Self::JobsAging | Self::MessageDead => Severity::Critical,
            Self::Overloaded | Self::DetectorStarving | Self::ReconcilerBlind => Severity::Warning,
        }
    }
}

/// An alarm that is active.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Active {
    pub alarm: Alarm,
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// What is wrong and what would help.
    pub text: String,
}

static ACTIVE: Mutex<BTreeMap<Alarm, Active>> = Mutex::new(BTreeMap::new());

/// Raises an alarm, or renews its text.
pub fn raise(alarm: Alarm, text: impl Into<String>) {
    let text = text.into();
    let mut active = ACTIVE.lock().unwrap_or_else(|e| e.into_inner());
    let entry = active.entry(alarm).or_insert_with(|| {
        tracing::error!(alarm = alarm.as_str(), text, "internal alarm");
        Active { alarm, since: crate::clock::now(), text: String::new() }
    });
    entry.text = text;
    ALARMS.with_label_values(&[alarm.as_str()]).set(1);
}

/// Clears an alarm; does nothing if it is not active.
pub fn clear(alarm: Alarm) {
    if ACTIVE.lock().unwrap_or_else(|e| e.into_inner()).remove(&alarm).is_some() {
        tracing::info!(alarm = alarm.as_str(), "internal alarm is over");
    }
    ALARMS.with_label_values(&[alarm.as_str()]).set(0);
}

/// What is wrong now.
pub fn active() -> Vec<Active> {
    ACTIVE.lock().unwrap_or_else(|e| e.into_inner()).values().cloned().collect()
}
