//! Playbooks: YAML that people write → typed, linted documents → a [`crate::model::Plan`] in which every value stands in the
//! one place that it may stand in. Hands offers to diagnosis and plans to decide.
//!
//! Text from outside (a label, a chat, a model) is only ever a *value* of a typed parameter. A value is checked against the
//! parameter's own rules, and is then put into exactly one argument, one URL segment, one JSON string or one quoted PromQL
//! string, escaped for that place. It is never read as a template again.

mod bind;
mod document;
mod lint;
mod locate;
mod param;
mod promql;
mod registry;
mod render;
mod template;
#[cfg(test)]
mod tests;
mod url;

pub use bind::{Facts, Refusal};
pub use document::{
    Action, ApprovalMode, Match, Playbook, Probe, ProbeRequest, Query, Request, Step, Verify, WaitFor,
};
pub use lint::{Finding, Level};
pub use param::{Param, ParamType, Source, Value};
pub use registry::{Catalog, Loaded, Registry};
pub use template::Template;

/// The JSON Schema of a playbook file, for editors. `docs/playbook.schema.json` is this text.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Playbook).to_value()
}

/// Parses one file without linting it; the finding says where it is wrong.
pub fn parse(file: &str, text: &str) -> Result<Playbook, Finding> {
    const LIMIT: usize = 256 << 10;
    if text.len() > LIMIT {
        let message = format!("a playbook is at most {LIMIT} bytes long; this is {}", text.len());
        return Err(Finding::error(file, (1, 1), "", message));
    }
    serde_yaml::from_str_with_options(text, crate::config::yaml_options()).map_err(|e| {
        let (at, message) = crate::config::yaml_error(&e);
        Finding::error(file, at, "", message)
    })
}
