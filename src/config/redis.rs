//! Redis, the telemetry bus that several processes share.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};

/// Where telemetry waits for the detectors. Nothing set: in this process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// One server: `redis://10.0.0.5:6379`, `rediss://…` for TLS, with a number of a database behind it if it is not 0.
    pub url: String,
    /// Or Sentinels, such as `redis://10.0.0.5:26379`, which name the server.
    pub sentinels: Vec<String>,
    /// What the Sentinels call it.
    pub master: String,
    /// Or some nodes of a Cluster, such as `redis://10.0.0.5:6379`.
    pub nodes: Vec<String>,
    pub user: String,
    pub password: Secret,
    /// What the Sentinels ask for; the servers' is `password`.
    pub sentinel_password: Secret,
    /// Whom to trust for TLS, as PEM, if not those whom the machine trusts.
    pub ca_file: PathBuf,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// Records on the streams, over all partitions; at the bound, producers wait and then hear 503.
    pub max_records: usize,
    /// Bytes on the streams, over all partitions.
    pub max_bytes: usize,
    /// How long one answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: String::new(),
            sentinels: Vec::new(),
            master: String::new(),
            nodes: Vec::new(),
            user: String::new(),
            password: Secret::default(),
            sentinel_password: Secret::default(),
            ca_file: PathBuf::new(),
            prefix: "aiops".into(),
            max_records: 1_000_000,
            max_bytes: 256 << 20,
            timeout: Duration::from_secs(3),
        }
    }
}

impl Redis {
    pub fn is_on(&self) -> bool {
        !self.url.is_empty() || !self.sentinels.is_empty() || !self.nodes.is_empty()
    }

    /// All addresses with the keys that they stand under.
    fn addresses(&self) -> impl Iterator<Item = (String, &String)> {
        let url = Some(("url".to_owned(), &self.url)).filter(|(_, url)| !url.is_empty());
        let list = |name: &'static str, all| {
            let all: std::slice::Iter<'_, String> = all;
            all.enumerate().map(move |(i, url)| (format!("{name}[{i}]"), url))
        };
        let sentinels = list("sentinels", self.sentinels.iter());
        url.into_iter().chain(sentinels).chain(list("nodes", self.nodes.iter()))
    }
}

impl Check for Redis {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let ways = [!self.url.is_empty(), !self.sentinels.is_empty(), !self.nodes.is_empty()];
        if ways.iter().filter(|given| **given).count() > 1 {
            let message =
                "give one of url (one server), sentinels with master, and nodes (a Cluster), not several";
            problems.push(Problem::new(at, message));
        }
        if self.sentinels.is_empty() != self.master.is_empty() {
            let message = "sentinels and master (the name that they give the server) belong together";
            problems.push(Problem::new(format!("{at}.master"), message));
        }
        for (name, url) in self.addresses() {
            if let Some(message) = wrong(url, name == "url") {
                problems.push(Problem::new(format!("{at}.{name}"), message));
            }
        }
        if self.prefix.is_empty()
            || !self.prefix.chars().all(|c| c.is_ascii_alphanumeric() || ":_-.".contains(c))
        {
            let message =
                "must be letters, digits and `:_-.` (braces would change where a Cluster keeps the keys)";
            problems.push(Problem::new(format!("{at}.prefix"), message));
        }
        for (name, value, least) in
            [("max_records", self.max_records, 1000), ("max_bytes", self.max_bytes, 1 << 20)]
        {
            if value < least {
                problems.push(Problem::new(format!("{at}.{name}"), format!("must be at least {least}")));
            }
        }
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}

/// What is wrong with an address.
fn wrong(url: &str, may_name_database: bool) -> Option<String> {
    let right = "must be a URL such as redis://10.0.0.5:6379, or rediss://… for TLS";
    let parsed = match reqwest::Url::parse(url) {
        Ok(parsed) => parsed,
        Err(e) => return Some(format!("{url:?}: {e}; {right}")),
    };
    let database = parsed.path().trim_matches('/');
    if !matches!(parsed.scheme(), "redis" | "rediss") || parsed.host_str().is_none_or(str::is_empty) {
        return Some(format!("{url:?} {right}"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some("must not carry a user or password; use user and password beside it".into());
    }
    let is_number = may_name_database && database.parse::<u16>().is_ok();
    if !(database.is_empty() || is_number) {
        return Some(match may_name_database {
            true => format!("{database:?} is not the number of a database"),
            false => "must not name a database".into(),
        });
    }
    parsed.query().is_some().then(|| "must not have a `?`; every setting has a key of its own".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(redis: &Redis) -> Vec<String> {
        let mut problems = Vec::new();
        redis.check("redis", &mut problems);
        problems.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
    }

    #[test]
    fn one_server_sentinels_or_a_cluster_are_accepted() {
        let some = |url: &str| vec![url.to_owned()];
        for right in [
            Redis::default(),
            Redis { url: "redis://10.0.0.5".into(), ..Redis::default() },
            Redis { url: "rediss://redis.example.org:6380/3".into(), ..Redis::default() },
            Redis { sentinels: some("redis://s:26379"), master: "main".into(), ..Redis::default() },
            Redis { nodes: some("rediss://n1:6379"), ..Redis::default() },
        ] {
            assert_eq!(problems(&right), [""; 0], "{right:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let told = |redis: Redis| problems(&redis).join("\n");
        let url = |url: &str| told(Redis { url: url.into(), ..Redis::default() });
        assert!(url("http://h:1").contains("redis.url: \"http://h:1\" must be a URL such as redis://"));
        assert!(url("10.0.0.5:6379").contains("must be a URL such as redis://10.0.0.5:6379"));
        assert!(url("redis://u:p@h:1").contains("use user and password beside it"));
        assert!(url("redis://h:1/main").contains("not the number of a database"));
        let nodes = vec!["redis://h:1/2".to_owned()];
        assert!(
            told(Redis { nodes: nodes.clone(), ..Redis::default() })
                .contains("redis.nodes[0]: must not name a database")
        );
        assert!(
            told(Redis { nodes, url: "redis://h".into(), ..Redis::default() })
                .contains("redis: give one of url")
        );
        let sentinels = vec!["redis://h:1".to_owned()];
        assert!(told(Redis { sentinels, ..Redis::default() }).contains("redis.master: sentinels and master"));
        assert!(told(Redis { prefix: "a{b}".into(), ..Redis::default() }).contains("redis.prefix"));
    }
}
