//! A broken shop: an incident with an alert and a deploy in a real store, and the stage that diagnoses it.

use std::{sync::Arc, time::Duration};

use aiops::{
    breaker::Breakers,
    bus::Embedded,
    clock,
    config::{Breaker, Secret, Settings},
    detect::{self, Detectors},
    diagnose::{self, Deps, Outcome, Prompts, evidence::Access},
    http_client, ids,
    llm::Chain,
    model::*,
    playbook::Registry,
    store::{
        Store, alerts, changes,
        decisions::{self, About},
        diagnoses, evidence, incidents,
    },
};
use serde_json::{Value, json};

use super::fake::{Fake, Reply};

const PLAYBOOK: &str = "
id: restart
title: Restart shop
description: When it hangs.
match: [{service: shop}]
params:
  grace: {type: integer, min: 1, max: 60, default: 5}
  mode: {type: string, enum: [soft, hard], default: soft}
target: shop
read_only: true
steps: [{id: wait, run: {wait: 1s}}]
";

pub struct Scene {
    pub deps: Deps,
    pub store: Store,
    pub incident: String,
    _dir: tempfile::TempDir,
}

/// A circuit stays open for about this long (a quarter more or less): long enough for a slow machine to meet it open.
pub const OPEN: Duration = Duration::from_secs(1);

/// Settings with a circuit that opens early, and no language model. An answer may take its time: nothing that is about
/// what it says depends on when it comes.
pub fn settings() -> Settings {
    let breaker = Breaker { failures: 2, open: OPEN, open_max: OPEN, ..Breaker::default() };
    Settings { breaker, ..Settings::default() }
}

pub fn with_openai(mut s: Settings, fake: &Fake) -> Settings {
    s.llm.openai.url = format!("{}/v1", fake.url);
    s.llm.openai.key = Secret::new("sk-test-key-0123456789");
    s.llm.openai.model = "gpt-test".into();
    s.llm.openai.limits.price_in = 2.0;
    s.llm.openai.limits.price_out = 10.0;
    s
}

pub fn with_ollama(mut s: Settings, fake: &Fake) -> Settings {
    s.llm.ollama.url = fake.url.clone();
    s.llm.ollama.model = "tiny".into();
    s
}

impl Scene {
    pub async fn new(mut settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open("", dir.path()).await.expect("SQLite opens");
        settings.playbooks.dir = dir.path().join("playbooks");
        std::fs::create_dir(&settings.playbooks.dir).expect("writable");
        std::fs::write(settings.playbooks.dir.join("restart.yaml"), PLAYBOOK).expect("writable");
        let incident = break_the_shop(&store).await;
        let deps = deps(settings, &store);
        assert!(!deps.playbooks.current().has_errors());
        Self { deps, store, incident, _dir: dir }
    }

    /// The same store after a restart of the program.
    pub fn restarted(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.deps.access.settings);
        change(&mut settings);
        self.deps = deps(settings, &self.store);
    }

    pub async fn first(&self) -> Outcome {
        let (tx, outcome) = diagnose::first(&self.deps, &self.incident).await.expect("the store works");
        tx.commit().await.expect("commits");
        outcome
    }

    pub async fn enhance(&self) -> Outcome {
        let (tx, outcome) = diagnose::enhance(&self.deps, &self.incident).await.expect("the store works");
        tx.commit().await.expect("commits");
        outcome
    }

    /// What people see.
    pub async fn seen(&self) -> Diagnosis {
        let mut tx = self.store.read().await.expect("reads");
        diagnoses::latest(&mut tx, &self.incident).await.expect("reads").expect("there is one")
    }

    pub async fn evidence(&self) -> Vec<Evidence> {
        let mut tx = self.store.read().await.expect("reads");
        evidence::of(&mut tx, &self.incident).await.expect("reads")
    }

    pub async fn version(&self) -> i64 {
        let mut tx = self.store.read().await.expect("reads");
        incidents::get(&mut tx, &self.incident).await.expect("reads").expect("is there").version
    }

    /// `outcome: why` of every decision.
    pub async fn decisions(&self) -> Vec<String> {
        let mut tx = self.store.read().await.expect("reads");
        let all = decisions::of(&mut tx, About::incident(&self.incident)).await.expect("reads");
        all.into_iter().map(|d| format!("{}: {}", d.outcome, d.why)).collect()
    }

    /// Asks the models anew about a fresh diagnosis by rules, and says what became of the first of them.
    pub async fn attempt(&self) -> String {
        let mut tx = self.store.write().await.expect("writes");
        let rules = diagnoses::of(&mut tx, &self.incident).await.expect("reads");
        let rules = rules.into_iter().rfind(|d| d.tier == Tier::Rules).expect("the rules answered");
        let fresh = Diagnosis {
            id: ids::new(),
            attempts: Vec::new(),
            missing: Vec::new(),
            created_at: clock::now(),
            ..rules
        };
        diagnoses::save(&mut tx, &fresh).await.expect("writes");
        tx.commit().await.expect("commits");
        self.enhance().await;
        self.seen().await.attempts[0].outcome.to_string()
    }
}

