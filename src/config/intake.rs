//! What may come in, from whom, and how it is read.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// Sources with a route and a format of their own; any other name needs a mapping.
pub const BUILT_IN: [&str; 5] = ["alertmanager", "prometheus", "logs", "metrics", "changes"];
/// Names that mean something else where an alert's source is shown, or are routes.
const RESERVED: [&str; 3] = ["aiops", "reconcile", "slack"];
const SHORTEST_SECRET: usize = 16;

/// Intake of alerts, logs, metrics and changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Deliveries that may wait for the writer; more are answered by 503.
    pub queue: usize,
    /// A delivery that is not durable by then is answered by 503.
    #[serde(with = "humantime_serde")]
    pub commit_timeout: Duration,
    /// An alert on `/api/v2/alerts` that names no end counts as resolved when it is not repeated for so long.
    #[serde(with = "humantime_serde")]
    pub resolve_timeout: Duration,
    /// How often alerts are looked for whose sender promised to repeat them and did not.
    #[serde(with = "humantime_serde")]
    pub expire_every: Duration,
    /// By name: `alertmanager`, `prometheus`, `logs`, `metrics`, `changes`, or a webhook of your own with a mapping.
    pub sources: BTreeMap<String, Source>,
}

/// Who may send in the name of a source. Nobody listed: an API token with the role `intake` is needed, or, on loopback,
/// nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Any of them is taken: list the old and the new one while they are exchanged.
    pub bearer: Vec<Secret>,
    /// Any of them is taken.
    pub basic: Vec<Basic>,
    /// How `/api/v1/webhooks/{name}` reads its body; not for the built-in sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
}

/// A user with a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    pub user: String,
    pub password: Secret,
}

impl Source {
    pub fn has_credentials(&self) -> bool {
        !self.bearer.is_empty() || !self.basic.is_empty()
    }
}

/// Where things stand in a JSON body. A path is dotted (`rule.tags.0`) or a JSON pointer (`/rule/tags/0`); the empty path is
/// the item itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// The array of alerts; empty: the body is one alert, or an array of them.
    pub items: String,
    /// An object whose scalar members become labels; empty: none.
    pub labels: String,
    /// An object whose scalar members become annotations; empty: none.
    pub annotations: String,
    /// Label name → path. Together with `labels` and `fixed_labels` it must give `alertname`.
    pub label: BTreeMap<String, String>,
    /// Annotation name → path.
    pub annotation: BTreeMap<String, String>,
    /// Labels that every alert of this source gets.
    pub fixed_labels: BTreeMap<String, String>,
    /// The word that says whether it fires; empty: everything fires.
    pub state: String,
    /// Words that mean firing, in any case.
    pub firing: Vec<String>,
    /// Words that mean resolved, in any case.
    pub resolved: Vec<String>,
    /// RFC 3339, or seconds or milliseconds since 1970; empty or absent: now.
    pub starts_at: String,
    pub ends_at: String,
    /// A link back to where it came from.
    pub url: String,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            queue: 4096,
            commit_timeout: Duration::from_secs(5),
            resolve_timeout: Duration::from_secs(300),
            expire_every: Duration::from_secs(5),
            sources: BTreeMap::new(),
        }
    }
}

impl Check for Intake {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if !(1..=1_000_000).contains(&self.queue) {
            problems.push(Problem::new(format!("{at}.queue"), "must be between 1 and 1000000"));
        }
        for (name, value) in [
            ("commit_timeout", self.commit_timeout),
            ("resolve_timeout", self.resolve_timeout),
            ("expire_every", self.expire_every),
        ] {
            check::positive(&format!("{at}.{name}"), value, problems);
        }
        for (name, source) in &self.sources {
            let at = format!("{at}.sources.{name}");
            check_name(&at, name, source.mapping.is_some(), problems);
            source.check(&at, problems);
        }
    }
}

fn check_name(at: &str, name: &str, mapped: bool, problems: &mut Vec<Problem>) {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let wrong = if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        "a source's name must be lower-case letters, digits, - and _, at most 64"
    } else if RESERVED.contains(&name) {
        "this name is taken; choose another"
    } else if BUILT_IN.contains(&name) && mapped {
        "this source has a format of its own and takes no mapping"
    } else if !BUILT_IN.contains(&name) && !mapped {
        "must have a mapping, or be one of alertmanager, prometheus, logs, metrics, changes"
    } else {
        return;
    };
    problems.push(Problem::new(at, wrong));
}

