//! Typed settings: defaults, then one YAML file, then the environment. Every section checks itself; every problem says where
//! it is and what would be right.

mod breaker;
mod check;
mod correlate;
mod detect;
mod diagnose;
mod elasticsearch;
mod http;
mod intake;
mod live;
mod llm;
mod load;
mod logs;
mod notify;
mod observe;
mod overload;
mod peers;
mod playbooks;
mod redis;
mod secret;
mod store;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use breaker::Breaker;
pub use check::{Check, Problem};
pub use correlate::{AnomalyOpens, Correlate, MaintenanceWindow};
pub use detect::{BusSettings, Detect, Watch};
pub use diagnose::{Diagnose, Queries};
pub use elasticsearch::{ElasticAuth, ElasticLogs, Elasticsearch, Export, Fields};
pub use http::Http;
pub use intake::{BUILT_IN, Basic, Intake, Mapping, Source};
pub use live::Live;
pub use llm::{Limits, Llm, Ollama, OpenAi};
pub use load::{ConfigError, Loaded, load, load_without_secrets};
pub use logs::Logs;
pub use notify::{Email, Notify, PagerDuty, Slack, SmtpTls, Stdout, StdoutWhen, Telegram};
pub use observe::{Log, LogFormat, Otlp};
pub use overload::Overload;
pub use peers::{Alertmanager, HttpAuth, Prometheus};
pub use playbooks::Playbooks;
pub use redis::Redis;
pub use secret::Secret;
pub use store::{MigrateWhen, Retention, StoreSettings};

pub use crate::model::Language;

/// All settings. `config/aiops.yaml` is the commented reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port of the HTTP server; port 0 takes any free one.
    pub listen: String,
    /// Where the embedded store, the admin token and run directories live.
    pub data_dir: PathBuf,
    pub language: Language,
    /// How people's browsers and buttons reach this service; links in messages start with it. Empty: no links.
    pub public_url: String,
    pub log: Log,
    pub otlp: Otlp,
    pub store: StoreSettings,
    pub http: Http,
    pub intake: Intake,
    pub overload: Overload,
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub redis: Redis,
    pub detect: Detect,
    pub logs: Logs,
    pub elasticsearch: Elasticsearch,
    pub correlate: Correlate,
    pub playbooks: Playbooks,
    pub breaker: Breaker,
    pub diagnose: Diagnose,
    pub llm: Llm,
    pub notify: Notify,
}

/// Strict limits for every YAML file that people write: one document, no deep nesting, no alias bombs, no `yes` for true.
pub fn yaml_options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! { max_documents: 1, max_depth: 32, max_nodes: 20_000, max_anchors: 64, max_aliases: 256 },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 20_000, max_alias_expansions_per_anchor: 64 },
        strict_booleans: true,
    }
}

/// Line and column (both from 1) of what is wrong in a YAML file, and the words for it without the place that they repeat.
pub fn yaml_error(e: &serde_yaml::Error) -> ((u64, u64), String) {
    let at = e.location().map_or((1, 1), |l| (l.line(), l.column()));
    let text = e.without_snippet().to_string();
    let line = text.strip_prefix("error: ").unwrap_or(&text).lines().next().unwrap_or_default();
    let message = match line.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => line,
    };
    (at, message.split(" at line ").next().unwrap_or_default().to_owned())
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            data_dir: "data".into(),
            language: Language::English,
            public_url: String::new(),
            log: Log::default(),
            otlp: Otlp::default(),
            store: StoreSettings::default(),
            http: Http::default(),
            intake: Intake::default(),
            overload: Overload::default(),
            prometheus: Prometheus::default(),
            alertmanager: Alertmanager::default(),
            redis: Redis::default(),
            detect: Detect::default(),
            logs: Logs::default(),
            elasticsearch: Elasticsearch::default(),
            correlate: Correlate::default(),
            playbooks: Playbooks::default(),
            breaker: Breaker::default(),
            diagnose: Diagnose::default(),
            llm: Llm::default(),
            notify: Notify::default(),
        }
    }
}

impl Check for Settings {
    fn check(&self, _at: &str, problems: &mut Vec<Problem>) {
        if self.listen.parse::<std::net::SocketAddr>().is_err() {
            problems.push(Problem::new(
                "listen",
                format!("{:?} is not an address with a port, such as 127.0.0.1:8080", self.listen),
            ));
        }
        if !self.public_url.is_empty() {
            check::url("public_url", &self.public_url, problems);
        }
        self.log.check("log", problems);
        self.otlp.check("otlp", problems);
        self.store.check("store", problems);
        self.http.check("http", problems);
        self.intake.check("intake", problems);
        self.overload.check("overload", problems);
        intake::check_doors(&self.listen, &self.intake, problems);
        self.prometheus.check("prometheus", problems);
        self.alertmanager.check("alertmanager", problems);
        self.redis.check("redis", problems);
        self.detect.check("detect", problems);
        if !self.detect.watches.is_empty() && self.prometheus.url.is_empty() {
            problems.push(Problem::new("detect.watches", "need prometheus.url, the server that is asked"));
        }
        self.logs.check("logs", problems);
        self.elasticsearch.check("elasticsearch", problems);
        self.correlate.check("correlate", problems);
        self.playbooks.check("playbooks", problems);
        self.breaker.check("breaker", problems);
        self.diagnose.check("diagnose", problems);
        self.llm.check("llm", problems);
        self.notify.check("notify", problems);
    }
}
