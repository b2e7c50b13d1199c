//! The HTTP server alone, in this process, on a free port, over a store of its own; and a client that sends exact bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aiops::{
    act,
    bus::Embedded,
    config::Settings,
    http::{HttpDeps, Server, ensure_admin_token, serve},
    intake::commit::Committer,
    model::{AlertEvent, Role},
    notify,
    playbook::Registry,
    steps::Tools,
    store::{
        Store,
        inbox::{self, Delivery},
        tokens,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub struct Running {
    pub store: Store,
    pub address: SocketAddr,
    pub admin: String,
    /// Stops the committer, not the server.
    pub commits: CancellationToken,
    pub ready: Arc<AtomicBool>,
    server: Mutex<Option<Server>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    _dir: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).next()
    }
    /// Asserts an RFC 9457 answer with this status and these words in its detail.
    pub fn is_problem(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        for member in ["type", "title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|s| !s.is_empty()), "{member}: {self:?}");
        }
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{words:?} is not in {detail:?}");
    }
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open("", dir.path()).await.expect("SQLite opens");
        let mut settings = Settings { listen: "127.0.0.1:0".into(), ..Settings::default() };
        settings.http.workers = 1;
        change(&mut settings);
        let commits = CancellationToken::new();
        let (committer, writer) = Committer::start(
            store.clone(),
            settings.intake.queue,
            settings.intake.commit_timeout,
            commits.clone(),
        );
        let path = ensure_admin_token(&store, dir.path()).await.expect("made").expect("a first start");
        let admin = std::fs::read_to_string(path).expect("a token").trim().to_owned();
        let ready = Arc::new(AtomicBool::new(true));
        let is_ready = ready.clone();
        let server = serve(HttpDeps {
            store: store.clone(),
            admission: Arc::default(),
            committer,
            slack: None,
            act: act::Deps {
                store: store.clone(),
                tools: Arc::new(Tools {
                    registry: Arc::new(Registry::open(&settings)),
                    http: aiops::http_client::new(),
                    prometheus: settings.prometheus.clone(),
                    data_dir: dir.path().to_owned(),
                }),
            },
            bus: std::sync::Arc::new(Embedded::new(&settings.detect.bus)),
            logs: Default::default(),
            outbox: Arc::new(notify::Deps::new(store.clone(), &settings).expect("right settings")),
            settings: Arc::new(settings),
            reports: [(
                "breakers",
                Arc::new(|| serde_json::json!([{"name": "prometheus"}])) as aiops::http::Report,
            )]
            .into(),
            ready: Arc::new(move || match is_ready.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err("the pipeline stands still".into()),
            }),
            stop: CancellationToken::new(),
        })
        .expect("a free port");
        let address = server.address();
        let (server, writer) = (Mutex::new(Some(server)), Mutex::new(Some(writer)));
        Self { store, address, admin, commits, ready, server, writer, _dir: dir }
    }

    /// Calls it with the server, for what only the program around it does.
    pub fn server<T>(&self, act: impl FnOnce(&Server) -> T) -> T {
        act(self.server.lock().expect("no panic before").as_ref().expect("it runs"))
    }

    /// Stops everything; a test that forgets it leaves threads until the process ends.
    pub async fn stop(self) {
        let server = self.server.lock().expect("no panic before").take().expect("it runs");
        server.stop().await;
        self.commits.cancel();
        let writer = self.writer.lock().expect("no panic before").take().expect("it runs");
        writer.await.expect("the writer ends");
        self.store.close().await;
    }

    /// Makes a token with a role.
    pub async fn token(&self, role: Role) -> String {
        let secret = aiops::ids::secret();
        let mut tx = self.store.write().await.expect("writable");
        tokens::insert(&mut tx, &format!("{role}-{}", aiops::ids::opaque()), role, &secret)
            .await
            .expect("added");
        tx.commit().await.expect("committed");
        secret
    }

    /// Sends these bytes and reads one answer.
    pub async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        // A server that has answered already need not read the rest.
        let _ = stream.write_all(bytes).await;
        read_answer(&mut stream).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// A JSON body, without credentials.
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body.as_bytes()).await
    }

    /// As the admin.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {}", self.admin);
        let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
        self.send(method, path, &headers, body.as_bytes()).await
    }

    /// Takes all alerts that are durable, by delivery.
    pub async fn inbox(&self) -> Vec<Vec<AlertEvent>> {
        let Some((tx, waiting)) = inbox::take(&self.store, 10_000).await.expect("taken") else {
            return Vec::new();
        };
        tx.commit().await.expect("committed");
        let alerts = waiting.into_iter().filter_map(|delivery| match delivery {
            Delivery::Alerts(alerts) => Some(alerts),
            Delivery::Anomaly(_) => None,
        });
        alerts.collect()
    }
}

/// One answer, with the length that it announces.
pub async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = vec![0; 65536];
        loop {
            if let Some(answer) = complete(&bytes) {
                return answer;
            }
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer within 20 s")
}

fn complete(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    let length: usize = answer.header("content-length").map_or(0, |n| n.parse().expect("a length"));
    (body.len() >= length).then_some(answer)
}