impl Check for Source {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut secret = |key: String, secret: &Secret| {
            if secret.expose().len() < SHORTEST_SECRET {
                let message =
                    format!("must have at least {SHORTEST_SECRET} characters; try: openssl rand -hex 32");
                problems.push(Problem::new(key, message));
            }
        };
        for (i, bearer) in self.bearer.iter().enumerate() {
            secret(format!("{at}.bearer[{i}]"), bearer);
        }
        for (i, basic) in self.basic.iter().enumerate() {
            secret(format!("{at}.basic[{i}].password"), &basic.password);
        }
        for (i, basic) in self.basic.iter().enumerate() {
            if basic.user.is_empty() || basic.user.contains(':') {
                problems
                    .push(Problem::new(format!("{at}.basic[{i}].user"), "must be there and hold no colon"));
            }
        }
        if let Some(mapping) = &self.mapping {
            mapping.check(&format!("{at}.mapping"), problems);
        }
    }
}

impl Check for Mapping {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let named = self.label.contains_key("alertname") || self.fixed_labels.contains_key("alertname");
        if !named && self.labels.is_empty() {
            let message = "must say where alertname is: label: {alertname: rule.name}";
            problems.push(Problem::new(format!("{at}.label"), message));
        }
        if !self.state.is_empty() && (self.firing.is_empty() || self.resolved.is_empty()) {
            let message = "needs the words for both: firing: [alerting], resolved: [ok]";
            problems.push(Problem::new(format!("{at}.state"), message));
        }
        let both = self.firing.iter().find(|word| self.resolved.iter().any(|w| w.eq_ignore_ascii_case(word)));
        if let Some(word) = both {
            problems
                .push(Problem::new(format!("{at}.resolved"), format!("{word:?} cannot mean both states")));
        }
    }
}

/// Reports a listener that anybody can reach while nobody has to say who he is.
pub(super) fn check_doors(listen: &str, intake: &Intake, problems: &mut Vec<Problem>) {
    let Ok(address) = listen.parse::<SocketAddr>() else { return };
    if !address.ip().is_loopback() && !intake.sources.values().any(Source::has_credentials) {
        let message = format!(
            "{listen} can be reached from beyond this host, and no source of alerts has to authenticate; \
             set intake.sources.alertmanager.bearer (and send it from Alertmanager), or listen on 127.0.0.1"
        );
        problems.push(Problem::new("listen", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(intake: &Intake) -> Vec<String> {
        let mut problems = Vec::new();
        intake.check("intake", &mut problems);
        problems.into_iter().map(|p| p.key).collect()
    }

    fn source(yaml: &str) -> Source {
        serde_yaml::from_str(yaml).expect("valid YAML")
    }

    #[test]
    fn a_short_secret_is_named() {
        let mut intake = Intake::default();
        assert_eq!(problems(&intake), [""; 0]);
        let yaml = "bearer: [0123456789abcdef, short]\nbasic: [{user: am, password: short}]";
        intake.sources.insert("alertmanager".into(), source(yaml));
        assert_eq!(
            problems(&intake),
            ["intake.sources.alertmanager.bearer[1]", "intake.sources.alertmanager.basic[0].password"]
        );
    }

    #[test]
    fn a_source_of_ones_own_needs_a_mapping_with_a_name_for_the_alert() {
        let mut intake = Intake::default();
        intake.sources.insert("zabbix".into(), source("{}"));
        intake.sources.insert("slack".into(), source("mapping: {label: {alertname: name}}"));
        intake.sources.insert("logs".into(), source("mapping: {label: {alertname: name}}"));
        intake.sources.insert("vague".into(), source("mapping: {state: s, firing: [a], resolved: [A]}"));
        assert_eq!(
            problems(&intake),
            [
                "intake.sources.logs",
                "intake.sources.slack",
                "intake.sources.vague.mapping.label",
                "intake.sources.vague.mapping.resolved",
                "intake.sources.zabbix",
            ]
        );
    }

    #[test]
    fn an_address_beyond_loopback_needs_authentication() {
        let doors = |listen: &str, intake: &Intake| {
            let mut problems = Vec::new();
            check_doors(listen, intake, &mut problems);
            problems.len()
        };
        let mut intake = Intake::default();
        assert_eq!(doors("127.0.0.1:8080", &intake), 0);
        assert_eq!(doors("[::1]:8080", &intake), 0);
        assert_eq!(doors("0.0.0.0:8080", &intake), 1);
        intake.sources.insert("alertmanager".into(), source("bearer: [0123456789abcdef]"));
        assert_eq!(doors("0.0.0.0:8080", &intake), 0);
    }
}
