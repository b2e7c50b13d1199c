//! Playbooks: where they are, and what they may touch.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Check, HttpAuth, Problem, check};

/// What a playbook may do is bounded here, by the operator, and not in the playbook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playbooks {
    /// Every `*.yaml` in it is a playbook. A directory that is not there holds none.
    pub dir: PathBuf,
    /// The executables that steps may run, by absolute path. A bare name in a playbook means the one of that name here.
    pub executables: Vec<PathBuf>,
    /// The hosts that steps may send requests to: `host` (the scheme's own port) or `host:port`.
    pub http_hosts: Vec<String>,
    /// Credentials for these hosts; they never appear in a plan.
    pub http_auth: BTreeMap<String, HttpAuth>,
    /// Values for parameters that say `from: setting NAME`, such as a supervisor's URL.
    pub values: BTreeMap<String, String>,
    /// Playbooks that may run without being asked for, if they say `approval: auto` too.
    pub auto: Vec<String>,
    /// How long a question to a human stays open.
    #[serde(with = "humantime_serde")]
    pub approval_expires: Duration,
    /// The longest that the steps of one run may take by their own timeouts.
    #[serde(with = "humantime_serde")]
    pub max_duration: Duration,
}

impl Default for Playbooks {
    fn default() -> Self {
        Self {
            dir: "playbooks".into(),
            executables: Vec::new(),
            http_hosts: Vec::new(),
            http_auth: BTreeMap::new(),
            values: BTreeMap::new(),
            auto: Vec::new(),
            approval_expires: Duration::from_secs(1800),
            max_duration: Duration::from_secs(3600),
        }
    }
}

impl Playbooks {
    /// The allowed executable that `name` (a bare name or an absolute path) stands for.
    pub fn executable(&self, name: &str) -> Option<&Path> {
        let wanted = Path::new(name);
        self.executables.iter().map(PathBuf::as_path).find(|allowed| {
            if name.contains('/') {
                *allowed == wanted
            } else {
                allowed.file_name() == Some(wanted.as_os_str())
            }
        })
    }
    /// The entry of the allow-list that covers a URL's host and port.
    pub fn http_host(&self, url: &reqwest::Url) -> Option<&str> {
        let host = url.host_str()?;
        let with_port = format!("{host}:{}", url.port_or_known_default()?);
        let plain = url.port().is_none().then_some(host);
        self.http_hosts.iter().map(String::as_str).find(|h| *h == with_port || Some(*h) == plain)
    }
    /// Credentials for a URL's host, if there are any.
    pub fn auth(&self, url: &reqwest::Url) -> Option<&HttpAuth> {
        self.http_auth.get(self.http_host(url)?)
    }
}

impl Check for Playbooks {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (i, path) in self.executables.iter().enumerate() {
            let key = format!("{at}.executables[{i}]");
            if !path.is_absolute() {
                let message =
                    format!("{} must be an absolute path, such as /usr/bin/systemctl", path.display());
                problems.push(Problem::new(key, message));
            } else if self.executables[..i].iter().any(|other| other.file_name() == path.file_name()) {
                let message =
                    format!("{} has the same name as an earlier one; keep one of them", path.display());
                problems.push(Problem::new(key, message));
            } else if is_interpreter(path) {
                let message = format!(
                    "{} runs whatever its arguments say; allow the one script that you need instead",
                    path.display()
                );
                problems.push(Problem::new(key, message));
            }
        }
        for (i, host) in self.http_hosts.iter().enumerate() {
            let parsed = reqwest::Url::parse(&format!("http://{host}/"));
            let plain =
                parsed.is_ok_and(|u| u.path() == "/" && u.query().is_none() && u.username().is_empty());
            if !plain || host.contains(['/', '@', '*', '?', '#']) {
                problems.push(Problem::new(
                    format!("{at}.http_hosts[{i}]"),
                    format!("{host:?} must be a host, or host:port, such as 127.0.0.1:9001"),
                ));
            }
        }
        for host in self.http_auth.keys().filter(|host| !self.http_hosts.contains(host)) {
            let message = "has credentials but is not in http_hosts; add it there, or remove it here";
            problems.push(Problem::new(format!("{at}.http_auth.{host}"), message));
        }
        check::positive(&format!("{at}.approval_expires"), self.approval_expires, problems);
        check::positive(&format!("{at}.max_duration"), self.max_duration, problems);
    }
}

/// A shell or an interpreter on the allow-list would make the allow-list worthless.
fn is_interpreter(path: &Path) -> bool {
    const NAMES: [&str; 16] = [
        "sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "xargs", "sudo", "su", "perl", "ruby",
        "node", "python", "ssh",
    ];
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    NAMES.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_means_the_allowed_path() {
        let p = Playbooks { executables: vec!["/usr/bin/systemctl".into()], ..Default::default() };
        assert_eq!(p.executable("systemctl"), Some(Path::new("/usr/bin/systemctl")));
        assert_eq!(p.executable("/usr/bin/systemctl"), Some(Path::new("/usr/bin/systemctl")));
        assert_eq!(p.executable("/tmp/systemctl"), None);
        assert_eq!(p.executable("rm"), None);
    }

    #[test]
    fn hosts_match_with_their_port() {
        let p = Playbooks {
            http_hosts: vec!["127.0.0.1:9001".into(), "ci.internal".into()],
            ..Default::default()
        };
        let host = |u: &str| p.http_host(&reqwest::Url::parse(u).expect("a URL")).map(str::to_owned);
        assert_eq!(host("http://127.0.0.1:9001/x").as_deref(), Some("127.0.0.1:9001"));
        assert_eq!(host("http://127.0.0.1:9002/x"), None);
        assert_eq!(host("https://ci.internal/x").as_deref(), Some("ci.internal"));
        assert_eq!(host("https://ci.internal:8443/x"), None);
        assert_eq!(host("https://ci.internal.evil.example/x"), None);
    }

    #[test]
    fn open_doors_are_named() {
        let p = Playbooks {
            executables: vec!["bin/x".into(), "/bin/bash".into(), "/usr/bin/python3.11".into()],
            http_hosts: vec!["http://x/".into()],
            http_auth: [("y".to_owned(), HttpAuth::default())].into(),
            ..Default::default()
        };
        let mut problems = Vec::new();
        p.check("playbooks", &mut problems);
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "playbooks.executables[0]",
                "playbooks.executables[1]",
                "playbooks.executables[2]",
                "playbooks.http_hosts[0]",
                "playbooks.http_auth.y"
            ]
        );
    }
}
