//! The HTTP server: who may call it, and how much it takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// The server behind `listen`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Names under which the server may be called besides loopback names, its own address and the host of `public_url`.
    /// Anything else in `Host` or `Origin` is refused, so that a web page cannot reach it by rebinding a name.
    pub allowed_hosts: Vec<String>,
    /// `/metrics`, `/livez` and `/readyz` answer without a token beyond loopback too.
    pub metrics_public: bool,
    pub workers: usize,
    /// Connections of one worker; more wait in the backlog.
    pub max_connections: usize,
    /// Bytes of one body with alerts, logs, metrics or changes.
    pub max_intake_body: usize,
    /// Bytes of any other body.
    pub max_body: usize,
    /// Bytes of all bodies that are being read or worked on; more are answered by 503.
    pub max_bodies: usize,
    /// For a request line and its headers.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// For a whole body, however steadily it trickles in.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// How long requests under way may take to end at a shutdown.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
    /// Clients of the live stream at a time.
    pub max_streams: usize,
    /// Failed authentications of one address within a minute, after which it has to wait for the next.
    pub failed_logins: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            metrics_public: false,
            workers: 2,
            max_connections: 4096,
            max_intake_body: 16 << 20,
            max_body: 1 << 20,
            max_bodies: 128 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            shutdown_timeout: Duration::from_secs(10),
            max_streams: 64,
            failed_logins: 20,
        }
    }
}

impl Check for Http {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (i, host) in self.allowed_hosts.iter().enumerate() {
            let plain =
                |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
            if host.is_empty() || !host.bytes().all(plain) {
                let message =
                    format!("{host:?} must be a host name without scheme or path, such as aiops.example.org");
                problems.push(Problem::new(format!("{at}.allowed_hosts[{i}]"), message));
            }
        }
        for (name, value) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("keep_alive", self.keep_alive),
            ("shutdown_timeout", self.shutdown_timeout),
        ] {
            check::positive(&format!("{at}.{name}"), value, problems);
        }
        for (name, value, low, high) in [
            ("workers", self.workers, 1, 256),
            ("max_connections", self.max_connections, 1, 1_000_000),
            ("max_intake_body", self.max_intake_body, 1024, 1 << 30),
            ("max_body", self.max_body, 1024, 1 << 30),
            ("max_bodies", self.max_bodies, self.max_intake_body.max(self.max_body), 1 << 40),
            ("max_streams", self.max_streams, 1, 10_000),
            ("failed_logins", self.failed_logins as usize, 1, 100_000),
        ] {
            if !(low..=high).contains(&value) {
                problems
                    .push(Problem::new(format!("{at}.{name}"), format!("must be between {low} and {high}")));
            }
        }
    }
}
