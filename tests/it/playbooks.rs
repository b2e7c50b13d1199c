//! From a suggestion to a verified fix, on both stores, with real processes and a real HTTP service: what is asked, what runs,
//! what a crash or the kill switch does to it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aiops::{
    act, clock,
    config::Settings,
    decide, http_client, ids,
    model::{
        Actor, Alert, AlertState, ApprovalState, Diagnosis, Incident, IncidentState, Job, JobKind, Run,
        RunState, Severity, StepState, Suggestion, Tier, TimelineKind,
    },
    playbook::Registry,
    steer::{self, Answer},
    steps::Tools,
    store::{
        Store, alerts, approvals, audit,
        decisions::{self, About},
        diagnoses, incidents, jobs, runs, timeline,
    },
    verify,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use crate::stores::on_both_stores;

/// A supervisor and Prometheus in one: it counts restarts, and says how its service is.
#[derive(Default)]
struct World {
    requests: Mutex<Vec<String>>,
    healthy: AtomicBool,
    restarts: AtomicUsize,
    /// A restart makes it healthy.
    curable: AtomicBool,
}

impl World {
    async fn start() -> (Arc<Self>, u16) {
        let world = Arc::new(Self::default());
        world.curable.store(true, Ordering::SeqCst);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let served = world.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let world = served.clone();
                tokio::spawn(async move {
                    let _ = world.answer(socket).await;
                });
            }
        });
        (world, port)
    }

    async fn answer(&self, socket: tokio::net::TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(socket);
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).await?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).await?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(n) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        let body = String::from_utf8_lossy(&body);
        self.requests.lock().expect("not poisoned").push(format!("{} {body}", line.trim()));
        let (status, answer) = self.reply(&line);
        let text = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        );
        reader.into_inner().write_all(text.as_bytes()).await
    }

    fn reply(&self, line: &str) -> (u16, String) {
        let healthy = || self.healthy.load(Ordering::SeqCst);
        if line.starts_with("POST /api/v1/query") {
            let value = i32::from(healthy());
            let result = json!({"status": "success", "data": {"resultType": "vector",
                "result": [{"metric": {"__name__": "up", "job": "shop"}, "value": [1.0, value.to_string()]}]}});
            return (200, result.to_string());
        }
        if line.contains("/restart ") {
            self.restarts.fetch_add(1, Ordering::SeqCst);
            self.healthy.store(self.curable.load(Ordering::SeqCst), Ordering::SeqCst);
            return (202, "restarting".into());
        }
        if line.contains("/undo ") {
            return (200, "undone".into());
        }
        (if healthy() { 200 } else { 503 }, "health".into())
    }

    fn restarts(&self) -> usize {
        self.restarts.load(Ordering::SeqCst)
    }
}

const RESTART: &str = r#"
id: restart
title: Restart {{ service }}
description: D
match: [{labels: {alertname: ServiceDown}}]
params:
  service: {type: string, from: incident service}
  base: {type: url, from: setting supervisor_url}
target: service/{{ service }}
guards: {cooldown: 10m, rate: {count: 2, per: 1h}, max_targets: 2}
steps:
  - id: restart
    run: {http: {method: POST, url: "{{ base }}/services/{{ service }}/restart", expect: [202]}}
    timeout: 5s
verify:
  within: 2s
  for: 200ms
  every: 100ms
  probes:
    - http: {url: "{{ base }}/services/{{ service }}/health", expect: [200]}
    - prometheus: {query: 'up{job="{{ service }}"}', expect: {above: 0}}
rollback:
  - {id: undo-one, run: {http: {method: POST, url: "{{ base }}/1/undo"}}, timeout: 5s}
  - {id: undo-two, run: {http: {method: POST, url: "{{ base }}/2/undo"}}, timeout: 5s}
on_failure: Look at the last deploy of {{ service }}.
"#;

/// Runs a real process that takes its time; the touched file tells how often it was begun.
fn slow(mark: &Path, idempotent: bool) -> String {
    format!(
        r#"
id: slow
title: Slow work
description: D
match: [{{labels: {{alertname: SlowDown}}}}]
target: slow
read_only: true
steps:
  - id: mark
    run: {{command: [mark, "{}"]}}
    timeout: 60s
    idempotent: {idempotent}
"#,
        mark.display()
    )
}

/// Everything that a process of the service holds; a second one over the same store is a restart.
struct House {
    store: Store,
    decide: decide::Deps,
    act: act::Deps,
    verify: verify::Deps,
    world: Arc<World>,
    _dir: Arc<tempfile::TempDir>,
}

