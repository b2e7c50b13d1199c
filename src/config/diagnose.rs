//! What is gathered as evidence, and how long that may take.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// Evidence, the rules tier and the prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diagnose {
    /// The first round's evidence sources are not waited for any longer: the rules tier answers within 2 s of the opening.
    #[serde(with = "humantime_serde")]
    pub evidence_timeout: Duration,
    /// Evidence reaches back so far before the incident began.
    #[serde(with = "humantime_serde")]
    pub look_back: Duration,
    /// A change this long before the onset is still a suspect.
    #[serde(with = "humantime_serde")]
    pub change_window: Duration,
    /// Resolved incidents of the same service or alert are looked for so far back.
    #[serde(with = "humantime_serde")]
    pub past_incidents: Duration,
    /// At most so many facts from one source.
    pub max_per_source: usize,
    /// Where `diagnose.system.j2` and `diagnose.user.j2` are looked for; the built-in texts stand in for a file that is not there.
    pub prompts: PathBuf,
    /// Further regular expressions for secrets; a group is masked alone, without one the whole match.
    pub mask: Vec<String>,
    pub prometheus: Queries,
}

/// What to ask Prometheus about an incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queries {
    /// Name to PromQL. `$match` becomes the label matchers for the service, quoted and escaped:
    /// `rate(http_errors_total{$match}[5m])`.
    pub queries: BTreeMap<String, String>,
    /// The label by which `$match` finds the service.
    pub service_label: String,
    /// Also ask for the expressions of the alerts themselves, which their generator URL carries.
    pub alert_expressions: bool,
}

impl Default for Diagnose {
    fn default() -> Self {
        Self {
            evidence_timeout: Duration::from_millis(1500),
            look_back: Duration::from_secs(1800),
            change_window: Duration::from_secs(7200),
            past_incidents: Duration::from_secs(90 * 86_400),
            max_per_source: 12,
            prompts: "config/prompts".into(),
            mask: Vec::new(),
            prometheus: Queries::default(),
        }
    }
}

impl Default for Queries {
    fn default() -> Self {
        Self { queries: BTreeMap::new(), service_label: "job".into(), alert_expressions: true }
    }
}

impl Diagnose {
    /// The `mask` patterns, ready to use; those that do not compile were reported by the check.
    pub fn mask_patterns(&self) -> Vec<regex::Regex> {
        self.mask.iter().filter_map(|p| regex::Regex::new(p).ok()).collect()
    }
}

impl Check for Diagnose {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (name, value) in [
            ("look_back", self.look_back),
            ("change_window", self.change_window),
            ("past_incidents", self.past_incidents),
        ] {
            check::positive(&format!("{at}.{name}"), value, problems);
        }
        if !(Duration::from_millis(50)..=Duration::from_millis(1700)).contains(&self.evidence_timeout) {
            problems.push(Problem::new(
                format!("{at}.evidence_timeout"),
                "must be from 50ms to 1700ms: the first diagnosis is owed within 2s",
            ));
        }
        if !(1..=100).contains(&self.max_per_source) {
            problems.push(Problem::new(format!("{at}.max_per_source"), "must be from 1 to 100"));
        }
        for (i, pattern) in self.mask.iter().enumerate() {
            match regex::Regex::new(pattern) {
                Err(e) => {
                    let last = e.to_string().lines().last().unwrap_or_default().to_owned();
                    problems.push(Problem::new(
                        format!("{at}.mask[{i}]"),
                        format!("is not a regular expression: {last}"),
                    ));
                }
                Ok(r) if r.is_match("") => {
                    problems.push(Problem::new(format!("{at}.mask[{i}]"), "must not match the empty text"));
                }
                Ok(_) => {}
            }
        }
        self.prometheus.check(&format!("{at}.prometheus"), problems);
    }
}

impl Check for Queries {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let label = &self.service_label;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if label.is_empty() || !label.chars().all(named) || label.starts_with(|c: char| c.is_ascii_digit()) {
            problems.push(Problem::new(
                format!("{at}.service_label"),
                format!("{label:?} is not a label name, such as job"),
            ));
        }
        for (name, query) in &self.queries {
            if !query.contains("$match") {
                problems.push(Problem::new(
                    format!("{at}.queries.{name}"),
                    "must contain $match, such as rate(http_errors_total{$match}[5m]): it would ask about every service otherwise",
                ));
            }
        }
    }
}
