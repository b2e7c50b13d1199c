//! The Elasticsearch or OpenSearch that holds the logs, and may hold our own records.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// Elasticsearch (7.17 and later) or OpenSearch: your logs are searched there, where your own shippers put them; aiops writes none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elasticsearch {
    /// Base URLs of nodes; the next one is asked when one cannot be reached. Empty: there is none.
    pub urls: Vec<String>,
    pub auth: ElasticAuth,
    /// A PEM file with the certificate of a private authority. Empty: the authorities of Mozilla's list only.
    pub ca_file: PathBuf,
    /// For one request.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    pub logs: ElasticLogs,
    pub export: Export,
}

/// How we authenticate: a user with a password, or an API key (as Elasticsearch gives it out, encoded), or neither.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElasticAuth {
    pub user: String,
    pub password: Secret,
    pub api_key: Secret,
}

/// Where the log lines are, and how their fields are called.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElasticLogs {
    /// Indices, aliases or data streams, with commas and asterisks.
    pub index: String,
    pub fields: Fields,
}

/// Names of fields, ECS unless you say otherwise. All but time and message must be keywords (service.name.keyword, where
/// service.name is text).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    pub time: String,
    pub message: String,
    pub service: String,
    pub level: String,
    pub trace: String,
    pub host: String,
}

/// Our own records (incidents, diagnoses, audit trail), copied into indices of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    /// Their names begin with it: PREFIX-incidents-2026.11. Empty: nothing is exported.
    pub prefix: String,
    /// Indices older than this are deleted by their lifecycle policy, which `aiops check --fix` installs.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Elasticsearch {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            auth: ElasticAuth::default(),
            ca_file: PathBuf::new(),
            timeout: Duration::from_secs(3),
            logs: ElasticLogs::default(),
            export: Export::default(),
        }
    }
}

impl Default for ElasticLogs {
    fn default() -> Self {
        Self { index: "logs-*,filebeat-*".into(), fields: Fields::default() }
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            time: "@timestamp".into(),
            message: "message".into(),
            service: "service.name".into(),
            level: "log.level".into(),
            trace: "trace.id".into(),
            host: "host.name".into(),
        }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self { prefix: String::new(), retention: 365 * DAY }
    }
}

impl Fields {
    /// Each with the name of its setting.
    pub fn all(&self) -> [(&'static str, &str); 6] {
        [
            ("time", &self.time),
            ("message", &self.message),
            ("service", &self.service),
            ("level", &self.level),
            ("trace", &self.trace),
            ("host", &self.host),
        ]
    }
}

impl Elasticsearch {
    pub fn is_on(&self) -> bool {
        !self.urls.is_empty()
    }
    pub fn exports(&self) -> bool {
        self.is_on() && !self.export.prefix.is_empty()
    }
}

impl Check for Elasticsearch {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (i, url) in self.urls.iter().enumerate() {
            check::url(&format!("{at}.urls[{i}]"), url, problems);
        }
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
        let auth = &self.auth;
        if !auth.api_key.is_empty() && !auth.user.is_empty() {
            problems
                .push(Problem::new(format!("{at}.auth"), "has both user and api_key; one of them must go"));
        }
        let index = &self.logs.index;
        let named = |c: char| {
            c.is_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | ',' | '*' | ':' | '+')
        };
        let parts = index.split(',');
        if !index.chars().all(named) || parts.clone().any(|p| p.is_empty() || p.starts_with(['-', '_', '+']))
        {
            problems.push(Problem::new(
                format!("{at}.logs.index"),
                format!("{index:?} is not a list of index names and patterns, such as logs-*,filebeat-*"),
            ));
        }
        for (name, field) in self.logs.fields.all() {
            if field.is_empty() || field.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*') {
                problems.push(Problem::new(
                    format!("{at}.logs.fields.{name}"),
                    format!("{field:?} is not the name of a field"),
                ));
            }
        }
        let prefix = &self.export.prefix;
        let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !prefix.chars().all(right) || prefix.starts_with(['-', '.']) || prefix.len() > 100 {
            problems.push(Problem::new(
                format!("{at}.export.prefix"),
                format!(
                    "{prefix:?} must be lower-case letters, digits, - and ., and begin with a letter or digit"
                ),
            ));
        }
        if !prefix.is_empty() && self.urls.is_empty() {
            problems.push(Problem::new(format!("{at}.export.prefix"), format!("needs {at}.urls")));
        }
        if self.export.retention < DAY {
            problems.push(Problem::new(format!("{at}.export.retention"), "must be at least 1d"));
        }
    }
}