impl House {
    async fn build(store: Store, playbooks: &[&str], auto: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (i, text) in playbooks.iter().enumerate() {
            std::fs::write(dir.path().join(format!("p{i}.yaml")), text).expect("written");
        }
        let (world, port) = World::start().await;
        let mut settings = Settings::default();
        settings.playbooks.dir = dir.path().to_owned();
        settings.playbooks.http_hosts = vec![format!("127.0.0.1:{port}")];
        settings.playbooks.values =
            [("supervisor_url".to_owned(), format!("http://127.0.0.1:{port}"))].into();
        settings.playbooks.executables = vec![dir.path().join("mark")];
        settings.playbooks.auto = auto.iter().map(|a| (*a).to_owned()).collect();
        settings.prometheus.url = format!("http://127.0.0.1:{port}");
        write_script(&dir.path().join("mark"));
        let registry = Arc::new(Registry::open(&settings));
        assert!(!registry.current().has_errors(), "{:?}", registry.current().findings);
        let tools = Arc::new(Tools {
            registry: registry.clone(),
            http: http_client::new(),
            prometheus: settings.prometheus.clone(),
            data_dir: dir.path().join("data"),
        });
        Self {
            decide: decide::Deps { store: store.clone(), registry },
            act: act::Deps { store: store.clone(), tools: tools.clone() },
            verify: verify::Deps { store: store.clone(), tools },
            store,
            world,
            _dir: Arc::new(dir),
        }
    }

