//! A run: a plan being carried out, with a journal of intent and result around every step.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Actor, Plan, Said};

super::words!(
    /// Where a run stands. The last four are final.
    RunState {
        Running = "running",
        /// A step's outcome is unknown, or the kill switch stopped it: a human decides.
        NeedsHuman = "needs_human",
        Verifying = "verifying",
        RollingBack = "rolling_back",
        Succeeded = "succeeded",
        Failed = "failed",
        RolledBack = "rolled_back",
        Cancelled = "cancelled",
    }
);

impl RunState {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::RolledBack | Self::Cancelled)
    }
}

/// A plan under way or done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    pub id: String,
    pub incident_id: Option<String>,
    pub state: RunState,
    pub plan: Plan,
    pub plan_hash: String,
    /// Who allowed it: the approver, or the policy.
    pub allowed_by: Actor,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// Why it ended as it did, or what it waits for.
    #[serde(serialize_with = "Said::as_text")]
    #[schema(value_type = String)]
    pub outcome: Said,
    pub steps: Vec<StepRecord>,
}

super::words!(
    /// Which list of the plan a step record belongs to.
    Phase {
        Main = "main",
        Rollback = "rollback",
    }
);

super::words!(
    /// The journal: `Intended` is on disk before the step starts; finding it there after a crash means nobody knows.
    StepState {
        Intended = "intended",
        Succeeded = "succeeded",
        Failed = "failed",
        Unknown = "unknown",
    }
);

/// One try of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepRecord {
    pub phase: Phase,
    /// Position in the plan's list.
    pub position: i64,
    pub attempt: i64,
    pub step_id: String,
    pub state: StepState,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// What it printed or answered, masked and cut to 4 KiB.
    pub output: String,
}
