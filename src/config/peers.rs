//! The monitoring that we ask back: Prometheus and Alertmanager.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// How we authenticate to a peer: a bearer token, or a user with a password, or neither.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpAuth {
    pub bearer: Secret,
    pub user: String,
    pub password: Secret,
}

impl HttpAuth {
    /// Adds the credentials to a request.
    pub fn apply(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if !self.bearer.is_empty() {
            request.bearer_auth(self.bearer.expose())
        } else if !self.user.is_empty() {
            request.basic_auth(&self.user, Some(self.password.expose()))
        } else {
            request
        }
    }
}

/// The Prometheus that verifications, evidence and watches ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// Base URL; empty: there is none, and diagnoses say so.
    pub url: String,
    pub auth: HttpAuth,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self { url: String::new(), auth: HttpAuth::default(), timeout: Duration::from_secs(3) }
    }
}

impl Check for Prometheus {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if !self.url.is_empty() {
            check::url(&format!("{at}.url"), &self.url, problems);
        }
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}

/// The Alertmanager whose API repairs what its webhook missed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alertmanager {
    /// Base URLs, one for each HA peer; empty: no reconciling.
    pub urls: Vec<String>,
    /// The receiver that sends to us, as Alertmanager's configuration calls it: what is routed to others is none of ours.
    /// Empty: all alerts are.
    pub receiver: String,
    pub auth: HttpAuth,
    #[serde(with = "humantime_serde")]
    pub reconcile_every: Duration,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Alertmanager {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            receiver: String::new(),
            auth: HttpAuth::default(),
            reconcile_every: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Check for Alertmanager {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (i, url) in self.urls.iter().enumerate() {
            check::url(&format!("{at}.urls[{i}]"), url, problems);
        }
        check::positive(&format!("{at}.reconcile_every"), self.reconcile_every, problems);
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}
