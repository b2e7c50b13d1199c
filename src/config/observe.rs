//! How the program tells about itself.

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

crate::model::words!(
    /// The form of log lines on standard error.
    LogFormat {
        Human = "human",
        Json = "json",
    }
);

/// Its own logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `aiops=debug,info`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info".into() }
    }
}

/// Export of spans by OTLP over HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of the collector (`/v1/traces` is added); empty: no export.
    pub url: String,
}

impl Check for Log {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if tracing_subscriber::EnvFilter::builder().parse(&self.filter).is_err() {
            let message = format!("{:?} is not a filter such as info, or aiops=debug,info", self.filter);
            problems.push(Problem::new(format!("{at}.filter"), message));
        }
    }
}

impl Check for Otlp {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if !self.url.is_empty() {
            check::url(&format!("{at}.url"), &self.url, problems);
        }
    }
}
