//! The server that is measured: this very binary with a private directory, ended with the command.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    cli::{Context, Failure, parent::die_with, serve},
    config::Secret,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process that must not be outlived
    #[arg(long)]
    parent: i32,
}

/// `aiops serve`, but for that it ends with its parent.
pub async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    die_with(args.parent, "bench-server is started by `aiops bench`")?;
    serve::run(serve::Args {}, context).await
}

/// What a child is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Holds the settings file, the data and the log.
    pub dir: PathBuf,
    /// In the form of the settings file; the rest are the defaults.
    pub settings: serde_json::Value,
}

/// A running server; ended when dropped.
pub struct Server {
    pub url: String,
    pub pid: u32,
    /// From the start of the process to the line that says where it listens.
    pub started_in: Duration,
    child: Child,
    plan: Plan,
}

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(20);

impl Plan {
    /// A server in `dir` that tells nobody anything but what `settings` add.
    pub fn new(dir: &Path, settings: serde_json::Value) -> Self {
        let all = serde_json::json!({
            "listen": "127.0.0.1:0",
            "data_dir": dir.join("data"),
            "log": { "filter": "warn" },
            "notify": { "stdout": { "when": "never" } },
            "playbooks": { "dir": dir.join("playbooks") },
        });
        Self { dir: dir.to_owned(), settings: all }.with(settings)
    }

    /// The same with further settings.
    pub fn with(mut self, more: serde_json::Value) -> Self {
        merge(&mut self.settings, more);
        self
    }

    /// Starts it and waits until it takes requests. Must be called on a thread that lives as long as the server may: the kernel
    /// ends a child with the thread that started it.
    pub async fn start(&self) -> anyhow::Result<Server> {
        let file = self.dir.join("aiops.yaml");
        std::fs::write(&file, self.settings.to_string())
            .with_context(|| format!("writing {}", file.display()))?;
        let log = std::fs::File::options().create(true).append(true).open(self.log_file());
        let program = std::env::current_exe().context("finding this program's file")?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&file).arg("bench-server");
        command.args(["--parent", &std::process::id().to_string()]);
        // No setting of the caller's environment, and above all no store of theirs.
        command.env_clear().current_dir(&self.dir).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(log.context("making the server's log")?);
        let began = Instant::now();
        let mut child = command.spawn().context("starting the server")?;
        let pid = child.id().context("the server ended at once")?;
        let out = child.stdout.take().context("its output is piped")?;
        let greeting = first_line(out);
        let line = match tokio::time::timeout(STARTS_WITHIN, greeting).await {
            Ok(Ok(line)) => line,
            Ok(Err(e)) => bail!("the server did not start: {e}; its log says: {}", self.last_words()),
            Err(_) => bail!("the server did not start within {STARTS_WITHIN:?}: {}", self.last_words()),
        };
        let started_in = began.elapsed();
        let url = line.strip_prefix("aiops listens on ").map(|rest| rest.split(';').next().unwrap_or(rest));
        let url = url.with_context(|| format!("the server's first line was {line:?}"))?.trim().to_owned();
        Ok(Server { url, pid, started_in, child, plan: self.clone() })
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        log.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// Reads the first line and drains what follows, so that the server never waits for us.
async fn first_line(out: tokio::process::ChildStdout) -> std::io::Result<String> {
    let mut lines = BufReader::new(out).lines();
    let line = lines.next_line().await?;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    line.ok_or_else(|| std::io::Error::other("it ended"))
}

impl Server {
    /// The admin token that it made for itself.
    pub fn token(&self) -> anyhow::Result<Secret> {
        let path = self.plan.dir.join("data/admin.token");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Secret::new(text.trim()))
    }

    /// Asks it to end, waits, and insists in the end. An error if it had ended before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended by itself ({status}): {}", self.plan.last_words());
        }
        let pid = Pid::from_raw(self.pid as i32).context("a process id")?;
        kill_process(pid, Signal::TERM).context("asking the server to end")?;
        if tokio::time::timeout(STOPS_WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await.context("ending the server")?;
        }
        Ok(())
    }
}

/// Puts `more` over `base`, section by section.
fn merge(base: &mut serde_json::Value, more: serde_json::Value) {
    match (base, more) {
        (serde_json::Value::Object(base), serde_json::Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (_, serde_json::Value::Null) => {}
        (base, more) => *base = more,
    }
}
