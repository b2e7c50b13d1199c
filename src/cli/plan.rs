//! Plans, steps and ids in the words of a terminal.

use super::output;
use crate::model::{Action, Expect, Plan, Probe};

/// Everything that will happen, as short as it can be said.
pub(super) fn describe(plan: &Plan) -> String {
    let mut out = format!("{} (playbook {}, on {})", plan.title, plan.playbook, plan.target);
    for (i, step) in plan.steps.iter().enumerate() {
        out.push_str(&format!("\n  {}. {}", i + 1, action(&step.action)));
    }
    if let Some(v) = &plan.verify {
        let within = humantime::format_duration(v.within);
        let probes = v.probes.iter().map(probe).collect::<Vec<_>>().join("; ");
        out.push_str(&format!("\n  then, within {within}: {probes}"));
    }
    if !plan.rollback.is_empty() {
        out.push_str(&format!("\n  if that fails: {} steps back", plan.rollback.len()));
    }
    output::plain(&out)
}

/// A step in a line.
fn action(action: &Action) -> String {
    match action {
        Action::Command { argv } => format!("run {}", argv.join(" ")),
        Action::Http { method, url, .. } => format!("{method} {url}"),
        Action::Prometheus { query, expect } => format!("ask Prometheus: {query} {}", expected(expect)),
        Action::Wait { duration } => format!("wait {}", humantime::format_duration(*duration)),
        Action::Notify { text } => format!("tell: {text}"),
    }
}

/// A question to the world in a line.
fn probe(probe: &Probe) -> String {
    match probe {
        Probe::Prometheus { query, expect } => format!("{query} {}", expected(expect)),
        Probe::Http { url, expect } if expect.is_empty() => format!("{url} answers 2xx"),
        Probe::Http { url, expect } => {
            let statuses: Vec<String> = expect.iter().map(u16::to_string).collect();
            format!("{url} answers {}", statuses.join(" or "))
        }
        Probe::Command { argv } => format!("{} exits with 0", argv.join(" ")),
    }
}

fn expected(expect: &Expect) -> String {
    match expect {
        Expect::Empty => "returns nothing".to_owned(),
        Expect::Present => "returns something".to_owned(),
        Expect::Above(n) => format!("is above {n}"),
        Expect::Below(n) => format!("is below {n}"),
        Expect::Equals(n) => format!("equals {n}"),
    }
}
