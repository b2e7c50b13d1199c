//! The drill's world: real Prometheus, Alertmanager, mail server and language model, a real victim that really breaks, and
//! faithful fakes where the real thing is on the internet.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{gate::Gate, shared::Shared};
use crate::{
    fakes::{self, Answer, pagerduty::PagerDuty, slack::Slack, telegram::Telegram},
    llm::fake::{Fake, Reply},
    peers::{self, Alertmanager, Child, Ollama, Prometheus, Ready, Smtp},
    service::Service,
};

pub const CHAT: i64 = -100_200;
pub const ANN: i64 = 7;
pub const MODEL: &str = "tiny:latest";

/// Everything that a drill needs; dropping it ends all of it.
pub struct World {
    pub service: Service,
    pub telegram: Telegram,
    pub slack: Slack,
    pub pagerduty: PagerDuty,
    pub smtp: Smtp,
    pub openai: Fake,
    pub shop: Shop,
    /// What replicas share beside the database, if there are any.
    pub shared: Option<Shared>,
    pub other_replicas: Vec<Service>,
    _ollama: Option<Ollama>,
    _prometheus: Prometheus,
    _alertmanager: Alertmanager,
    _shipper: Option<fakes::Server>,
}

impl World {
    /// Starts it all; `store` is the service's `store` section. Several replicas share Redis and OpenSearch, too.
    pub async fn start(store: &str, replicas: usize) -> Self {
        let model = Ollama::start(MODEL).await;
        let shared = if replicas > 1 { Some(Shared::start().await) } else { None };
        let overloaded = Reply::Json(500, json!({"error": {"message": "overloaded"}}));
        let stage = Stage {
            store,
            playbooks: our("playbooks"),
            cloud: overloaded,
            model: Some(model),
            gate: None,
            replicas,
            shared,
        };
        stage.set(&peers::scratch("drill")).await
    }
}

/// What may differ from one drill to another.
pub struct Stage<'a> {
    /// The service's `store` section.
    pub store: &'a str,
    pub playbooks: PathBuf,
    /// What the cloud model answers.
    pub cloud: Reply,
    /// The local model.
    pub model: Option<Ollama>,
    /// Through which Alertmanager's deliveries go, if anything is between.
    pub gate: Option<&'a Gate>,
    /// How many of the service there are, on one store.
    pub replicas: usize,
    /// What they share beside the store.
    pub shared: Option<Shared>,
}

