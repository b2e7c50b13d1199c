//! The real binary, started with settings of the test's own, spoken to by its API, killed and started again.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::peers::{self, Child, Ready};

/// A running `aiops serve`.
pub struct Service {
    pub url: String,
    pub dir: PathBuf,
    /// Its data directory, as this process sees it.
    pub data: PathBuf,
    pub child: Child,
    http: reqwest::Client,
}

impl Service {
    /// `yaml` is the settings file but for `listen` and `data_dir`.
    pub async fn start_in(dir: &Path, yaml: &str) -> Self {
        Self::start_under(dir, yaml, &[], &[]).await
    }

    /// The program is started by another one, which is told the rest of its command line: `prlimit --nofile=64 aiops serve …`.
    pub async fn start_under(dir: &Path, yaml: &str, before: &[&str], env: &[(&str, &str)]) -> Self {
        let port = peers::free_port();
        let config = dir.join("aiops.yaml");
        let text = format!("listen: 127.0.0.1:{port}\ndata_dir: {}\n{yaml}", dir.join("data").display());
        std::fs::write(&config, text).expect("the test's directory is writable");
        let mut line = before.iter().copied().chain([env!("CARGO_BIN_EXE_aiops"), "serve", "--config"]);
        let mut command = Command::new(line.next().expect("there is at least the program"));
        command.args(line).arg(&config).current_dir(env!("CARGO_MANIFEST_DIR")).envs(env.iter().copied());
        let url = format!("http://127.0.0.1:{port}");
        let ready = Ready::Http(format!("{url}/readyz"));
        let child = Child::start(command, &dir.join("aiops.log"), ready).await;
        Self { url, dir: dir.to_owned(), data: dir.join("data"), child, http: peers::http() }
    }

    /// Another replica, in a directory of its own, that knows the same admin token: a secret that is mounted everywhere.
    pub async fn another_in(&self, dir: &Path, yaml: &str) -> Self {
        for dir in [dir, &dir.join("data")] {
            std::fs::DirBuilder::new().mode(0o700).create(dir).expect("the name is new");
        }
        std::fs::copy(self.data.join("admin.token"), dir.join("data/admin.token")).expect("copied");
        Self::start_in(dir, yaml).await
    }

    /// The admin's, as the first start wrote it.
    pub fn token(&self) -> String {
        let path = self.data.join("admin.token");
        std::fs::read_to_string(&path).expect("the first start writes it").trim().to_owned()
    }

    /// The JSON of a successful answer.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(self.token()).send().await;
        Self::json(path, answer.expect("the service answers")).await
    }

    /// Sends JSON as the admin; the JSON of a successful answer.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(self.token());
        Self::json(path, request.json(body).send().await.expect("the service answers")).await
    }

    /// Like [`Service::post`], but gives whatever comes: a kill may be under way.
    pub async fn try_post(&self, path: &str, body: &Value) -> Option<u16> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(self.token());
        let answer = request.timeout(Duration::from_secs(5)).json(body).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    async fn json(path: &str, answer: reqwest::Response) -> Value {
        let status = answer.status();
        let text = answer.text().await.expect("a whole answer");
        assert!(status.is_success(), "{path}: {status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    /// Asks again and again until `found` gives something.
    pub async fn until<T>(
        &self,
        within: Duration,
        path: &str,
        what: &str,
        found: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.get(path).await;
            if let Some(t) = found(&answer) {
                return t;
            }
            assert!(
                Instant::now() < deadline,
                "not within {within:?}: {what}\n{answer:#}\n{}",
                tail(&self.child.log())
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
