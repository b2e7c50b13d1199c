//! The drill's world: real Prometheus, Alertmanager, mail server and language model, a real victim that really breaks, and
//! faithful fakes where the real thing is on the internet.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinHandle};

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
    _ollama: Ollama,
    _prometheus: Prometheus,
    _alertmanager: Alertmanager,
}

impl World {
    /// Starts it all; `store` is the service's `store` section.
    pub async fn start(store: &str) -> Self {
        let dir = peers::scratch("drill");
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let (smtp, ollama) = tokio::join!(Smtp::start(), Ollama::start(MODEL));
        let openai = Fake::start(Reply::Json(500, json!({"error": {"message": "overloaded"}}))).await;
        let prometheus_port = peers::free_port();
        let shop = Shop::new(&dir);
        let alertmanager = alertmanager_ready_for(&dir);
        let settings = format!(
            "{store}\
             prometheus: {{url: 'http://127.0.0.1:{prometheus_port}'}}\n\
             alertmanager: {{urls: ['{am}'], reconcile_every: 5s}}\n\
             detect: {{warm_up: 8s}}\n\
             correlate: {{flap_count: 5}}\n\
             playbooks:\n  dir: {playbooks}\n  http_hosts: ['{host}']\n  values: {{supervisor_url: '{supervisor}'}}\n  \
             http_auth: {{'{host}': {{bearer: {SUPERVISOR_TOKEN}}}}}\n\
             llm:\n  openai: {{url: '{openai}/v1', key: sk-drill-0123456789abcdef, model: gpt-drill, limits: {{timeout: 5s}}}}\n  \
             ollama: {{url: '{ollama}', model: '{MODEL}', limits: {{timeout: 20s}}}}\n\
             notify:\n  telegram: {{token: '{telegram_token}', api: '{telegram}', chat_id: {CHAT}, \
             allowed_users: [{ANN}], poll: 1s}}\n  \
             slack: {{token: '{slack_token}', api: '{slack}', channel: {slack_channel}}}\n  \
             pagerduty: {{routing_key: '{routing_key}', api: '{pagerduty}', min_severity: info}}\n  \
             email: {{host: 127.0.0.1, port: {smtp_port}, tls: none, from: 'aiops <aiops@example.org>', \
             to: [oncall@example.org]}}\n",
            am = alertmanager.url(),
            playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks").display(),
            host = shop.supervisor_url().trim_start_matches("http://"),
            supervisor = shop.supervisor_url(),
            openai = openai.url,
            ollama = ollama.url,
            telegram = telegram.url(),
            slack = slack.api(),
            pagerduty = pagerduty.url(),
            smtp_port = smtp.port,
            telegram_token = fakes::telegram::TOKEN,
            slack_token = fakes::slack::TOKEN,
            slack_channel = fakes::slack::CHANNEL,
            routing_key = fakes::pagerduty::ROUTING_KEY,
        );
        let service = Service::start_in(&dir, &settings).await;
        shop.open(&service).await;
        let alertmanager = alertmanager.start(&service).await;
        let prometheus = prometheus(&dir, prometheus_port, &service, &shop, &alertmanager).await;
        Self {
            service,
            telegram,
            slack,
            pagerduty,
            smtp,
            openai,
            shop,
            _ollama: ollama,
            _prometheus: prometheus,
            _alertmanager: alertmanager,
        }
    }
}

const SUPERVISOR_TOKEN: &str = "supervisor-0123456789abcdef";

/// The victim with its supervisor and its customers.
pub struct Shop {
    pub port: u16,
    victim: Arc<Mutex<Option<Child>>>,
    supervisor: fakes::Server,
    restarts: Arc<AtomicUsize>,
    log: std::path::PathBuf,
    customers: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Shop {
    fn new(dir: &Path) -> Self {
        let port = peers::free_port();
        let victim: Arc<Mutex<Option<Child>>> = Arc::default();
        let restarts: Arc<AtomicUsize> = Arc::default();
        let (kept, count, http) = (victim.clone(), restarts.clone(), peers::http());
        let supervisor = fakes::serve(move |request| {
            let (kept, count, http) = (kept.clone(), count.clone(), http.clone());
            async move {
                match (request.method.as_str(), request.path.as_str()) {
                    ("POST", "/services/checkout/restart") => {
                        if request.authorization != format!("Bearer {SUPERVISOR_TOKEN}") {
                            return Answer::text(401, "who are you?");
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                        kept.lock().await.as_mut().expect("the shop was opened").restart().await;
                        Answer::json(200, json!({"restarted": true}))
                    }
                    ("GET", "/services/checkout/health") => {
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
        Self {
            port,
            victim,
            supervisor,
            restarts,
            log: dir.join("victim.log"),
            customers: Default::default(),
        }
    }

    fn supervisor_url(&self) -> &str {
        &self.supervisor.url
    }

    /// Starts the victim and lets customers in.
    async fn open(&self, service: &Service) {
        let token = service.post("/api/v1/tokens", &json!({"name": "shop", "role": "intake"})).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
        command
            .args(["demo-victim", "--port", &self.port.to_string(), "--intake", &service.url])
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
        self.restarts.load(Ordering::SeqCst)
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
    dir: std::path::PathBuf,
    port: u16,
}

fn alertmanager_ready_for(dir: &Path) -> AlertmanagerPlan {
    AlertmanagerPlan { dir: dir.to_owned(), port: peers::free_port() }
}

impl AlertmanagerPlan {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    async fn start(self, service: &Service) -> Alertmanager {
        let token = service.post("/api/v1/tokens", &json!({"name": "alertmanager", "role": "intake"})).await;
        std::fs::write(self.dir.join("aiops.token"), token["token"].as_str().expect("a secret"))
            .expect("writable");
        let example = deployed("alertmanager/alertmanager.yml");
        let config = example.replace("http://127.0.0.1:8080", &service.url);
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
    std::fs::write(dir.join("rules.yml"), deployed("prometheus/rules.yml")).expect("writable");
    Prometheus::start_at(port, &deployed("prometheus/prometheus.yml"), dir).await
}

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