impl Stage<'_> {
    pub async fn set(self, dir: &Path) -> World {
        let Self { store, playbooks, cloud, model: ollama, gate, replicas, shared } = self;
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let (smtp, openai) = tokio::join!(Smtp::start(), Fake::start(cloud));
        let prometheus_port = peers::free_port();
        let shop = Shop::new(dir);
        let alertmanager = alertmanager_ready_for(dir);
        let settings = format!(
            "{store}{shared}\
             prometheus: {{url: 'http://127.0.0.1:{prometheus_port}'}}\n\
             alertmanager: {{urls: ['{am}'], reconcile_every: 5s}}\n\
             detect: {{warm_up: 8s}}\n\
             overload: {{max_age: 1h}}\n\
             correlate: {{flap_count: 5}}\n\
             playbooks:\n  dir: {playbooks}\n  http_hosts: ['{host}']\n  values: {{supervisor_url: '{supervisor}'}}\n  \
             http_auth: {{'{host}': {{bearer: {SUPERVISOR_TOKEN}}}}}\n\
             llm:\n  openai: {{url: '{openai}/v1', key: sk-drill-0123456789abcdef, model: gpt-drill, limits: {{timeout: 5s}}}}\n\
             {local_model}\
             notify:\n  telegram: {{token: '{telegram_token}', api: '{telegram}', chat_id: {CHAT}, \
             allowed_users: [{ANN}], poll: 1s}}\n  \
             slack: {{token: '{slack_token}', api: '{slack}', channel: {slack_channel}}}\n  \
             pagerduty: {{routing_key: '{routing_key}', api: '{pagerduty}', min_severity: info}}\n  \
             email: {{host: 127.0.0.1, port: {smtp_port}, tls: none, from: 'aiops <aiops@example.org>', \
             to: [oncall@example.org]}}\n",
            shared = shared.as_ref().map_or_else(String::new, Shared::settings),
            am = alertmanager.url(),
            playbooks = playbooks.display(),
            host = shop.supervisor_url().trim_start_matches("http://"),
            supervisor = shop.supervisor_url(),
            openai = openai.url,
            local_model = ollama.as_ref().map_or_else(String::new, |o| format!(
                "  ollama: {{url: '{}', model: '{MODEL}', limits: {{timeout: 20s}}}}\n",
                o.url
            )),
            telegram = telegram.url(),
            slack = slack.api(),
            pagerduty = pagerduty.url(),
            smtp_port = smtp.port,
            telegram_token = fakes::telegram::TOKEN,
            slack_token = fakes::slack::TOKEN,
            slack_channel = fakes::slack::CHANNEL,
            routing_key = fakes::pagerduty::ROUTING_KEY,
        );
        let service = Service::start_in(dir, &settings).await;
        let mut other_replicas = Vec::new();
        for n in 1..replicas {
            other_replicas.push(service.another_in(&dir.join(format!("replica-{n}")), &settings).await);
        }
        if let Some(gate) = gate {
            gate.open(&service.url);
        }
        let shipper = shared.as_ref().map(|shared| {
            shared.make_ready(dir);
            let urls = std::iter::once(&service).chain(&other_replicas).map(|s| s.url.clone());
            shared.shipper(urls.collect())
        });
        shop.open(&service, shipper.as_ref().map_or(&service.url, |s| &s.url)).await;
        let alertmanager = alertmanager.start(&service, gate.map_or(service.url.as_str(), Gate::url)).await;
        let prometheus = prometheus(dir, prometheus_port, &service, &shop, &alertmanager).await;
        World {
            service,
            telegram,
            slack,
            pagerduty,
            smtp,
            openai,
            shop,
            shared,
            other_replicas,
            _ollama: ollama,
            _prometheus: prometheus,
            _alertmanager: alertmanager,
            _shipper: shipper,
        }
    }
}

const SUPERVISOR_TOKEN: &str = "supervisor-0123456789abcdef";

/// The victim with its supervisor and its customers.
pub struct Shop {
    pub port: u16,
    victim: Arc<Mutex<Option<Child>>>,
    supervisor: fakes::Server,
    seen: Arc<Seen>,
    log: PathBuf,
    customers: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the supervisor was asked.
#[derive(Default)]
struct Seen {
    restarts: AtomicUsize,
    checks: AtomicUsize,
    /// While set, a restart is done but not answered.
    held: AtomicBool,
}

impl Shop {
    fn new(dir: &Path) -> Self {
        let port = peers::free_port();
        let victim: Arc<Mutex<Option<Child>>> = Arc::default();
        let seen: Arc<Seen> = Arc::default();
        let (kept, count, http) = (victim.clone(), seen.clone(), peers::http());
        let supervisor = fakes::serve(move |request| {
            let (kept, count, http) = (kept.clone(), count.clone(), http.clone());
            async move {
                match (request.method.as_str(), request.path.as_str()) {
                    ("POST", "/services/checkout/restart") => {
                        if request.authorization != format!("Bearer {SUPERVISOR_TOKEN}") {
                            return Answer::text(401, "who are you?");
                        }
                        count.restarts.fetch_add(1, Ordering::SeqCst);
                        // What was begun is done, even if who asked for it is gone.
                        let restart = tokio::spawn(async move {
                            kept.lock().await.as_mut().expect("the shop was opened").restart().await;
                        });
                        restart.await.expect("it starts again");
                        while count.held.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Answer::json(200, json!({"restarted": true}))
                    }
                    ("GET", "/services/checkout/health") => {
                        count.checks.fetch_add(1, Ordering::SeqCst);
                        let asked = http
                            .get(format!("http://127.0.0.1:{port}/healthz"))
                            .timeout(Duration::from_secs(2));
                        let status = asked.send().await.map_or(503, |a| a.status().as_u16());
                        Answer::text(status, "as the victim says")
                    }
                    _ => Answer::text(404, "no such thing"),
                }
            }
        });
        Self { port, victim, supervisor, seen, log: dir.join("victim.log"), customers: Default::default() }
    }

    fn supervisor_url(&self) -> &str {
        &self.supervisor.url
    }

