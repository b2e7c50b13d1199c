//! Starts the real servers that the tests talk to, each on a free loopback port, and sees that none outlives the test run.
//!
//! The servers come from `tests/real/*.sh`. One that is not installed fails the test with the script's own message, which says what to install.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Prometheus with the given `prometheus.yml`; accepts remote write and `POST /-/reload`.
pub struct Prometheus {
    pub url: String,
    pub child: Child,
}

impl Prometheus {
    /// `dir` keeps its configuration, data and log.
    pub async fn start(config: &str, dir: &Path) -> Self {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("the test's directory is writable");
        let (url, port) = free_url();
        let mut command = script("prometheus.sh");
        command.arg("run").arg(port.to_string()).args([&file, &dir.join("prometheus")]);
        let child =
            Child::start(command, &dir.join("prometheus.log"), Ready::Http(format!("{url}/-/ready"))).await;
        Self { url, child }
    }
}

/// Alertmanager with the given `alertmanager.yml`.
pub struct Alertmanager {
    pub url: String,
    pub port: u16,
    pub child: Child,
}

impl Alertmanager {
    /// `dir` keeps its configuration, silences, notification log and own log.
    pub async fn start(config: &str, dir: &Path) -> Self {
        let file = dir.join("alertmanager.yml");
        fs::write(&file, config).expect("the test's directory is writable");
        let (url, port) = free_url();
        let mut command = script("alertmanager.sh");
        command.arg("run").arg(port.to_string()).args([&file, &dir.join("alertmanager")]);
        let child =
            Child::start(command, &dir.join("alertmanager.log"), Ready::Http(format!("{url}/-/ready"))).await;
        Self { url, port, child }
    }
}

/// A PostgreSQL cluster.
pub struct Postgres {
    /// The database `postgres`, as superuser.
    pub url: String,
    pub port: u16,
    pub child: Child,
}

impl Postgres {
    /// The URL of a fresh, empty database, in a cluster that all tests of this run share.
    pub async fn database() -> String {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Postgres::start).await.create_database().await
    }

    /// A cluster of its own, for a test that stops or restarts it.
    pub async fn start() -> Self {
        let dir = scratch("postgres");
        let port = free_port();
        let url = format!("postgres://aiops@127.0.0.1:{port}/postgres");
        let mut command = script("postgres.sh");
        command.arg("run").arg(port.to_string()).arg(dir.join("data"));
        let child = Child::start(command, &dir.join("postgres.log"), Ready::Postgres(url.clone())).await;
        Self { url, port, child }
    }

    pub async fn create_database(&self) -> String {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&self.url).await.expect("the cluster was ready");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut admin)
            .await
            .expect("the name is new");
        format!("postgres://aiops@127.0.0.1:{}/{name}", self.port)
    }
}

/// A mail server that keeps what it receives. It refuses a recipient such as `fail450@…` or `fail550@…` with that reply code.
pub struct Smtp {
    pub port: u16,
    /// The server's own certificate, for a client to trust, where it speaks TLS.
    pub certificate: Option<PathBuf>,
    pub child: Child,
    mails: PathBuf,
}

/// A mail as the server received it.
#[derive(Debug, Deserialize)]
pub struct Mail {
    pub from: String,
    /// The recipients of the envelope that were not refused.
    pub to: Vec<String>,
    pub tls: bool,
    /// Who signed in.
    pub user: Option<String>,
    /// Headers and body.
    #[serde(skip)]
    pub text: String,
}

impl Smtp {
    /// Without TLS.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Takes mail only after STARTTLS.
    pub async fn start_starttls() -> Self {
        Self::start_with(&["--tls", "starttls"]).await
    }

    /// With options of `tests/real/smtpd.py`: `--tls starttls|implicit`, `--auth USER:PASSWORD`.
    pub async fn start_with(options: &[&str]) -> Self {
        let dir = scratch("smtp");
        let mails = dir.join("mails");
        let port = free_port();
        let mut command = script("smtp.sh");
        command.arg("run").arg(port.to_string()).arg(&mails).args(options);
        let mut certificate = None;
        if options.contains(&"--tls") {
            certificate = Some(make_certificate(&dir).await);
            command.arg("--cert").arg(dir.join("cert.pem")).arg("--key").arg(dir.join("key.pem"));
        }
        let child = Child::start(command, &dir.join("smtp.log"), Ready::Port(port)).await;
        Self { port, certificate, child, mails }
    }

