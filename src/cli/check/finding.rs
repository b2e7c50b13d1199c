//! What `check` found, one line each.

use serde::Serialize;

use crate::cli::output;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// Works, but not as well as it could.
    Advice,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub level: Level,
    /// A file, a setting, or a service.
    pub at: String,
    /// What is there; for the other levels also what would be right.
    pub message: String,
}

#[derive(Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub fn ok(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Ok, at, message);
    }
    pub fn advice(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Advice, at, message);
    }
    pub fn error(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Error, at, message);
    }
    fn add(&mut self, level: Level, at: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { level, at: at.into(), message: message.into() });
    }
    pub fn all(&self) -> &[Finding] {
        &self.0
    }
    pub fn into_all(self) -> Vec<Finding> {
        self.0
    }
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|f| f.level == level).count()
    }
    /// One line each, and how many there are of each level.
    pub fn render(&self) -> String {
        let width = self.0.iter().map(|f| f.at.chars().count()).max().unwrap_or(0).min(48);
        let mut lines: Vec<String> = self
            .0
            .iter()
            .map(|f| {
                let at = output::line(&f.at);
                format!("{:<6}  {at:<width$}  {}", f.level.word(), output::line(&f.message))
            })
            .collect();
        let (errors, advice) = (self.count(Level::Error), self.count(Level::Advice));
        lines.push(format!("{} looked at, {errors} wrong, {advice} to improve.", self.0.len()));
        lines.join("\n")
    }
}
