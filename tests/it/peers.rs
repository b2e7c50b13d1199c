//! Starts the real servers that the tests talk to, each on a free loopback port, and sees that none
//! outlives the test run.
//!
//! The servers come from `tests/real/*.sh`. One that is not installed fails the test with the script's own
//! message, which says what to install.

mod child;
mod janitor;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

pub use child::{Child, Ready, finish, wait_ready};
pub use janitor::scratch;

/// Prometheus with the given `prometheus.yml`; accepts remote write and `POST /-/reload`.
pub struct Prometheus {
    pub url: String,
    pub child: Child,
}

impl Prometheus {
    /// `dir` keeps its configuration, data and log.
    pub async fn start(config: &str, dir: &Path) -> Self {
        Self::start_at(free_port(), config, dir).await
    }

    /// On a port that others were told of before.
    pub async fn start_at(port: u16, config: &str, dir: &Path) -> Self {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("the test's directory is writable");
        let url = format!("http://127.0.0.1:{port}");
        let mut command = script("prometheus.sh");
        command.arg("run").arg(port.to_string()).args([&file, &dir.join("prometheus")]);
        let child =
            Child::start(command, &dir.join("prometheus.log"), Ready::Http(format!("{url}/-/ready"))).await;
        Self { url, child }
    }

    /// Scrapes itself, each `interval`, as the job `itself`.
    pub async fn of_itself(interval: &str, dir: &Path) -> Self {
        let port = free_port();
        let config = format!(
            "global: {{scrape_interval: {interval}}}\nscrape_configs: [{{job_name: itself, static_configs: \
             [{{targets: [\"127.0.0.1:{port}\"]}}]}}]\n"
        );
        Self::start_at(port, &config, dir).await
    }

    /// When the only series of this name was scraped within the last minute, in milliseconds since 1970.
    pub async fn scraped_at(&self, name: &str) -> Vec<i64> {
        let asked = format!("{}/api/v1/query?query={name}[1m]", self.url);
        let answer: Value = http().get(asked).send().await.expect("it answers").json().await.expect("JSON");
        let values = answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|value| (value[0].as_f64().expect("a time") * 1000.0).round() as i64).collect()
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
        Self::start_at(free_port(), config, dir).await
    }

    /// On a port that others were told of before.
    pub async fn start_at(port: u16, config: &str, dir: &Path) -> Self {
        let file = dir.join("alertmanager.yml");
        fs::write(&file, config).expect("the test's directory is writable");
        let url = format!("http://127.0.0.1:{port}");
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

    /// A streaming standby of this cluster. From now on, what this one commits the other has too.
    pub async fn standby(&self) -> Self {
        let dir = scratch("standby");
        let port = free_port();
        let url = format!("postgres://aiops@127.0.0.1:{port}/postgres");
        let mut command = script("postgres.sh");
        command.arg("standby").arg(port.to_string()).arg(dir.join("data")).arg(self.port.to_string());
        let child = Child::start(command, &dir.join("postgres.log"), Ready::Postgres(url.clone())).await;
        let mut admin = PgConnection::connect(&self.url).await.expect("the cluster was ready");
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(&mut admin).await.expect("we are superuser");
        }
        let attached = "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        while sqlx::query_scalar::<_, i64>(attached).fetch_one(&mut admin).await.expect("answers") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
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

/// A Redis, which keeps nothing on disk unless told to.
pub struct Redis {
    pub url: String,
    pub port: u16,
    pub child: Child,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With options of `redis-server`: `--appendonly yes`.
    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_at(free_port(), options).await
    }

    /// On a port that others were told of before.
    pub async fn start_at(port: u16, options: &[&str]) -> Self {
        let dir = scratch("redis");
        let mut command = script("redis.sh");
        command.arg("run").arg(port.to_string()).arg(dir.join("data")).args(options);
        let child = Child::start(command, &dir.join("redis.log"), Ready::Port(port)).await;
        Self { url: format!("redis://127.0.0.1:{port}"), port, child }
    }

    /// Somebody else's, to be spoken to.
    pub fn on(port: u16) -> RedisClient {
        RedisClient(format!("redis://127.0.0.1:{port}"))
    }

    /// Runs one command, written as in `redis-cli`.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        RedisClient(self.url.clone()).run(command).await
    }
}

/// The way to a Redis.
pub struct RedisClient(String);

impl RedisClient {
    /// A connection of the test's own.
    pub async fn client(&self) -> redis::aio::MultiplexedConnection {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let client = redis::Client::open(self.0.as_str()).expect("a URL");
        client.get_multiplexed_async_connection_with_config(&config).await.expect("it listens")
    }

    /// Runs one command, written as in `redis-cli`.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split_whitespace();
        let mut cmd = redis::cmd(words.next().expect("a command"));
        for word in words {
            cmd.arg(word);
        }
        cmd.query_async(&mut self.client().await).await.unwrap_or_else(|e| panic!("{command}: {e}"))
    }
}

/// A mail server that keeps what it receives. It refuses a recipient such as `fail450@…` or `fail550@…`
/// with that reply code.
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
    /// When it arrived, by the file's time.
    #[serde(skip, default = "SystemTime::now")]
    pub at: SystemTime,
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
            at: fs::metadata(envelope).and_then(|m| m.modified()).expect("just read"),
            ..serde_json::from_slice(&facts).expect("smtpd.py writes it")
        }
    }
}

/// Ollama with a tiny model of random weights: its answers obey the schema that was asked for, and mean
/// nothing.
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

/// OpenSearch, one node without security; also what we have for an Elasticsearch.
pub struct OpenSearch {
    pub url: String,
    pub child: Child,
}

impl OpenSearch {
    /// One that all tests of this run share, each with indices of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<OpenSearch> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(&[])).await
    }

    /// One of its own, with further settings of `opensearch.yml`, for a test that stops or overloads it.
    pub async fn start(settings: &[&str]) -> Self {
        let dir = scratch("opensearch");
        let (url, port) = free_url();
        let mut command = script("opensearch.sh");
        command.arg("run").arg(port.to_string()).arg(dir.join("data")).args(settings);
        let ready = Ready::Http(format!("{url}/_cluster/health?wait_for_status=yellow&timeout=1s"));
        let child = Child::start(command, &dir.join("opensearch.log"), ready).await;
        Self { url, child }
    }
}

/// An HTTP client that goes through no proxy.
pub fn http() -> reqwest::Client {
    // The second call and every later one finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("no option that can fail")
}

/// A port on which nothing listens, never twice the same in one run. From below the range that the system
/// takes for outgoing connections, so that none of those gets there first.
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