    /// An open incident with one firing alert and, if wanted, a suggestion.
    async fn incident(&self, service: &str, alertname: &str, suggestion: Option<&str>) -> String {
        let at = clock::now();
        let incident = Incident {
            id: ids::new(),
            state: IncidentState::Open,
            severity: Severity::Critical,
            title: format!("{service} is down").into(),
            service: service.into(),
            started_at: at,
            opened_at: at,
            updated_at: at,
            last_signal_at: at,
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
        let labels =
            [("alertname", alertname), ("service", service)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let alert = Alert {
            fingerprint: ids::new(),
            source: "test".into(),
            labels: labels.into(),
            annotations: BTreeMap::new(),
            state: AlertState::Firing,
            starts_at: at,
            ends_at: None,
            expires_at: None,
            generator_url: String::new(),
            incident_id: Some(incident.id.clone()),
            last_seen_at: at,
        };
        let mut tx = self.store.write().await.expect("a transaction");
        incidents::save_held(&mut tx, &[&incident.clone().into()]).await.expect("inserted");
        alerts::save(&mut tx, &[&alert]).await.expect("saved");
        tx.commit().await.expect("committed");
        if let Some(playbook) = suggestion {
            self.suggest(&incident.id, playbook, json!({})).await;
        }
        incident.id
    }

    async fn suggest(&self, incident_id: &str, playbook: &str, params: serde_json::Value) {
        let diagnosis = Diagnosis {
            id: ids::new(),
            incident_id: incident_id.into(),
            tier: Tier::Rules,
            model: String::new(),
            summary: "It is down.".into(),
            claims: Vec::new(),
            suggestion: Some(Suggestion {
                playbook: playbook.into(),
                params: serde_json::from_value(params).expect("an object"),
                why: "it is down".into(),
            }),
            missing: Vec::new(),
            attempts: Vec::new(),
            latency_ms: 1,
            tokens_in: 0,
            tokens_out: 0,
            cost_usd: 0.0,
            created_at: clock::now(),
        };
        let mut tx = self.store.write().await.expect("a transaction");
        diagnoses::save(&mut tx, &diagnosis).await.expect("saved");
        tx.commit().await.expect("committed");
    }

    async fn decide(&self, incident_id: &str) -> decide::Outcome {
        let mut tx = self.store.write().await.expect("writable");
        let outcome = decide::decide(&self.decide, &mut tx, incident_id).await.expect("decided");
        tx.commit().await.expect("committed");
        outcome
    }

    /// Decides, and expects a question.
    async fn asked(&self, incident_id: &str) -> aiops::model::Approval {
        let decide::Outcome::Asked { approval_id } = self.decide(incident_id).await else {
            panic!("nobody was asked: {:?}", self.why(incident_id).await);
        };
        let mut tx = self.store.read().await.expect("a transaction");
        approvals::get(&mut tx, &approval_id).await.expect("read").expect("there")
    }

    async fn approve(&self, id: &str, hash: &str) -> steer::Result<String> {
        let mut tx = self.store.write().await?;
        let run = steer::approve(&mut tx, id, &Actor::token("ann"), hash).await?;
        tx.commit().await?;
        Ok(run)
    }

    /// Claims as if the leases of earlier owners had ended.
    async fn claim(&self, kind: JobKind) -> Job {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let later = clock::after(clock::now(), Duration::from_secs(60));
            let mut tx = self.store.write().await.expect("a transaction");
            let claimed = jobs::claim(&mut tx, "test", later, Duration::ZERO, 10).await.expect("claimed");
            tx.commit().await.expect("committed");
            if let Some(job) = claimed.into_iter().find(|j| j.kind == kind) {
                return job;
            }
            assert!(Instant::now() < end, "no job of kind {kind}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Does the run's jobs until it is over or waits, as the pipeline does.
    async fn carry_out(&self, run_id: &str) -> Run {
        let cancel = CancellationToken::new();
        loop {
            let job = self.claim(JobKind::Run).await;
            let (mut tx, outcome) = act::run(&self.act, &job, run_id, &cancel).await.expect("carried out");
            jobs::finish(&mut tx, job).await.expect("finished");
            tx.commit().await.expect("committed");
            if outcome != act::Outcome::Verify {
                return self.run(run_id).await;
            }
            self.enqueue(JobKind::Verify, run_id).await;
            let job = self.claim(JobKind::Verify).await;
            let (mut tx, outcome) =
                verify::verify(&self.verify, &job, run_id, &cancel).await.expect("verified");
            jobs::finish(&mut tx, job).await.expect("finished");
            tx.commit().await.expect("committed");
            if outcome != verify::Outcome::Failed {
                return self.run(run_id).await;
            }
            self.enqueue(JobKind::Run, run_id).await;
        }
    }

    async fn enqueue(&self, kind: JobKind, subject: &str) {
        let mut tx = self.store.write().await.expect("a transaction");
        let job = aiops::model::NewJob { kind, subject: subject.into(), run_at: clock::now() };
        jobs::enqueue(&mut tx, &job).await.expect("enqueued");
        tx.commit().await.expect("committed");
    }

    async fn run(&self, id: &str) -> Run {
        let mut tx = self.store.read().await.expect("a transaction");
        runs::get(&mut tx, id).await.expect("read").expect("there")
    }

    async fn story(&self, incident_id: &str) -> Vec<(TimelineKind, String)> {
        let mut tx = self.store.read().await.expect("a transaction");
        timeline::of(&mut tx, incident_id)
            .await
            .expect("read")
            .into_iter()
            .map(|t| (t.kind, t.text.to_string()))
            .collect()
    }

    /// The newest decision: clause and why.
    async fn why(&self, incident_id: &str) -> (String, String) {
        let mut tx = self.store.read().await.expect("a transaction");
        let all = decisions::of(&mut tx, About::incident(incident_id)).await.expect("read");
        all.last().map(|d| (d.clause.clone(), d.why.clone())).expect("a decision")
    }

    async fn switch_off(&self) {
        let mut tx = self.store.write().await.expect("a transaction");
        steer::stop_automation(&mut tx, &Actor::token("ann"), "too much").await.expect("stopped");
        tx.commit().await.expect("committed");
    }
    async fn switch_on(&self) {
        let mut tx = self.store.write().await.expect("a transaction");
        steer::start_automation(&mut tx, &Actor::token("ann")).await.expect("started");
        tx.commit().await.expect("committed");
    }
    async fn cancel(&self, run_id: &str) -> steer::Result<()> {
        let mut tx = self.store.write().await?;
        steer::cancel_run(&mut tx, run_id, &Actor::token("ann"), "wrong host").await?;
        Ok(tx.commit().await?)
    }
    async fn settle(&self, run_id: &str, answer: Answer) -> steer::Result<()> {
        let mut tx = self.store.write().await?;
        steer::settle_step(&mut tx, run_id, answer, &Actor::token("ann")).await?;
        Ok(tx.commit().await?)
    }
}

/// Appends a line to the file that is its argument, then sleeps for long, unless the file `quick` is beside it.
fn write_script(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let text = "#!/bin/sh\necho begun >> \"$1\"\n[ -e \"$(dirname \"$1\")/quick\" ] || exec sleep 300\n";
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

on_both_stores! {
    async fn approved_run_heals_and_is_verified(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let approval = house.asked(&id).await;
        assert_eq!(house.world.restarts(), 0, "nothing runs before the answer");
        let run_id = house.approve(&approval.id, &approval.plan_hash).await.expect("approved");
        let run = house.carry_out(&run_id).await;
        assert_eq!(run.state, RunState::Succeeded, "{}", run.outcome);
        assert_eq!(house.world.restarts(), 1);
        let story = house.story(&id).await;
        let kinds: Vec<_> = story.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(
            kinds,
            ["proposed", "approved", "run_started", "step_started", "step_finished", "verified", "run_finished"]
        );
        let verified = &story[5].1;
        assert!(verified.starts_with("The fix is verified: GET http://127.0.0.1:"), "{verified}");
        assert!(verified.contains("up{job=\"shop\"} > 0 → up{job=\"shop\"} = 1"), "{verified}");
        assert!(verified.contains("held for 200ms"), "{verified}");
        let (clause, why) = house.why(&id).await;
        assert_eq!(clause, "verify", "{why}");
        // Decided anew: what has helped is not asked for again.
        assert_eq!(house.decide(&id).await, decide::Outcome::Nothing { again_at: None });
        assert_eq!(house.why(&id).await.0, "run tried");
        let mut tx = house.store.read().await.expect("a transaction");
        let entry = audit::list(&mut tx, 10, None).await.expect("read").items.remove(0);
        assert_eq!((entry.action.as_str(), entry.actor), ("approve", Actor::token("ann")));
    }

    async fn approval_works_once_for_the_plan_that_was_shown(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let approval = house.asked(&id).await;
        let error = house.approve(&approval.id, "0000").await.unwrap_err();
        assert_eq!(error.to_string(), "you were shown another plan than this one; look at it again");
        house.approve(&approval.id, &approval.plan_hash).await.expect("approved");
        let error = house.approve(&approval.id, &approval.plan_hash).await.unwrap_err();
        assert_eq!(error.to_string(), "token:ann has approved this already");
        assert!(matches!(error, steer::Error::Conflict(_)));
        let error = house.approve("nothing", "x").await.unwrap_err();
        assert_eq!(error.to_string(), "there is no approval nothing");
        let mut tx = house.store.read().await.expect("a transaction");
        assert_eq!(runs::of(&mut tx, &id).await.expect("read").len(), 1);
    }

    async fn two_approvals_at_once_start_one_run(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let (x, y) = tokio::join!(house.approve(&a.id, &a.plan_hash), house.approve(&a.id, &a.plan_hash));
        assert_eq!(usize::from(x.is_ok()) + usize::from(y.is_ok()), 1);
        let mut tx = house.store.read().await.expect("a transaction");
        assert_eq!(runs::of(&mut tx, &id).await.expect("read").len(), 1);
    }

    async fn approval_expires_without_acting(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let mut a = house.asked(&id).await;
        a.id = ids::new();
        a.expires_at = clock::before(clock::now(), Duration::from_secs(1));
        let mut tx = house.store.write().await.expect("a transaction");
        approvals::insert(&mut tx, &a).await.expect("inserted");
        tx.commit().await.expect("committed");
        let error = house.approve(&a.id, &a.plan_hash).await.unwrap_err().to_string();
        assert!(error.starts_with("this question expired at "), "{error}");
        let (tx, again) = decide::expire(&house.decide, &a.id).await.expect("expired");
        tx.commit().await.expect("committed");
        assert_eq!(again, None);
        let mut tx = house.store.read().await.expect("a transaction");
        let now = approvals::get(&mut tx, &a.id).await.expect("read").expect("there");
        assert_eq!(now.state, ApprovalState::Expired);
        assert!(runs::of(&mut tx, &id).await.expect("read").is_empty());
        drop(tx);
        let (kind, text) = house.story(&id).await.pop().expect("a story");
        assert_eq!((kind, text.as_str()), (TimelineKind::Expired, "Nobody answered in time; nothing was done: Restart shop"));
    }

    async fn a_rejected_plan_is_not_proposed_again(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        // The same plan while the question is open: nobody is asked twice.
        assert_eq!(house.decide(&id).await, decide::Outcome::Nothing { again_at: None });
        assert_eq!(house.why(&id).await.0, "approval pending");
        let mut tx = house.store.write().await.expect("a transaction");
        steer::reject(&mut tx, &a.id, &Actor::token("bob"), "not now").await.expect("rejected");
        tx.commit().await.expect("committed");
        assert_eq!(house.decide(&id).await, decide::Outcome::Nothing { again_at: None });
        let (clause, why) = house.why(&id).await;
        assert_eq!((clause.as_str(), why.as_str()), ("approval rejected", "token:bob has rejected this plan for this incident"));
        assert!(house.approve(&a.id, &a.plan_hash).await.unwrap_err().to_string().contains("has rejected this already"));
    }

    async fn resolving_by_hand_closes_the_question(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let ann = Actor::token("ann");
        let mut tx = house.store.write().await.expect("a transaction");
        steer::acknowledge(&mut tx, &id, &ann).await.expect("acknowledged");
        let twice = steer::acknowledge(&mut tx, &id, &ann).await.unwrap_err();
        assert_eq!(twice.to_string(), "token:ann has acknowledged it already");
        steer::resolve(&mut tx, &id[30..], &ann, "was me").await.expect("resolved by its short id");
        tx.commit().await.expect("committed");
        let error = house.approve(&a.id, &a.plan_hash).await.unwrap_err().to_string();
        assert_eq!(error, "this question is closed: the incident was resolved");
        let mut tx = house.store.write().await.expect("a transaction");
        let error = steer::resolve(&mut tx, &id, &ann, "").await.unwrap_err().to_string();
        assert!(error.ends_with("is resolved already (token:ann)"), "{error}");
    }

    async fn a_fix_that_does_not_help_is_undone_in_order_and_people_are_called(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        house.world.curable.store(false, Ordering::SeqCst);
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let run = house.carry_out(&run_id).await;
        assert_eq!(run.state, RunState::RolledBack);
        assert!(run.outcome.starts_with("It did not help: GET http://"), "{}", run.outcome);
        let undone: Vec<_> = {
            let requests = house.world.requests.lock().expect("not poisoned");
            requests.iter().filter(|r| r.contains("/undo")).map(|r| r[..8].to_owned()).collect()
        };
        assert_eq!(undone, ["POST /1/", "POST /2/"]);
        let story = house.story(&id).await;
        let last: Vec<_> = story.iter().rev().take(3).map(|(k, t)| (k.as_str(), t.as_str())).collect();
        assert_eq!(last[0], ("needs_human", "Look at the last deploy of shop."));
        assert_eq!(last[2], ("rolled_back", "Undone: Restart shop"));
        assert_eq!(house.decide(&id).await, decide::Outcome::Nothing { again_at: None });
        assert_eq!(house.why(&id).await.0, "run tried");
    }

    async fn no_answer_is_never_a_yes(store: Store) {
        let mut house = House::build(store, &[RESTART], &[]).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
        let mut tools = (*house.verify.tools).clone();
        tools.prometheus.url = format!("http://{closed}");
        house.verify.tools = Arc::new(tools);
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let run = house.carry_out(&run_id).await;
        assert_eq!(run.state, RunState::RolledBack);
        assert!(run.outcome.contains("Prometheus gave no answer"), "{}", run.outcome);
        assert!(house.world.healthy.load(Ordering::SeqCst), "the service itself is well");
    }

    async fn a_shutdown_gives_the_run_back_and_it_goes_on(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        let over = CancellationToken::new();
        over.cancel();
        let error = act::run(&house.act, &job, &run_id, &over).await.err().expect("given back");
        assert_eq!(error.to_string(), "shutting down before step restart");
        assert_eq!(house.world.restarts(), 0);
        assert_eq!(house.carry_out(&run_id).await.state, RunState::Succeeded);
        assert_eq!(house.world.restarts(), 1);
    }

    async fn guards_hold_where_the_run_starts(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let first = house.incident("shop", "ServiceDown", Some("restart")).await;
        let second = house.incident("shop", "ServiceDown", Some("restart")).await;
        let (a, b) = (house.asked(&first).await, house.asked(&second).await);
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let error = house.approve(&b.id, &b.plan_hash).await.unwrap_err();
        assert!(matches!(&error, steer::Error::Refused { clause, .. } if clause == "guards.lock"), "{error}");
        house.carry_out(&run_id).await;
        let error = house.approve(&b.id, &b.plan_hash).await.unwrap_err();
        assert!(matches!(&error, steer::Error::Refused { clause, .. } if clause == "guards.cooldown"), "{error}");
        // The question is still open: an answer that was refused does not use it up.
        let mut tx = house.store.read().await.expect("a transaction");
        assert_eq!(approvals::get(&mut tx, &b.id).await.expect("read").expect("there").state, ApprovalState::Pending);
        drop(tx);
        let other = house.incident("cart", "ServiceDown", Some("restart")).await;
        let c = house.asked(&other).await;
        let run_id = house.approve(&c.id, &c.plan_hash).await.expect("another target");
        house.carry_out(&run_id).await;
        let third = house.incident("pay", "ServiceDown", Some("restart")).await;
        let decide::Outcome::Nothing { again_at: Some(at) } = house.decide(&third).await else { panic!("refused") };
        assert!(at > clock::now());
        let (clause, why) = house.why(&third).await;
        assert!(clause.ends_with("p0.yaml guards.rate"), "{clause}");
        assert_eq!(why, "Restart pay: 2 of at most 2 runs within 1h");
        let kinds: Vec<_> = house.story(&third).await.into_iter().map(|(k, _)| k).collect();
        assert_eq!(kinds, [TimelineKind::Refused]);
    }

    async fn what_both_allow_runs_unasked(store: Store) {
        let auto = RESTART.replace("guards:", "approval: auto\nguards:");
        let house = House::build(store, &[&auto], &["restart"]).await;
        let id = house.incident("shop", "ServiceDown", None).await;
        let decide::Outcome::Started { run_id } = house.decide(&id).await else { panic!("started") };
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, run.allowed_by), (RunState::Succeeded, Actor::aiops("policy")));
    }

    async fn a_crash_in_a_step_asks_a_human_and_never_repeats_it(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, false)], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        crash(&house, job, &run_id, &mark).await;
        assert_eq!(house.run(&run_id).await.steps[0].state, StepState::Intended);
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, run.steps[0].state), (RunState::NeedsHuman, StepState::Unknown));
        assert_eq!(lines(&mark), 1, "it was not done again");
        let (kind, text) = house.story(&id).await.pop().expect("a story");
        assert_eq!(kind, TimelineKind::NeedsHuman);
        assert!(text.starts_with("Nobody knows whether step mark was done ("), "{text}");
        // A human has looked: it is done.
        house.settle(&run_id, Answer::Continue).await.expect("settled");
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, run.steps[0].state), (RunState::Succeeded, StepState::Succeeded));
        assert_eq!(lines(&mark), 1);
        let error = house.settle(&run_id, Answer::Retry).await.unwrap_err().to_string();
        assert!(error.ends_with("is succeeded, it waits for nobody"), "{error}");
    }

    async fn a_human_may_have_the_step_done_again_or_stop_there(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, false)], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        crash(&house, job, &run_id, &mark).await;
        assert_eq!(house.carry_out(&run_id).await.state, RunState::NeedsHuman);
        std::fs::write(dir.path().join("quick"), "").expect("written");
        house.settle(&run_id, Answer::Retry).await.expect("settled");
        let run = house.carry_out(&run_id).await;
        assert_eq!(run.state, RunState::Succeeded, "{}", run.outcome);
        assert_eq!(lines(&mark), 2);
        assert_eq!(run.steps.iter().map(|s| s.state).collect::<Vec<_>>(), [StepState::Unknown, StepState::Succeeded]);
    }

    async fn a_harmless_step_is_done_again_after_a_crash(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, true)], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        crash(&house, job, &run_id, &mark).await;
        std::fs::write(dir.path().join("quick"), "").expect("written");
        let run = house.carry_out(&run_id).await;
        assert_eq!(run.state, RunState::Succeeded, "{}", run.outcome);
        assert_eq!(lines(&mark), 2);
    }

    async fn a_late_owner_writes_nothing(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, false)], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let late = house.claim(JobKind::Run).await;
        // The lease ends; somebody else takes the job.
        let _owner = house.claim(JobKind::Run).await;
        let error = act::run(&house.act, &late, &run_id, &CancellationToken::new()).await.err().expect("refused");
        assert!(error.to_string().contains("lease was lost"), "{error:#}");
        assert!(house.run(&run_id).await.steps.is_empty());
        assert_eq!(lines(&mark), 0);
    }

    async fn the_kill_switch_holds_within_a_second_in_the_middle_of_a_step(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, true), RESTART], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        let (deps, run) = (house.act.clone(), run_id.clone());
        let task = tokio::spawn(async move {
            let (mut tx, outcome) = act::run(&deps, &job, &run, &CancellationToken::new()).await.expect("carried out");
            jobs::finish(&mut tx, job).await.expect("finished");
            tx.commit().await.expect("committed");
            outcome
        });
        wait_for_lines(&mark).await;
        let began = Instant::now();
        house.switch_off().await;
        assert_eq!(task.await.expect("it ended"), act::Outcome::Waiting);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(!runs_on(&mark), "the process is gone");
        let run = house.run(&run_id).await;
        assert_eq!((run.state, run.steps[0].state), (RunState::NeedsHuman, StepState::Unknown));
        assert!(run.outcome.starts_with("Automation is stopped by token:ann: too much; step mark was cut off"), "{}", run.outcome);
        // While it is on, nothing starts: no question, no answer, no step.
        let error = house.settle(&run_id, Answer::Retry).await.unwrap_err();
        assert!(matches!(&error, steer::Error::Refused { clause, .. } if clause == "automation.stopped"), "{error}");
        let other = house.incident("shop", "ServiceDown", Some("restart")).await;
        assert_eq!(house.decide(&other).await, decide::Outcome::Nothing { again_at: None });
        assert_eq!(house.why(&other).await.0, "automation.stopped");
        house.switch_on().await;
        assert_eq!(house.claim(JobKind::Decide).await.kind, JobKind::Decide);
        house.asked(&other).await;
        house.settle(&run_id, Answer::Abort).await.expect("aborted");
        assert_eq!(house.run(&run_id).await.state, RunState::Cancelled);
    }

    async fn the_switch_stops_an_approved_run_before_its_first_step(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        house.switch_off().await;
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, run.steps.len()), (RunState::NeedsHuman, 0));
        assert_eq!(house.world.restarts(), 0);
        house.switch_on().await;
        house.settle(&run_id, Answer::Continue).await.expect("settled");
        assert_eq!(house.carry_out(&run_id).await.state, RunState::Succeeded);
    }

    async fn a_cancelled_run_is_cut_off_in_its_step_and_a_human_is_asked(store: Store) {
        // A step that may be repeated, too: it is not to be repeated now, so nobody finds out by itself.
        for idempotent in [false, true] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mark = dir.path().join("marks");
            let house = House::build(store.clone(), &[&slow(&mark, idempotent)], &[]).await;
            let id = house.incident("shop", "SlowDown", Some("slow")).await;
            let a = house.asked(&id).await;
            let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
            let job = house.claim(JobKind::Run).await;
            let (deps, run) = (house.act.clone(), run_id.clone());
            let task = tokio::spawn(async move {
                let (mut tx, outcome) =
                    act::run(&deps, &job, &run, &CancellationToken::new()).await.expect("carried out");
                jobs::finish(&mut tx, job).await.expect("finished");
                tx.commit().await.expect("committed");
                outcome
            });
            wait_for_lines(&mark).await;
            house.cancel(&run_id).await.expect("cancelled");
            assert_eq!(task.await.expect("it ended"), act::Outcome::Waiting);
            assert!(!runs_on(&mark), "the process is gone");
            let run = house.run(&run_id).await;
            assert_eq!((run.state, run.steps[0].state), (RunState::NeedsHuman, StepState::Unknown));
            let why = "The run is cancelled by token:ann: wrong host; step mark was cut off, and may be half done";
            assert_eq!(run.outcome, why);
            let story = house.story(&id).await;
            assert_eq!(story.last(), Some(&(TimelineKind::NeedsHuman, why.to_owned())));
            assert_eq!(house.why(&id).await, ("run.cancelled".to_owned(), why.to_owned()));
            // A human who lets it go on is not stopped by what was asked before.
            std::fs::write(dir.path().join("quick"), "").expect("written");
            house.settle(&run_id, Answer::Retry).await.expect("settled");
            assert_eq!(house.carry_out(&run_id).await.state, RunState::Succeeded);
            assert_eq!(lines(&mark), 2);
        }
    }

    async fn a_run_cancelled_between_steps_is_over_and_does_nothing_more(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        house.cancel(&run_id).await.expect("cancelled");
        let told = |run: &Run| (run.state, run.outcome.to_string(), run.finished_at.is_some());
        let run = house.carry_out(&run_id).await;
        let why = "cancelled by token:ann: wrong host; stopped before step restart";
        assert_eq!(told(&run), (RunState::Cancelled, why.to_owned(), true));
        assert_eq!((house.world.restarts(), run.steps.len()), (0, 0));
        let story = house.story(&id).await;
        let kinds: Vec<_> = story.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(kinds, ["proposed", "approved", "run_started", "run_cancelled", "run_finished"]);
        assert_eq!(story[3].1, "Restart shop: cancelled by token:ann: wrong host");
        let mut tx = house.store.read().await.expect("a transaction");
        let entry = audit::list(&mut tx, 1, None).await.expect("read").items.remove(0);
        assert_eq!((entry.action.as_str(), entry.object), ("cancel", format!("run:{run_id}")));
        drop(tx);
        let error = house.cancel(&run_id).await.unwrap_err().to_string();
        assert!(error.ends_with("is cancelled already"), "{error}");
        let error = house.cancel("no-such-run").await.unwrap_err().to_string();
        assert_eq!(error, "there is no run no-such-run");
    }

    async fn a_run_cancelled_while_it_is_verified_is_over_and_not_undone(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        house.world.curable.store(false, Ordering::SeqCst);
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        let cancel = CancellationToken::new();
        let (mut tx, outcome) = act::run(&house.act, &job, &run_id, &cancel).await.expect("carried out");
        assert_eq!(outcome, act::Outcome::Verify);
        jobs::finish(&mut tx, job).await.expect("finished");
        tx.commit().await.expect("committed");
        house.cancel(&run_id).await.expect("cancelled");
        house.enqueue(JobKind::Verify, &run_id).await;
        let job = house.claim(JobKind::Verify).await;
        let (mut tx, outcome) = verify::verify(&house.verify, &job, &run_id, &cancel).await.expect("verified");
        assert_eq!(outcome, verify::Outcome::Over);
        jobs::finish(&mut tx, job).await.expect("finished");
        tx.commit().await.expect("committed");
        let run = house.run(&run_id).await;
        assert_eq!(run.state, RunState::Cancelled, "{}", run.outcome);
        assert!(run.outcome.ends_with("every step was done, whether it helped was not seen"), "{}", run.outcome);
        let asked = house.world.requests.lock().expect("not poisoned").clone();
        assert!(!asked.iter().any(|r| r.contains("/undo ")), "{asked:?}");
    }

    async fn a_step_lost_in_a_crash_is_not_repeated_for_a_cancelled_run(store: Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = dir.path().join("marks");
        let house = House::build(store.clone(), &[&slow(&mark, true)], &[]).await;
        let id = house.incident("shop", "SlowDown", Some("slow")).await;
        let a = house.asked(&id).await;
        let run_id = house.approve(&a.id, &a.plan_hash).await.expect("approved");
        let job = house.claim(JobKind::Run).await;
        crash(&house, job, &run_id, &mark).await;
        house.cancel(&run_id).await.expect("cancelled");
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, lines(&mark)), (RunState::NeedsHuman, 1));
        assert!(run.outcome.ends_with("nobody knows whether step mark was done"), "{}", run.outcome);
        house.cancel(&run_id).await.expect("a run that waits may be cancelled too");
        let run = house.run(&run_id).await;
        assert_eq!((run.state, run.outcome.as_str()), (RunState::Cancelled, "cancelled by token:ann: wrong host"));
        assert_eq!(house.story(&id).await.last().map(|(k, _)| *k), Some(TimelineKind::RunFinished));
    }

    async fn a_stored_plan_that_was_changed_is_not_run(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", Some("restart")).await;
        let mut a = house.asked(&id).await;
        a.id = ids::new();
        a.plan.target = "service/other".into();
        let mut tx = house.store.write().await.expect("a transaction");
        approvals::insert(&mut tx, &a).await.expect("inserted");
        tx.commit().await.expect("committed");
        let error = house.approve(&a.id, &a.plan_hash).await.unwrap_err().to_string();
        assert_eq!(error, "the stored plan is not the one that was proposed; nothing was run");
        assert_eq!(house.world.restarts(), 0);
    }

    async fn a_suggestion_beyond_the_offer_is_refused_with_its_clause(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", None).await;
        for (playbook, params, clause) in [
            ("invented", json!({}), "playbooks.dir"),
            ("restart", json!({"service": "other"}), "params.service"),
            ("restart", json!({"command": "rm -rf /"}), "params.command"),
        ] {
            house.suggest(&id, playbook, params).await;
            assert_eq!(house.decide(&id).await, decide::Outcome::Nothing { again_at: None });
            let (found, why) = house.why(&id).await;
            assert!(found.ends_with(clause), "{found}: {why}");
        }
    }

    async fn a_dry_run_shows_everything_and_does_nothing(store: Store) {
        let house = House::build(store, &[RESTART], &[]).await;
        let id = house.incident("shop", "ServiceDown", None).await;
        let dry = act::dry_run(&house.act, "restart", &BTreeMap::new(), Some(&id)).await.expect("asked").expect("a plan");
        assert!(dry.steps[0].does.starts_with("POST http://127.0.0.1:"), "{:?}", dry.steps);
        assert!(dry.guards.iter().all(|g| g.holds), "{:?}", dry.guards);
        assert!(dry.probes[0].now.as_deref().is_some_and(|n| n.starts_with("failed: 503")), "{:?}", dry.probes);
        assert_eq!(dry.plan_hash, dry.plan.hash());
        assert_eq!(house.world.restarts(), 0);
        let by_hand = BTreeMap::from([("service".to_owned(), json!("shop"))]);
        let plan = act::dry_run(&house.act, "restart", &by_hand, None).await.expect("asked").expect("a plan").plan;
        assert_eq!(plan.hash(), dry.plan_hash, "the same plan, the same hash");
        let refused = act::dry_run(&house.act, "restart", &BTreeMap::new(), None).await.expect("asked").unwrap_err();
        assert_eq!(refused.why, "service is missing, and has no default");
        let mut tx = house.store.write().await.expect("a transaction");
        let run_id = steer::run_by_hand(&mut tx, plan, None, &Actor::token("ann"), &dry.plan_hash).await.expect("started");
        tx.commit().await.expect("committed");
        let run = house.carry_out(&run_id).await;
        assert_eq!((run.state, run.incident_id), (RunState::Succeeded, None));
    }
}

fn lines(mark: &Path) -> usize {
    std::fs::read_to_string(mark).unwrap_or_default().lines().count()
}

async fn wait_for_lines(mark: &Path) {
    let end = Instant::now() + Duration::from_secs(10);
    while lines(mark) == 0 {
        assert!(Instant::now() < end, "the process did not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// True if a process with this path among its arguments, or its `sleep`, is still there.
fn runs_on(mark: &Path) -> bool {
    let wanted = mark.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries
        .map(|e| std::fs::read_to_string(e.path().join("cmdline")).unwrap_or_default())
        .any(|c| c.contains(&wanted))
}

/// The service dies while the step's process is at work: its future is dropped, and with it the process.
async fn crash(house: &House, job: Job, run_id: &str, mark: &Path) {
    let (deps, id) = (house.act.clone(), run_id.to_owned());
    let task =
        tokio::spawn(async move { act::run(&deps, &job, &id, &CancellationToken::new()).await.map(|_| ()) });
    wait_for_lines(mark).await;
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
}
