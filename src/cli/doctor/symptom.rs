//! What a check finds.

use serde::Serialize;

use crate::{cli::output, model::Severity};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Symptom {
    /// `info` is advice; the others are wrong.
    pub severity: Severity,
    /// A queue, a file, a setting, a service.
    pub at: String,
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl Symptom {
    pub fn new(
        severity: Severity,
        at: impl Into<String>,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { severity, at: at.into(), what: what.into(), cure: cure.into() }
    }

    pub fn is_wrong(&self) -> bool {
        self.severity > Severity::Info
    }
}

/// The worst first, each with what to do beneath it.
pub fn render(symptoms: &[Symptom], checks: usize) -> String {
    let mut lines = Vec::new();
    for s in symptoms {
        let word = if s.severity == Severity::Info { "advice" } else { s.severity.as_str() };
        lines.push(format!("{word:<8}  {}: {}", output::line(&s.at), output::line(&s.what)));
        lines.push(format!("          → {}", output::line(&s.cure)));
    }
    let count = |severity| symptoms.iter().filter(|s| s.severity == severity).count();
    let (critical, warning, advice) =
        (count(Severity::Critical), count(Severity::Warning), count(Severity::Info));
    lines.push(match symptoms.len() {
        0 => format!("{checks} checks, nothing wrong."),
        _ => format!("{checks} checks: {critical} critical, {warning} warning, {advice} advice."),
    });
    lines.join("\n")
}