    /// Starts the victim, which sends its telemetry to `intake`, and lets customers in.
    async fn open(&self, service: &Service, intake: &str) {
        let token = service.post("/api/v1/tokens", &json!({"name": "shop", "role": "intake"})).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
        command
            .args(["demo-victim", "--port", &self.port.to_string(), "--intake", intake])
            .args(["--parent", &std::process::id().to_string()])
            .env("AIOPS_TOKEN", token["token"].as_str().expect("a secret"));
        let ready = Ready::Http(format!("http://127.0.0.1:{}/healthz", self.port));
        *self.victim.lock().await = Some(Child::start(command, &self.log, ready).await);
        let (port, http) = (self.port, peers::http());
        let customers = tokio::spawn(async move {
            for id in 0_u64.. {
                order(&http, port, &json!({ "id": id })).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        *self.customers.lock().expect("not poisoned") = Some(customers);
    }

    /// Takes every database connection away, by the bug that the shop has.
    pub async fn breaks(&self) {
        let http = peers::http();
        for id in 0..8 {
            order(&http, self.port, &json!({ "id": 1_000_000 + id, "coupon": "SUMMER" })).await;
        }
    }

    pub async fn is_healthy(&self) -> bool {
        let asked = peers::http().get(format!("http://127.0.0.1:{}/healthz", self.port));
        asked.timeout(Duration::from_secs(2)).send().await.is_ok_and(|a| a.status().is_success())
    }

    pub fn restarts(&self) -> usize {
        self.seen.restarts.load(Ordering::SeqCst)
    }

    /// How often the supervisor was asked whether the shop is well.
    pub fn checks(&self) -> usize {
        self.seen.checks.load(Ordering::SeqCst)
    }

    /// Whether the supervisor keeps the answer to a restart to itself.
    pub fn hold_answer(&self, held: bool) {
        self.seen.held.store(held, Ordering::SeqCst);
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if let Some(customers) = self.customers.lock().expect("not poisoned").take() {
            customers.abort();
        }
    }
}

async fn order(http: &reqwest::Client, port: u16, body: &Value) {
    let request = http.post(format!("http://127.0.0.1:{port}/orders")).timeout(Duration::from_secs(2));
    // A broken shop fails its customers; that is what the drill is about.
    let _ = request.json(body).send().await;
}

/// Alertmanager as `deploy/` has it, but for the address.
struct AlertmanagerPlan {
    dir: PathBuf,
    port: u16,
}

fn alertmanager_ready_for(dir: &Path) -> AlertmanagerPlan {
    AlertmanagerPlan { dir: dir.to_owned(), port: peers::free_port() }
}

impl AlertmanagerPlan {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    async fn start(self, service: &Service, receiver: &str) -> Alertmanager {
        let token = service.post("/api/v1/tokens", &json!({"name": "alertmanager", "role": "intake"})).await;
        std::fs::write(self.dir.join("aiops.token"), token["token"].as_str().expect("a secret"))
            .expect("writable");
        let example = deployed("alertmanager/alertmanager.yml");
        let config = example.replace("http://127.0.0.1:8080", receiver);
        assert_ne!(config, example, "the example names aiops' usual address");
        Alertmanager::start_at(self.port, &config, &self.dir).await
    }
}

async fn prometheus(
    dir: &Path,
    port: u16,
    service: &Service,
    shop: &Shop,
    alertmanager: &Alertmanager,
) -> Prometheus {
    let targets = dir.join("targets");
    std::fs::create_dir(&targets).expect("writable");
    let aiops = service.url.trim_start_matches("http://").to_owned();
    for (name, address) in [
        ("checkout", format!("127.0.0.1:{}", shop.port)),
        ("aiops", aiops),
        ("alertmanager", format!("127.0.0.1:{}", alertmanager.port)),
    ] {
        std::fs::write(targets.join(format!("{name}.yml")), format!("- targets: [\"{address}\"]\n"))
            .expect("writable");
    }
    for name in ["rules.yml", "aiops.rules.yml"] {
        std::fs::write(dir.join(name), deployed(&format!("prometheus/{name}"))).expect("writable");
    }
    Prometheus::start_at(port, &deployed("prometheus/prometheus.yml"), dir).await
}

fn deployed(name: &str) -> String {
    let path = our("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the repository has under this name.
pub fn our(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
