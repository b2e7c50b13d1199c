//! A server process that a test owns.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpStream;

use super::http;
use super::janitor::janitor;

/// A Java server starts in five seconds, and in many times that on a machine that is busy.
const READY_WITHIN: Duration = Duration::from_secs(300);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// A process that serves something, in a process group of its own. Dropping it ends the whole group.
pub struct Child {
    command: Command,
    log: PathBuf,
    ready: Ready,
    /// None once it has ended and been waited for.
    process: Option<std::process::Child>,
}

/// How to know that a process serves.
pub enum Ready {
    /// It answers a GET of this URL with success.
    Http(String),
    /// It accepts connections on this port of 127.0.0.1.
    Port(u16),
    /// It lets us sign in to this database.
    Postgres(String),
}

impl Child {
    /// Starts `command`, what it prints going to the end of `log`, and waits until it serves.
    pub async fn start(mut command: Command, log: &Path, ready: Ready) -> Self {
        command.stdin(Stdio::null()).process_group(0);
        let mut child = Self { command, log: log.to_owned(), ready, process: None };
        child.restart().await;
        child
    }

    /// Asks it to end, insists after five seconds, and returns when it is gone.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Tells it something; it goes on, or not, as it likes.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it is our child");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Starts it anew with the arguments, the port and the directory that it had, and waits until it serves.
    pub async fn restart(&mut self) {
        self.start_again();
        self.wait_ready().await;
    }

    /// Like [`Child::restart`], but does not wait.
    pub fn start_again(&mut self) {
        self.stop();
        self.process = Some(spawn(&mut self.command, &self.log));
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it serves.
    pub async fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.ready.now().await {
            assert!(!self.has_ended(), "{:?} ended before it was ready:\n{}", self.command, self.log());
            assert!(Instant::now() < deadline, "{:?} was not ready in time:\n{}", self.command, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn end(&mut self, signal: Signal) {
        let Some(process) = &self.process else { return };
        let group = Pid::from_child(process);
        let _ = kill_process_group(group, signal);
        let deadline = Instant::now() + STOPS_WITHIN;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Also for what it started itself and left behind. Until it is waited for, even a process that has
        // ended keeps its number, so this cannot reach a stranger.
        let _ = kill_process_group(group, Signal::KILL);
        self.process.take().map(|mut process| process.wait());
        janitor().tell("end", group);
    }

    /// By itself, or because it was told to.
    pub fn has_ended(&self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(process)), look).expect("it is our child").is_some()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Ready {
    async fn now(&self) -> bool {
        match self {
            Self::Http(url) => http()
                .get(url)
                .timeout(Duration::from_secs(2))
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success()),
            Self::Port(port) => TcpStream::connect(("127.0.0.1", *port)).await.is_ok(),
            Self::Postgres(url) => PgConnection::connect(url).await.is_ok(),
        }
    }
}

/// Waits until a GET of `url` succeeds, for a server that is no [`Child`].
pub async fn wait_ready(url: &str) {
    let ready = Ready::Http(url.to_owned());
    let deadline = Instant::now() + READY_WITHIN;
    while !ready.now().await {
        assert!(Instant::now() < deadline, "{url} was not ready in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a command that comes to its end by itself.
pub async fn finish(command: Command) {
    let output = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(READY_WITHIN, output)
        .await
        .expect("it ends in time")
        .expect("bash is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn spawn(command: &mut Command, log: &Path) -> std::process::Child {
    let output =
        File::options().create(true).append(true).open(log).expect("the test's directory is writable");
    let errors = output.try_clone().expect("a file handle can be cloned");
    let process = command
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    janitor().tell("start", Pid::from_child(&process));
    process
}