    /// What has arrived so far, the oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let mut envelopes: Vec<PathBuf> = fs::read_dir(&self.mails)
            .expect("the server made it")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension() == Some(OsStr::new("json")))
            .collect();
        envelopes.sort();
        envelopes.iter().map(|path| Mail::read(path)).collect()
    }
}

async fn make_certificate(dir: &Path) -> PathBuf {
    let mut command = script("smtp.sh");
    command.arg("certificate").arg(dir);
    finish(command).await;
    dir.join("cert.pem")
}

impl Mail {
    fn read(envelope: &Path) -> Self {
        let facts = fs::read(envelope).expect("just listed");
        let text = fs::read(envelope.with_extension("eml")).expect("written before its envelope");
        Self {
            text: String::from_utf8_lossy(&text).into_owned(),
            ..serde_json::from_slice(&facts).expect("smtpd.py writes it")
        }
    }
}

/// Ollama with a tiny model of random weights: its answers obey the schema that was asked for, and mean nothing.
pub struct Ollama {
    pub url: String,
    pub child: Child,
}

impl Ollama {
    /// `model` is the name under which the tiny model answers.
    pub async fn start(model: &str) -> Self {
        let dir = scratch("ollama");
        let (url, port) = free_url();
        let mut command = script("ollama.sh");
        command.arg("run").arg(port.to_string()).arg(dir.join("data"));
        let child =
            Child::start(command, &dir.join("ollama.log"), Ready::Http(format!("{url}/api/version"))).await;
        let mut register = script("ollama.sh");
        register.arg("model").arg(port.to_string()).arg(model);
        finish(register).await;
        Self { url, child }
    }
}

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

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Starts it anew with the arguments, the port and the directory that it had, and waits until it serves.
    pub async fn restart(&mut self) {
        self.stop();
        self.process = Some(spawn(&mut self.command, &self.log));
        self.wait_ready().await;
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn wait_ready(&mut self) {
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
        // Also for what it started itself and left behind. Until it is waited for, even a process that has ended keeps its
        // number, so this cannot reach a stranger.
        let _ = kill_process_group(group, Signal::KILL);
        self.process.take().map(|mut process| process.wait());
        janitor().tell("end", group);
    }

    fn has_ended(&self) -> bool {
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

/// An HTTP client that goes through no proxy.
pub fn http() -> reqwest::Client {
    // The second call and every later one finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("no option that can fail")
}

/// A port on which nothing listens, never twice the same in one run. From below the range that the system takes for outgoing
/// connections, so that none of those gets there first.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().expect("nothing panics under it");
    let taken = taken.get_or_insert_default();
    let start = std::process::id() * 61;
    (start..start + 8000)
        .map(|n| 20000 + (n % 8000) as u16)
        .find(|port| {
            !taken.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok() && taken.insert(*port)
        })
        .expect("one of 8000 ports is free")
}

/// A fresh directory, removed when the run ends. Other users may pass through it, for a server that does not run as root.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let dir = janitor().root.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::DirBuilder::new().mode(0o711).create(&dir).expect("the name is new");
    dir
}

fn free_url() -> (String, u16) {
    let port = free_port();
    (format!("http://127.0.0.1:{port}"), port)
}

/// `tests/real/NAME`, to be given its arguments.
pub fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name));
    command
}

/// Runs a command that comes to its end by itself.
async fn finish(command: Command) {
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

/// The process that cleans up after this one, whether it returns, panics, or is killed.
///
/// `PR_SET_PDEATHSIG` would not do: the kernel sends that signal when the *thread* that started the child ends, which for a server
/// that tests share is the end of the first test; and it reaches no grandchild.
struct Janitor {
    root: PathBuf,
    orders: Mutex<ChildStdin>,
}

fn janitor() -> &'static Janitor {
    static JANITOR: OnceLock<Janitor> = OnceLock::new();
    JANITOR.get_or_init(|| {
        let root = tempfile::Builder::new()
            .prefix("aiops-it-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .expect("the system's directory for temporary files is writable")
            .keep();
        // In a group of its own, so that Ctrl-C in a terminal ends the tests and not the cleaning; and with no output of ours, which
        // would keep a pipe open that somebody reads to its end.
        let mut process = script("janitor.sh")
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash is installed");
        let orders = Mutex::new(process.stdin.take().expect("it is piped"));
        Janitor { root, orders }
    })
}

impl Janitor {
    fn tell(&self, event: &str, group: Pid) {
        let mut orders = self.orders.lock().expect("nothing panics under it");
        writeln!(orders, "{event} {group}").expect("the janitor lives as long as we do");
    }
}
