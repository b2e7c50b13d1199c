//! A plan: a playbook with its parameters, every step written out, hashed. What is approved is what runs.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Actor;

/// Everything that will happen, and nothing that is decided later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The playbook's id.
    pub playbook: String,
    /// What it does, in a sentence that is shown where it is approved.
    pub title: String,
    pub params: BTreeMap<String, serde_json::Value>,
    /// What it acts on; one run per target at a time.
    pub target: String,
    pub steps: Vec<PlanStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Undone in this order if a step or the verification fails.
    #[serde(default)]
    pub rollback: Vec<PlanStep>,
    pub guards: Guards,
    /// What the people who are called should do when it did not help.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_failure: String,
}

impl Plan {
    /// SHA-256 over the plan's JSON, 64 hex digits. Field order is fixed by the types, map order by the keys.
    pub fn hash(&self) -> String {
        let json =
            serde_json::to_vec(self).expect("a plan holds only strings, numbers and maps with string keys");
        super::sha256_hex(&json)
    }
}

/// One step, parameters filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    pub id: String,
    pub action: Action,
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    pub timeout: Duration,
    /// Declared harmless to do twice; otherwise an unknown outcome after a crash waits for a human.
    #[serde(default)]
    pub idempotent: bool,
    /// Further tries after a failure; only for an `idempotent` step.
    #[serde(default)]
    pub retries: u32,
}

/// What a step does. One variant per file in `act/steps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Runs an allow-listed executable with these arguments; never a shell.
    Command { argv: Vec<String> },
    /// Sends a request; fails unless the status is in `expect`.
    Http {
        method: String,
        url: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<serde_json::Value>,
        /// Accepted statuses; empty means 200–299.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expect: Vec<u16>,
    },
    /// Asks Prometheus; fails unless the expectation holds.
    Prometheus { query: String, expect: Expect },
    Wait {
        #[serde(with = "humantime_serde")]
        #[schema(value_type = String)]
        duration: Duration,
    },
    /// Adds a line to the incident's timeline and messages.
    Notify { text: String },
}

/// What a PromQL answer must look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect {
    /// No series is returned.
    Empty,
    /// At least one series is returned.
    Present,
    /// Every returned value is above this; no series is a failure.
    Above(f64),
    /// Every returned value is below this; no series is a failure.
    Below(f64),
    /// Every returned value equals this; no series is a failure.
    Equals(f64),
}

/// One question to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    Prometheus {
        query: String,
        expect: Expect,
    },
    Http {
        url: String,
        /// Accepted statuses; empty means 200–299.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expect: Vec<u16>,
    },
    Command {
        argv: Vec<String>,
    },
}

/// All probes must hold for `hold` on end, asked every `every`, before `within` is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub probes: Vec<Probe>,
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    pub within: Duration,
    #[serde(rename = "for", with = "humantime_serde")]
    #[schema(value_type = String)]
    pub hold: Duration,
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    pub every: Duration,
}

/// At most `count` runs of the playbook in `per`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub count: u32,
    #[serde(with = "humantime_serde")]
    #[schema(value_type = String)]
    #[schemars(with = "String")]
    pub per: Duration,
}

/// What must hold before a run may start. The lock per target is not optional and so not listed.
#[derive(
    Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Guards {
    /// Not again on the same target within this time.
    #[serde(default, with = "humantime_serde")]
    #[schema(value_type = Option<String>)]
    #[schemars(with = "Option<String>")]
    pub cooldown: Option<Duration>,
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Blast radius: at most this many targets with a run of this playbook within an hour.
    #[serde(default)]
    pub max_targets: Option<u32>,
}

super::words!(
    /// Where a question to a human stands.
    ApprovalState {
        Pending = "pending",
        Approved = "approved",
        Rejected = "rejected",
        Expired = "expired",
        /// The incident was resolved, or a newer plan took its place.
        Superseded = "superseded",
    }
);

/// A question to a human about one exact plan; usable once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Approval {
    pub id: String,
    pub incident_id: String,
    pub state: ApprovalState,
    pub plan: Plan,
    /// Of `plan`; the run refuses to start if they differ.
    pub plan_hash: String,
    #[schema(value_type = String, format = DateTime)]
    pub requested_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Actor>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub decided_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
