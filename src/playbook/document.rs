//! The YAML of a playbook, as people write it.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Param, Template};
use crate::model::{AnomalyKind, Expect, Guards, Matcher};

/// One playbook: when it helps, what it needs, what it does, how to tell that it helped, how to undo it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// Lower-case letters, digits and `-`; unique over all files.
    pub id: String,
    /// What it does, in a line; shown where it is approved.
    pub title: Template,
    /// The title in Russian, used if the settings say `language: ru`.
    #[serde(default)]
    pub title_ru: Option<Template>,
    /// When it helps and what it risks, for people and for the diagnosis that chooses among playbooks.
    pub description: String,
    /// The incidents that it is offered for: any of these.
    #[serde(rename = "match")]
    pub matches: Vec<Match>,
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    /// What it acts on; one run per target at a time.
    pub target: Template,
    /// It changes nothing: no `verify` needed.
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub approval: ApprovalMode,
    #[serde(default)]
    pub guards: Guards,
    pub steps: Vec<Step>,
    /// How the world is asked whether it helped.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// Done in this order if a step or the verification fails.
    #[serde(default)]
    pub rollback: Vec<Step>,
    /// What the people who are called should do when it did not help.
    #[serde(default)]
    pub on_failure: Option<Template>,
}

crate::model::words!(
    /// Who says yes.
    #[derive(Default)]
    ApprovalMode {
        /// A human, each time.
        #[default]
        Required = "required",
        /// Nobody, if the settings' `playbooks.auto` names the playbook too.
        Auto = "auto",
    }
);

/// All that is given must hold. Values are exact, or regular expressions of the whole value if they begin with `~`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// One alert of the incident has them all.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: BTreeMap<String, Matcher>,
    /// The incident's service.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub service: Option<Matcher>,
    /// An anomaly of one of these kinds belongs to the incident.
    #[serde(default)]
    pub anomaly: Vec<AnomalyKind>,
}

/// One step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Unique within the playbook.
    pub id: String,
    pub run: Action,
    #[serde(default = "minute", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Harmless to do twice. Otherwise an unknown outcome after a crash waits for a human.
    #[serde(default)]
    pub idempotent: bool,
    /// Further tries after a failure; only for an idempotent step.
    #[serde(default)]
    pub retries: u32,
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

/// What a step does.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// An allowed executable and its arguments, one list element each; never a shell.
    Command(Vec<Template>),
    Http(Request),
    Prometheus(Query),
    /// A duration, or one duration parameter.
    Wait(WaitFor),
    /// A line in the incident's story and messages.
    Notify(Template),
}

/// A duration (`10s`), or `{{ name }}` of a duration parameter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WaitFor(pub Template);

crate::model::words!(
    /// The methods that a step may use.
    #[derive(Default)]
    Method {
        #[default]
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
    }
);

impl Method {
    /// True if it only asks.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// A request to an allowed host. No redirect is followed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub method: Method,
    /// Parameters stand in path segments and query values; a `url` parameter may be the beginning.
    pub url: Template,
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// JSON; a string that is exactly `{{ name }}` becomes a value of the parameter's type.
    #[serde(default)]
    pub body: Option<serde_json::Value>,
    /// Accepted statuses; empty: 200–299.
    #[serde(default)]
    pub expect: Vec<u16>,
}

/// A question to Prometheus. Parameters stand within double quotes; numbers and durations also outside of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub query: Template,
    pub expect: Expect,
}

/// All probes must hold for `for` on end, asked every `every`, before `within` is over.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub probes: Vec<Probe>,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub within: Duration,
    #[serde(default, rename = "for", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub hold: Duration,
    #[serde(default = "five_seconds", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub every: Duration,
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

/// One question to the world.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    Prometheus(Query),
    Http(ProbeRequest),
    /// Holds if it exits with 0; must change nothing.
    Command(Vec<Template>),
}

/// A GET to an allowed host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    pub url: Template,
    /// Accepted statuses; empty: 200–299.
    #[serde(default)]
    pub expect: Vec<u16>,
}
