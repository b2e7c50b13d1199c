//! A decision: what a stage chose, and the clause that chose it. `aiops explain` reads these back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

super::words!(
    /// The stations of the one way that data flows.
    Stage {
        Intake = "intake",
        Detect = "detect",
        Correlate = "correlate",
        Diagnose = "diagnose",
        Decide = "decide",
        Act = "act",
        Verify = "verify",
        Notify = "notify",
    }
);

/// One choice, also the choice to do nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
    /// What was decided, in a word or two: `opened`, `attached`, `ignored`, `asked`, `refused`.
    pub outcome: String,
    /// The rule that decided, named as the settings or the playbook name it: `correlate.window`, `playbooks/restart.yaml guards.cooldown`.
    pub clause: String,
    /// A sentence for people.
    pub why: String,
}
