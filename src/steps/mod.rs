//! Does one thing to the world, or asks it one thing: the hands of `act` and the eyes of `verify`. Hands back what came of it
//! and what was said, masked and cut.
//!
//! A new kind is a file here, a variant of [`Action`] with the playbook's way to write it, and one line in [`run`].

mod command;
mod http;
mod notify;
mod prometheus;
mod wait;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    model::{Action, PlanStep, Probe},
    playbook::Registry,
};

/// What steps work with.
#[derive(Clone)]
pub struct Tools {
    /// For the allow-lists, which are asked again right before something is done.
    pub registry: Arc<Registry>,
    pub http: reqwest::Client,
    pub prometheus: config::Prometheus,
    /// Private working directories are made under it.
    pub data_dir: PathBuf,
}

/// For whom a step is done.
#[derive(Clone, Debug)]
pub struct Context {
    pub run_id: String,
    pub incident_id: Option<String>,
    /// When this try began; a wait ends relative to it, also over a restart.
    pub started_at: Timestamp,
    pub timeout: Duration,
}

crate::model::words!(
    /// How a step ended.
    Ended {
        Succeeded = "succeeded",
        Failed = "failed",
        /// It may have been done, in part or wholly; nobody can tell.
        Unknown = "unknown",
        /// It was stopped from outside and has changed nothing.
        Stopped = "stopped",
    }
);

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub ended: Ended,
    /// What was said, masked, at most [`MAX_OUTPUT`] bytes.
    pub output: String,
}

/// What is kept of an output.
pub const MAX_OUTPUT: usize = 4096;

impl Outcome {
    fn new(ended: Ended, output: &str) -> Self {
        Self { ended, output: brief(output, MAX_OUTPUT) }
    }
    fn succeeded(output: &str) -> Self {
        Self::new(Ended::Succeeded, output)
    }
    fn failed(output: &str) -> Self {
        Self::new(Ended::Failed, output)
    }
}

/// Masked first, so that a cut never leaves half a secret; then the end of it, where errors stand.
fn brief(text: &str, max: usize) -> String {
    let masked = crate::redact::mask(text.trim_end());
    if masked.len() <= max {
        return masked;
    }
    let from = masked.ceil_char_boundary(masked.len() - (max - "…".len()));
    format!("…{}", &masked[from..])
}

/// Does it. `stop` ends it early; a command is then terminated with its whole process group.
pub async fn run(tools: &Tools, action: &Action, context: &Context, stop: &CancellationToken) -> Outcome {
    match action {
        Action::Command { argv } => command::run(tools, argv, context, stop).await,
        Action::Http { .. } => http::run(tools, action, context, stop).await,
        Action::Prometheus { query, expect } => prometheus::run(tools, query, expect, context, stop).await,
        Action::Wait { duration } => wait::run(*duration, context, stop).await,
        Action::Notify { text } => notify::run(text),
    }
}

/// Asks one question; `Succeeded` means that it holds, everything else that it does not, or that nobody can tell.
pub async fn ask(tools: &Tools, probe: &Probe, context: &Context, stop: &CancellationToken) -> Outcome {
    match probe {
        Probe::Command { argv } => command::run(tools, argv, context, stop).await,
        Probe::Http { url, expect } => {
            let action = Action::Http {
                method: "GET".into(),
                url: url.clone(),
                headers: Default::default(),
                body: None,
                expect: expect.clone(),
            };
            http::run(tools, &action, context, stop).await
        }
        Probe::Prometheus { query, expect } => prometheus::run(tools, query, expect, context, stop).await,
    }
}

/// Removes what the commands of a run left in their private directory. Call it when the run is over.
pub fn clean(tools: &Tools, run_id: &str) {
    command::clean(&tools.data_dir, run_id);
}

/// True if doing the step twice does no harm, by its nature or by declaration.
pub fn repeatable(step: &PlanStep) -> bool {
    step.idempotent
        || match &step.action {
            Action::Command { .. } => false,
            Action::Http { method, .. } => method == "GET" || method == "HEAD",
            Action::Prometheus { .. } | Action::Wait { .. } | Action::Notify { .. } => true,
        }
}

/// What a step does, on one line, as people are shown it.
pub fn describe(action: &Action) -> String {
    match action {
        Action::Command { argv } => argv.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
        Action::Http { method, url, .. } => format!("{method} {url}"),
        Action::Prometheus { query, expect } => format!("{query} {}", prometheus::describe(expect)),
        Action::Wait { duration } => format!("wait {}", humantime::format_duration(*duration)),
        Action::Notify { text } => format!("tell: {text}"),
    }
}

/// What a probe asks, on one line.
pub fn describe_probe(probe: &Probe) -> String {
    match probe {
        Probe::Command { argv } => argv.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
        Probe::Http { url, .. } => format!("GET {url}"),
        Probe::Prometheus { query, expect } => format!("{query} {}", prometheus::describe(expect)),
    }
}

/// An argument as it is, or in quotes if it could be taken for several.
fn quoted(argument: &str) -> String {
    let plain = !argument.is_empty()
        && argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@/=+,%-".contains(&b));
    if plain { argument.to_owned() } else { format!("{argument:?}") }
}

crate::model::words!(
    /// A kind of step, for metrics.
    Kind {
        Command = "command",
        Http = "http",
        Prometheus = "prometheus",
        Wait = "wait",
        Notify = "notify",
    }
);

impl Kind {
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Command { .. } => Self::Command,
            Action::Http { .. } => Self::Http,
            Action::Prometheus { .. } => Self::Prometheus,
            Action::Wait { .. } => Self::Wait,
            Action::Notify { .. } => Self::Notify,
        }
    }
}

#[cfg(test)]
mod tests;
