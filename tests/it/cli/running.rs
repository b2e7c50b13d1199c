//! Commands that talk to a running server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::run;
use crate::{
    fakes::telegram::{TOKEN, Telegram},
    service::Service,
};

/// Runs a command that finds the server and its token by the settings, as people do.
fn ask(service: &Service, args: &[&str]) -> (i32, String, String) {
    let config = service.dir.join("aiops.yaml");
    let config = config.to_str().expect("UTF-8");
    // The settings name the data directory by its whole path, so any place will do.
    run(&service.dir, &[&["--config", config], args].concat())
}

/// As [`ask`], for what must work.
fn told(service: &Service, args: &[&str]) -> String {
    let (code, out, err) = ask(service, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

/// Sends one critical alert, and waits for its incident; gives the end of its id.
async fn broken(service: &Service) -> String {
    let alert = json!({
        "version": "4", "status": "firing", "receiver": "aiops", "truncatedAlerts": 0, "groupKey": "{}",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.invalid",
        "alerts": [{
            "status": "firing", "fingerprint": "c0ffee0123456789",
            "labels": {"alertname": "DiskFull", "service": "db", "severity": "critical"},
            "annotations": {"summary": "the disk\u{1b}[2J of db is full"},
            "startsAt": "2026-11-21T03:02:00Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
        }],
    });
    service.post("/api/v1/webhooks/alertmanager", &alert).await;
    let id = |v: &serde_json::Value| v["items"][0]["id"].as_str().map(str::to_owned);
    let id = service.until(Duration::from_secs(10), "/api/v1/incidents", "an incident opens", id).await;
    id[id.len() - 6..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_listed_shown_explained_acknowledged_and_resolved() {
    let service = Service::start_in(&crate::peers::scratch("cli"), "").await;
    assert_eq!(told(&service, &["incident", "list"]), "No incidents.\n");
    let id = broken(&service).await;
    let list = told(&service, &["incident", "list", "--severity", "critical"]);
    let words: Vec<&str> = list.lines().nth(1).expect("one incident").split_whitespace().collect();
    assert_eq!(words[..4], [id.as_str(), "open", "critical", "db"], "{list}");
    assert!(list.ends_with("1/1     the disk\u{fffd}[2J of db is full\n"), "{list}");
    let shown = told(&service, &["incident", "show", &id]);
    assert!(shown.starts_with(&format!("{id} OPEN  the disk")), "{shown}");
    assert!(shown.contains("Timeline") && shown.contains("opened"), "{shown}");
    let why = told(&service, &["explain", "c0ffee0123456789"]);
    assert!(why.contains("correlate opened") && why.contains("by correlate."), "{why}");
    assert!(told(&service, &["explain", &id]).contains("correlate opened"), "{why}");

    assert_eq!(told(&service, &["incident", "ack", &id]), format!("Incident {id} is acknowledged.\n"));
    assert!(told(&service, &["incident", "list", "--state", "acknowledged"]).contains(&id));
    told(&service, &["incident", "resolve", &id, "-r", "made room"]);
    assert_eq!(told(&service, &["incident", "list"]), "No incidents.\n");
    let all = told(&service, &["incident", "list", "--all", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["items"][0]["state"], "resolved");

    let (code, _, err) = ask(&service, &["incident", "show", "ffffff"]);
    assert_eq!(code, 1);
    assert_eq!(err, "aiops: no incident, or more than one, has the id \"ffffff\"\n");
    let (code, _, err) = ask(&service, &["approve", "ffffff"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("aiops: no question ffffff waits for an answer"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_used_refused_and_revoked() {
    let service = Service::start_in(&crate::peers::scratch("cli"), "").await;
    let secret = told(&service, &["token", "create", "ann", "--role", "viewer"]);
    let file = service.dir.join("ann.token");
    std::fs::write(&file, &secret).expect("written");
    let ann =
        |args: &[&str]| ask(&service, &[args, &["--token-file", file.to_str().expect("UTF-8")]].concat());
    assert_eq!(ann(&["incident", "list"]).0, 0);
    let (code, _, err) = ann(&["automation", "stop"]);
    assert_eq!(code, 77);
    assert_eq!(err, "aiops: the token ann has the role viewer; this needs operator\n");
    let list = told(&service, &["token", "list"]);
    assert!(list.contains("ann") && !list.contains(secret.trim()), "{list}");
    told(&service, &["token", "revoke", "ann"]);
    let (code, _, err) = ann(&["incident", "list"]);
    assert_eq!(code, 77);
    assert!(err.contains("does not accept the token"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn automation_is_stopped_and_started_and_check_sees_the_server() {
    let service = Service::start_in(&crate::peers::scratch("cli"), "").await;
    let said = told(&service, &["automation", "stop", "-r", "network work"]);
    assert_eq!(said, "Automation is stopped: no run or step starts until `aiops automation start`.\n");
    assert_eq!(service.get("/api/v1/status").await["automation_stopped"]["reason"], "network work");
    let nonsense = service.try_post("/api/v1/automation/stop", &json!({ "reason": 7 })).await;
    assert_eq!(nonsense, Some(400), "and stays stopped");
    assert_eq!(told(&service, &["automation", "start"]), "Automation is on.\n");
    assert!(service.get("/api/v1/status").await["automation_stopped"].is_null());
    let (code, out, _) = ask(&service, &["check"]);
    assert_eq!(code, 0, "{out}");
    for expected in ["server", "running", "breaker prometheus", "data/admin.token", "yours alone"] {
        assert!(out.contains(expected), "{expected} is missing in\n{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_a_channel_that_cannot_tell_people() {
    // It knows no chat, so that whatever is written to one is refused for good.
    let telegram = Telegram::start(&[]);
    let yaml = format!(
        "notify: {{first_delay: 0s, telegram: {{token: \"{TOKEN}\", api: \"{}\", chat_id: -5000, allowed_users: [42], \
         listen: false}}}}\n",
        telegram.url()
    );
    let service = Service::start_in(&crate::peers::scratch("cli"), &yaml).await;
    let (_, out, _) = ask(&service, &["check"]);
    let line = |out: &str| {
        let found = out.lines().find(|l| l.contains("channel telegram ")).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no channel in\n{out}"))
    };
    assert!(line(&out).starts_with("ok ") && line(&out).ends_with("nothing told yet"), "{out}");
    broken(&service).await;
    let dead = |v: &serde_json::Value| v["channels"][0]["dead_letters"].as_u64().filter(|n| *n > 0);
    service.until(Duration::from_secs(20), "/api/v1/status", "a dead letter", dead).await;
    let (code, out, _) = ask(&service, &["check"]);
    assert_eq!(code, 1, "{out}");
    let found = line(&out);
    assert!(found.starts_with("error ") && found.contains("could not tell "), "{found}");
    // Others may be due by then: what the alarm about this one makes of it, for one.
    assert!(found.contains("the last error: Telegram answered 400: Bad Request: chat not found"), "{found}");
    assert!(found.ends_with("; nothing told yet"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_in_a_step_that_has_changed_nothing() {
    let dir = crate::peers::scratch("cli");
    let playbooks = dir.join("books");
    std::fs::create_dir(&playbooks).expect("made");
    let text = "id: pause\ntitle: Wait\ndescription: D\nmatch: [{labels: {alertname: None}}]\ntarget: x\n\
                read_only: true\nsteps: [{id: nap, run: {wait: 30m}}]\n";
    std::fs::write(playbooks.join("pause.yaml"), text).expect("written");
    let yaml = format!("playbooks: {{dir: {}}}\n", playbooks.display());
    let service = Service::start_in(&dir, &yaml).await;
    let shown = service.post("/api/v1/playbooks/pause/dry-run", &json!({})).await;
    let run = service.post("/api/v1/playbooks/pause/run", &json!({"plan_hash": shown["plan_hash"]})).await;
    let id = run["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/runs/{id}");
    let begun = |v: &serde_json::Value| (v["steps"][0]["state"] == "intended").then_some(());
    service.until(Duration::from_secs(20), &path, "the step begins", begun).await;
    let short = &id[id.len() - 6..];
    let said = told(&service, &["run", "cancel", short, "-r", "wrong host"]);
    assert_eq!(said, format!("Run {short} stops; `aiops run show {short}` says where.\n"));
    let over = |v: &serde_json::Value| (v["state"] == "cancelled").then(|| v["outcome"].clone());
    let outcome = service.until(Duration::from_secs(20), &path, "the run is over", over).await;
    assert_eq!(
        outcome,
        "cancelled by token:admin: wrong host; stopped in step nap, which had changed nothing"
    );
    let (code, _, err) = ask(&service, &["run", "cancel", short]);
    assert_eq!((code, err), (1, format!("aiops: run {short} is cancelled already\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_made_listed_and_ended() {
    let service = Service::start_in(&crate::peers::scratch("cli"), "").await;
    assert_eq!(told(&service, &["silence", "list"]), "No silences.\n");
    let add = ["silence", "add", "service=db", "alertname=~Disk.*", "--for", "2h", "--reason", "disk swap"];
    let said = told(&service, &add);
    let id = said.split(' ').nth(1).expect("an id").to_owned();
    assert!(said.starts_with(&format!("Silence {id} holds until ")), "{said}");
    let list = told(&service, &["silence", "list"]);
    let row = list.lines().nth(1).expect("one silence");
    assert!(row.starts_with(&id), "{list}");
    assert!(row.ends_with("token:admin  alertname=~Disk.* service=db  disk swap"), "{list}");

    let incident = broken(&service).await;
    let shown = told(&service, &["incident", "show", &incident]);
    assert!(shown.contains("messages held back: silence: disk swap (by token:admin, until "), "{shown}");
    assert!(told(&service, &["explain", &incident]).contains(&format!("silence {id}")));

    assert!(told(&service, &["silence", "expire", &id]).starts_with(&format!("Silence {id} is over")));
    let path = format!("/api/v1/incidents/{incident}");
    let open = |v: &serde_json::Value| v["suppressed"].is_null().then_some(());
    service.until(Duration::from_secs(10), &path, "the incident is told", open).await;
    assert_eq!(told(&service, &["silence", "list"]), "No silences.\n");
    let all = told(&service, &["silence", "list", "--all", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["items"][0]["reason"], "disk swap");
    let (code, _, err) = ask(&service, &["silence", "expire", &id]);
    assert_eq!((code, err), (1, format!("aiops: silence {id} is over already\n")));
    let (code, _, err) = ask(&service, &["silence", "add", "db", "--for", "2h", "--reason", "x"]);
    assert_eq!(code, 2);
    assert!(err.contains("write LABEL=VALUE, such as service=db"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_applies_what_it_can_and_names_what_needs_a_restart() {
    let service = Service::start_in(&crate::peers::scratch("cli"), "correlate:\n  window: 5m\n").await;
    let config = service.dir.join("aiops.yaml");
    let text = std::fs::read_to_string(&config).expect("there");
    let changed = text.replace("window: 5m", "window: 1m") + "language: ru\n";
    std::fs::write(&config, changed).expect("written");
    service.child.signal(rustix::process::Signal::HUP);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !service.child.log().contains("read anew") {
        assert!(std::time::Instant::now() < deadline, "{}", service.child.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = service.child.log();
    assert!(log.contains("these settings changed and need a restart keys=\"language\""), "{log}");
    assert!(log.contains("applied=\"correlate.window\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_name_the_incident_reach_a_collector() {
    let (port, collected) = collector().await;
    let yaml = format!("otlp: {{url: \"http://127.0.0.1:{port}\"}}\n");
    let mut service = Service::start_in(&crate::peers::scratch("cli"), &yaml).await;
    let end = broken(&service).await;
    let decided = |v: &serde_json::Value| v["diagnoses"][0]["id"].is_string().then_some(());
    let path = format!("/api/v1/incidents/{end}");
    service.until(Duration::from_secs(10), &path, "it is diagnosed", decided).await;
    let id = service.get(&path).await["id"].as_str().expect("an id").to_owned();
    // Ending flushes what the batch still holds.
    service.child.stop();
    let bytes = collected.lock().expect("not poisoned").clone();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("POST /v1/traces "), "{text}");
    for expected in ["aiops", "stage", "diagnose", "incident.id", &id] {
        assert!(text.contains(expected), "{expected} was not exported");
    }
}

/// Takes whatever is sent, and answers that all is well; its port, and the bytes.
async fn collector() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let collected: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = collected.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sink = sink.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                let mut answered = false;
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    sink.lock().expect("not poisoned").extend_from_slice(&buffer[..n]);
                    if !answered {
                        answered = true;
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                        let _ = stream.write_all(answer).await;
                    }
                }
            });
        }
    });
    (port, collected)
}
