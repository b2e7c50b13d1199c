//! The demo's process supervisor: keeps the victim's process, and restarts it when an authenticated request says so. What a
//! systemd unit, a container platform or a cloud's API is elsewhere.

use std::{process::Stdio, sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use anyhow::{Context, bail};
use tokio::{
    net::TcpSocket,
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    alerting::healthy,
    victim::{self, SERVICE},
};
use crate::config::Secret;

/// The HTTP endpoint that restarts the victim, and the victim's process once it is launched.
pub struct Supervisor {
    /// `http://127.0.0.1:PORT`, of the supervisor itself.
    pub url: String,
    pub token: Secret,
    pub victim: Unit,
    server: ServerHandle,
    inbox: Option<mpsc::Receiver<Order>>,
    keeper: Option<JoinHandle<()>>,
    cancel: CancellationToken,
}

/// A request to restart; the answer is the new process id.
type Order = oneshot::Sender<anyhow::Result<u32>>;

impl Supervisor {
    /// Opens the endpoint; there is no victim yet.
    pub async fn open() -> anyhow::Result<Self> {
        let (port, reserved) = reserve_port().context("reserving the victim's port")?;
        let victim = Unit { port, _reserved: Arc::new(reserved), http: crate::http_client::new() };
        let token = Secret::new(crate::ids::secret());
        let (orders, inbox) = mpsc::channel(1);
        let door = web::Data::new(Door { token: token.clone(), orders, victim: victim.clone() });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(door.clone())
                .route("/services/{service}/restart", web::post().to(restart))
                .route("/services/{service}/health", web::get().to(health))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .bind(("127.0.0.1", 0))
        .context("opening the supervisor's port")?;
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        let (inbox, cancel) = (Some(inbox), CancellationToken::new());
        Ok(Self { url, token, victim, server: handle, inbox, keeper: None, cancel })
    }

    /// Starts the victim; its telemetry goes to `intake`.
    pub async fn launch(&mut self, intake: String, intake_token: Secret) -> anyhow::Result<()> {
        let inbox = self.inbox.take().context("the victim is launched once")?;
        let start = Start { unit: self.victim.clone(), intake, intake_token };
        let child = start.start().await?;
        // The process is kept by a task of the main runtime: it dies with the thread that started it.
        self.keeper = Some(tokio::spawn(keep(start, child, inbox, self.cancel.clone())));
        Ok(())
    }

    /// Ends the victim and the endpoint.
    pub async fn stop(self) {
        self.cancel.cancel();
        if let Some(keeper) = self.keeper {
            // It ends by itself; if it panicked, the kernel ends the victim with us.
            let _ = keeper.await;
        }
        self.server.stop(false).await;
    }
}

/// Where the victim serves: the same port after every restart.
#[derive(Clone)]
pub struct Unit {
    port: u16,
    _reserved: Arc<TcpSocket>,
    http: reqwest::Client,
}

impl Unit {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    /// Asks the victim itself.
    pub async fn is_healthy(&self) -> bool {
        healthy(&self.http, &self.url()).await
    }
}

/// How the victim is started.
struct Start {
    unit: Unit,
    intake: String,
    intake_token: Secret,
}

impl Start {
    /// Starts the process and waits until it answers.
    async fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("finding this program's file")?;
        let mut child = Command::new(program)
            .arg("demo-victim")
            .args(["--port", &self.unit.port.to_string(), "--intake", &self.intake])
            .args(["--parent", &std::process::id().to_string()])
            .env_clear()
            .env("AIOPS_TOKEN", self.intake_token.expose())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the victim")?;
        for _ in 0..200 {
            if let Some(status) = child.try_wait()? {
                bail!("the victim ended at once: {status}");
            }
            if self.unit.is_healthy().await {
                return Ok(child);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("the victim did not answer within 5 s")
    }
}

/// Starts the victim anew whenever it is asked to, until it is cancelled; then ends it.
async fn keep(start: Start, mut child: Child, mut inbox: mpsc::Receiver<Order>, cancel: CancellationToken) {
    while let Some(Some(answer)) = cancel.run_until_cancelled(inbox.recv()).await {
        let restarted = async {
            child.kill().await.context("killing the victim")?;
            child = start.start().await?;
            child.id().context("the victim ended at once")
        };
        // The one who asked may have gone; the victim is restarted all the same.
        let _ = answer.send(restarted.await);
    }
    let _ = child.kill().await;
}

/// What the endpoint needs.
struct Door {
    token: Secret,
    orders: mpsc::Sender<Order>,
    victim: Unit,
}

async fn restart(door: web::Data<Door>, service: web::Path<String>, request: HttpRequest) -> HttpResponse {
    if let Some(refusal) = door.refusal(&service, &request) {
        return refusal;
    }
    match door.restart().await {
        Ok(pid) => HttpResponse::Ok().json(serde_json::json!({ "service": SERVICE, "pid": pid })),
        Err(e) => HttpResponse::InternalServerError().body(format!("{e:#}")),
    }
}

async fn health(door: web::Data<Door>, service: web::Path<String>, request: HttpRequest) -> HttpResponse {
    if let Some(refusal) = door.refusal(&service, &request) {
        return refusal;
    }
    match door.victim.is_healthy().await {
        true => HttpResponse::Ok().body("healthy"),
        false => HttpResponse::ServiceUnavailable().body("not healthy"),
    }
}

impl Door {
    /// The answer to a request that may not, or cannot, be met.
    fn refusal(&self, service: &str, request: &HttpRequest) -> Option<HttpResponse> {
        let given =
            request.headers().get("authorization").and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
        if !given.is_some_and(|token| self.token.matches(token)) {
            return Some(HttpResponse::Unauthorized().body("the supervisor's token is needed"));
        }
        if service != SERVICE {
            return Some(HttpResponse::NotFound().body(format!("there is no service {service}")));
        }
        None
    }

    async fn restart(&self) -> anyhow::Result<u32> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(answer).await.context("there is no victim")?;
        answered.await.context("the supervisor has ended")?
    }
}

/// A port that nobody else is given while the socket lives: it is bound, but does not listen, so the victim can.
fn reserve_port() -> std::io::Result<(u16, TcpSocket)> {
    let socket = victim::socket_on(0)?;
    Ok((socket.local_addr()?.port(), socket))
}