fn deps(settings: Settings, store: &Store) -> Deps {
    let settings = Arc::new(settings);
    let breakers = Breakers::new(&settings.breaker);
    let http = http_client::new();
    let bus = std::sync::Arc::new(Embedded::new(&settings.detect.bus));
    let (signals, _) = tokio::sync::mpsc::channel(1);
    let telemetry = Detectors::new(detect::Deps {
        bus,
        settings: settings.detect.clone(),
        signals,
        left_open: Vec::new(),
        keep: None,
        calls: Default::default(),
    });
    Deps {
        chain: Arc::new(Chain::new(&settings.llm, &http, store.clone(), breakers.clone())),
        prompts: Arc::new(Prompts::built_in()),
        playbooks: Arc::new(Registry::open(&settings)),
        access: Access {
            store: store.clone(),
            settings,
            http: Some(http),
            breakers,
            telemetry: Arc::new(telemetry),
            logs: Default::default(),
            admission: Arc::default(),
        },
    }
}

async fn break_the_shop(store: &Store) -> String {
    let now = clock::now();
    let labels: Labels =
        [("alertname", "ShopDown"), ("service", "shop")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let incident = Incident {
        id: ids::new(),
        state: IncidentState::Open,
        severity: Severity::Critical,
        title: "shop is down".into(),
        service: "shop".into(),
        started_at: now,
        opened_at: now,
        updated_at: now,
        last_signal_at: now,
        resolved_at: None,
        alert_count: 1,
        firing_count: 1,
        version: 1,
        episode: 1,
        flapping: false,
        suppressed: None,
        acknowledged_by: None,
        resolved_by: None,
    };
    let alert = Alert {
        fingerprint: fingerprint(&labels),
        source: "test".into(),
        labels,
        annotations: [("summary".to_owned(), "shop is down, password=hunter2".to_owned())].into(),
        state: AlertState::Firing,
        starts_at: now,
        ends_at: None,
        expires_at: None,
        generator_url: String::new(),
        incident_id: Some(incident.id.clone()),
        last_seen_at: now,
    };
    let change = Change {
        id: ids::new(),
        kind: "deploy".into(),
        service: "shop".into(),
        summary: "1.4 → 1.5".into(),
        author: Some("ann".into()),
        url: None,
        at: clock::before(now, Duration::from_secs(300)),
    };
    let mut tx = store.write().await.expect("writes");
    incidents::save_held(&mut tx, &[&incident.clone().into()]).await.expect("writes");
    alerts::save(&mut tx, &[&alert]).await.expect("writes");
    changes::save(&mut tx, &change).await.expect("writes");
    tx.commit().await.expect("commits");
    incident.id
}

/// An answer that keeps to everything agreed.
pub fn good() -> Value {
    json!({
        "summary": "The deploy of 1.5 broke the shop.",
        "claims": [{"text": "The deploy came five minutes before.", "evidence": ["E2"]}],
        "playbook": {"id": "restart", "params": {"grace": 30, "mode": "hard"}, "why": "It loads 1.4 again."},
    })
}

pub fn openai_says(content: &str, finish: &str) -> Reply {
    Reply::Json(
        200,
        json!({
            "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-test-2026",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }),
    )
}

pub fn ollama_says(content: &str, done: &str) -> Reply {
    Reply::Json(
        200,
        json!({
            "model": "tiny", "created_at": "2026-11-21T00:00:00Z", "done": true, "done_reason": done,
            "message": {"role": "assistant", "content": content},
            "prompt_eval_count": 900, "eval_count": 80,
        }),
    )
}
