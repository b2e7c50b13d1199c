//! The API and who may use it.

use std::time::Duration;

use aiops::{
    clock,
    model::*,
    store::{
        alerts, approvals,
        decisions::{self, About},
        incidents, timeline,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Answer, Running};

async fn open_incident(running: &Running, service: &str) -> Incident {
    let now = clock::now();
    let incident = Incident {
        id: aiops::ids::new(),
        state: IncidentState::Open,
        severity: Severity::Critical,
        title: format!("{service} is down").into(),
        service: service.into(),
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
    let labels = Labels::from([("alertname".into(), "Down".into()), ("service".into(), service.into())]);
    let alert = Alert {
        fingerprint: fingerprint(&labels),
        source: "alertmanager".into(),
        labels,
        annotations: Labels::new(),
        state: AlertState::Firing,
        starts_at: now,
        ends_at: None,
        expires_at: None,
        generator_url: String::new(),
        incident_id: Some(incident.id.clone()),
        last_seen_at: now,
    };
    let mut tx = running.store.write().await.expect("writable");
    incidents::save_held(&mut tx, &[&incident.clone().into()]).await.expect("inserted");
    alerts::save(&mut tx, &[&alert]).await.expect("saved");
    let about = About::alert(&alert.fingerprint, Some(&incident.id));
    decisions::add(&mut tx, Stage::Correlate, about, "opened", "correlate.window", "nothing to join")
        .await
        .expect("added");
    timeline::add(&mut tx, &incident.id, TimelineKind::Opened, "it begins", None).await.expect("added");
    tx.commit().await.expect("committed");
    incident
}

async fn add_line(running: &Running, incident: &Incident, text: &str) {
    let mut tx = running.store.write().await.expect("writable");
    timeline::add(&mut tx, &incident.id, TimelineKind::Evidence, text, None).await.expect("added");
    tx.commit().await.expect("committed");
}

/// Every route of the document, as method, path with its parts filled in, and the operation.
async fn routes(running: &Running) -> Vec<(String, String, serde_json::Value)> {
    let document = running.call("GET", "/api/openapi.json", "").await.json();
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")), "{}", document["openapi"]);
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let path = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            routes.push((method.to_uppercase(), path, operation.clone()));
        }
    }
    routes
}

/// The roles that an operation's `security` names for a token.
fn roles(operation: &serde_json::Value) -> Vec<Role> {
    let schemes = operation["security"].as_array().into_iter().flatten();
    let named = schemes.filter_map(|s| s["token"].as_array()).flatten();
    named.map(|role| role.as_str().expect("a role").parse().expect("a role")).collect()
}

#[tokio::test]
async fn every_route_lets_in_exactly_the_roles_that_its_document_names() {
    let running = Running::with(|s| s.http.failed_logins = 100_000).await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((*role, running.token(*role).await));
    }
    let routes = routes(&running).await;
    assert!(routes.len() >= 32, "{}", routes.len());
    for (method, path, operation) in &routes {
        if path.ends_with("/slack/interactive") {
            let unsigned = running.send(method, path, &[], b"payload={}").await;
            assert!(matches!(unsigned.status, 401 | 404), "Slack's signature is what counts: {unsigned:?}");
            continue;
        }
        let named = roles(operation);
        assert!(!named.is_empty(), "{method} {path} names no role");
        let refused = |answer: &Answer| matches!(answer.status, 401 | 403);
        let local =
            operation["security"].as_array().expect("schemes").iter().any(|s| s == &serde_json::json!({}));
        let source = operation["security"].to_string().contains("source");
        // What holds the line open is asked for no more than its head.
        let json = ("Content-Type", "application/json");
        let answer = running.send(method, path, &[json], b"").await;
        assert_eq!(refused(&answer), !(local || source), "{method} {path} without a token: {answer:?}");
        for (role, token) in &tokens {
            let bearer = format!("Bearer {token}");
            let headers = [json, ("Authorization", bearer.as_str()), ("X-Forwarded-For", "192.0.2.1")];
            let answer = running.send(method, path, &headers, b"").await;
            let allowed = named.iter().any(|needed| role.allows(*needed));
            assert_eq!(!refused(&answer), allowed, "{method} {path} as {role}: {answer:?}");
            assert!(answer.status < 500 || answer.status == 503, "{method} {path} as {role}: {answer:?}");
        }
        let wrong = [json, ("Authorization", "Bearer no-such-token-no-such-token")];
        let answer = running.send(method, path, &wrong, b"").await;
        if !local {
            answer.is_problem(401, "Authorization: Bearer");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn the_document_lists_every_route_and_every_route_is_there() {
    let running = Running::start().await;
    let routes = routes(&running).await;
    for (method, path) in [
        ("GET", "/api/v1/alerts"),
        ("GET", "/api/v1/incidents"),
        ("GET", "/api/v1/incidents/x"),
        ("GET", "/api/v1/approvals"),
        ("GET", "/api/v1/runs"),
        ("GET", "/api/v1/audit"),
        ("GET", "/api/v1/explain/x"),
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens"),
        ("DELETE", "/api/v1/tokens/x"),
        ("GET", "/api/v1/silences"),
        ("POST", "/api/v1/silences"),
        ("DELETE", "/api/v1/silences/x"),
        ("POST", "/api/v1/automation/stop"),
        ("POST", "/api/v1/automation/start"),
        ("POST", "/api/v1/webhooks/alertmanager"),
        ("POST", "/api/v1/webhooks/x"),
        ("POST", "/api/v1/webhooks/slack/interactive"),
        ("POST", "/api/v2/alerts"),
        ("POST", "/api/v1/changes"),
        ("GET", "/api/v1/logs"),
        ("POST", "/api/v1/export/retry"),
        ("POST", "/api/v1/logs"),
        ("POST", "/api/v1/metrics"),
        ("POST", "/v1/traces"),
        ("POST", "/api/v1/incidents/x/ack"),
        ("POST", "/api/v1/incidents/x/resolve"),
        ("POST", "/api/v1/approvals/x/approve"),
        ("POST", "/api/v1/approvals/x/reject"),
        ("GET", "/api/v1/runs/x"),
        ("POST", "/api/v1/runs/x/settle"),
        ("GET", "/api/v1/playbooks"),
        ("POST", "/api/v1/playbooks/x/dry-run"),
        ("POST", "/api/v1/playbooks/x/run"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    ] {
        assert!(
            routes.iter().any(|(m, p, _)| m == method && p == path),
            "{method} {path} is not in the document"
        );
    }
    for (method, path, _) in &routes {
        let wrong = if method == "DELETE" { "PUT" } else { "DELETE" };
        if path == "/api/v1/tokens/x" || path == "/api/v1/tokens" {
            continue;
        }
        let answer = running.call(wrong, path, "").await;
        answer.is_problem(405, "this path takes");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains(method.as_str())), "{answer:?}");
    }
    running.call("GET", "/api/v1/nothing", "").await.is_problem(404, "nothing at this path");
    running.call("GET", "/api/v1/%ff", "").await.is_problem(404, "nothing at this path");
    running.call("GET", "/api/v1/%00%ff", "").await.is_problem(400, "must not hold NUL");
    running.stop().await;
}

#[tokio::test]
async fn other_names_and_origins_are_refused() {
    let running = Running::with(|s| s.http.allowed_hosts = vec!["aiops.test".into()]).await;
    let get =
        async |headers: &str| running.raw(format!("GET /livez HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
    for fine in
        ["Host: localhost\r\n", "Host: [::1]:80\r\n", "Host: 127.0.0.1:1\r\nOrigin: http://127.0.0.1:1\r\n"]
    {
        assert_eq!(get(fine).await.status, 200, "{fine}");
    }
    for rebound in ["Host: evil.example\r\n", "Host: localhost.evil.example\r\n", "Host: 10.1.2.3\r\n"] {
        get(rebound).await.is_problem(403, "http.allowed_hosts");
    }
    get("Host: localhost\r\nOrigin: http://evil.example\r\n").await.is_problem(403, "other origins");
    get("Host: localhost\r\nOrigin: null\r\n").await.is_problem(403, "other origins");
    get("Host: aiops.test\r\n").await.is_problem(401, "token");
    let body = r#"{"alerts":[]}"#;
    let post = |host: &str, more: &str| {
        format!(
            "POST /api/v1/webhooks/alertmanager HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(running.raw(post("localhost", "").as_bytes()).await.status, 200);
    running.raw(post("aiops.test", "").as_bytes()).await.is_problem(401, "token");
    running
        .raw(post("localhost", "X-Forwarded-For: 192.0.2.7\r\n").as_bytes())
        .await
        .is_problem(401, "token");
    running.stop().await;
}

#[tokio::test]
async fn guessing_tokens_is_slowed_down_and_those_who_are_known_are_not() {
    let running = Running::with(|s| s.http.failed_logins = 3).await;
    assert_eq!(running.call("GET", "/api/v1/status", "").await.status, 200);
    let guess = async |path: &str, method: &str| {
        let headers =
            [("Authorization", "Bearer guess-guess-guess-guess"), ("Content-Type", "application/json")];
        running.send(method, path, &headers, if method == "GET" { b"" } else { b"{}" }).await
    };
    for _ in 0..3 {
        guess("/api/v1/status", "GET").await.is_problem(401, "token");
    }
    let answer = guess("/api/v1/status", "GET").await;
    answer.is_problem(429, "too many failed authentications");
    assert!(answer.header("retry-after").is_some());
    guess("/api/v1/webhooks/alertmanager", "POST").await.is_problem(401, "token");
    assert_eq!(running.call("GET", "/api/v1/status", "").await.status, 200, "a known token still works");
    running.stop().await;
}

#[tokio::test]
async fn tokens_are_made_shown_once_used_and_revoked() {
    let running = Running::start().await;
    let made = running.call("POST", "/api/v1/tokens", r#"{"name":"ci","role":"viewer"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["token"].as_str().expect("a secret").to_owned();
    running
        .call("POST", "/api/v1/tokens", r#"{"name":"ci","role":"viewer"}"#)
        .await
        .is_problem(409, "already");
    running.call("POST", "/api/v1/tokens", r#"{"name":"a b","role":"viewer"}"#).await.is_problem(400, "name");
    running
        .call("POST", "/api/v1/tokens", r#"{"name":"x","role":"king"}"#)
        .await
        .is_problem(400, "unknown variant `king`");
    running.call("POST", "/api/v1/tokens", r#"["x","viewer"]"#).await.is_problem(400, "object");
    let bearer = format!("Bearer {secret}");
    let use_it =
        async || running.send("GET", "/api/v1/alerts", &[("Authorization", &bearer)], b"").await.status;
    assert_eq!(use_it().await, 200);
    let listed = running.call("GET", "/api/v1/tokens", "").await;
    assert!(listed.body.contains("\"ci\"") && !listed.body.contains(&secret), "{listed:?}");
    assert_eq!(running.call("DELETE", "/api/v1/tokens/ci", "").await.status, 204);
    assert_eq!(use_it().await, 401, "at once, although it was looked up a moment ago");
    running.call("DELETE", "/api/v1/tokens/ci", "").await.is_problem(404, "could be revoked");
    let audit = running.call("GET", "/api/v1/audit", "").await.json();
    let acts: Vec<_> =
        audit["items"].as_array().expect("items").iter().map(|e| e["action"].as_str()).collect();
    assert_eq!(acts, [Some("token.revoke"), Some("token.create")]);
    assert_eq!(audit["items"][0]["actor"]["id"], "admin");
    running.stop().await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered_and_say_what_is_wrong() {
    let running = Running::start().await;
    for service in ["a", "b", "c"] {
        open_incident(&running, service).await;
    }
    for list in ["incidents", "alerts"] {
        let (mut seen, mut next) = (Vec::new(), String::new());
        for _ in 0..3 {
            let page = running.call("GET", &format!("/api/v1/{list}?limit=1{next}"), "").await.json();
            assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{list}");
            seen.push(page["items"][0].to_string());
            next = page["next"].as_str().map_or_else(String::new, |n| format!("&cursor={n}"));
        }
        assert_eq!(next, "", "{list} ends after three");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3, "{list}");
    }
    let page = running
        .call("GET", "/api/v1/incidents?service=b&state=open&severity=critical&open=true", "")
        .await
        .json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["next"], serde_json::Value::Null);
    assert!(page["items"][0]["opened_at"].as_str().is_some_and(|t| t.ends_with('Z')));
    for list in ["alerts", "incidents", "approvals", "runs", "audit"] {
        for (query, words) in [
            ("limit=1001", "limit 1001 is not between 1 and 1000"),
            ("limit=0", "limit 0"),
            ("limit=many", "query string"),
            ("cursor=7%27--", "cursor is not one of this list"),
            ("colour=red", "unknown field `colour`"),
            ("cursor=%00", "must not hold NUL"),
        ] {
            running.call("GET", &format!("/api/v1/{list}?{query}"), "").await.is_problem(400, words);
        }
    }
    for list in ["alerts", "incidents", "approvals", "runs"] {
        running
            .call("GET", &format!("/api/v1/{list}?state=odd"), "")
            .await
            .is_problem(400, "state: \"odd\" is none of");
    }
    running.stop().await;
}

#[tokio::test]
async fn one_incident_is_shown_whole_and_explained() {
    let running = Running::start().await;
    let incident = open_incident(&running, "checkout").await;
    for id in [incident.id.as_str(), incident.short_id()] {
        let shown = running.call("GET", &format!("/api/v1/incidents/{id}"), "").await.json();
        assert_eq!((&shown["id"], &shown["service"]), (&incident.id.clone().into(), &"checkout".into()));
        assert_eq!(shown["timeline"][0]["text"], "it begins");
        assert_eq!(shown["alerts"][0]["labels"]["alertname"], "Down");
        for part in ["anomalies", "evidence", "diagnoses", "approvals", "runs", "messages"] {
            assert!(shown[part].is_array(), "{part}");
        }
        let why = running.call("GET", &format!("/api/v1/explain/{id}"), "").await.json();
        assert_eq!(why["items"][0]["clause"], "correlate.window");
    }
    let alert = running.call("GET", "/api/v1/alerts", "").await.json()["items"][0].clone();
    let fingerprint = alert["fingerprint"].as_str().expect("a fingerprint");
    let why = running.call("GET", &format!("/api/v1/explain/{fingerprint}"), "").await.json();
    assert_eq!(why["incident"]["id"], incident.id.as_str());
    assert_eq!(why["items"][0]["why"], "nothing to join");
    running.call("GET", "/api/v1/incidents/ffffffff", "").await.is_problem(404, "ffffffff");
    running.call("GET", "/api/v1/explain/ffffffffffffffff", "").await.is_problem(404, "ever seen");
    running.stop().await;
}

#[tokio::test]
async fn status_probes_and_metrics_tell_how_it_is() {
    let running = Running::start().await;
    let status = running.call("GET", "/api/v1/status", "").await.json();
    assert_eq!((&status["store"], &status["ready"]), (&"sqlite".into(), &true.into()));
    assert_eq!(status["breakers"][0]["name"], "prometheus");
    assert_eq!(status["channels"][0]["channel"], "stdout");
    assert_eq!(status["channels"][0]["waiting"], 0);
    assert_eq!(status["automation_stopped"], serde_json::Value::Null);
    let body = r#"{"reason":"a drill"}"#;
    assert_eq!(running.call("POST", "/api/v1/automation/stop", body).await.status, 200);
    let status = running.call("GET", "/api/v1/status", "").await.json();
    assert_eq!(status["automation_stopped"]["reason"], "a drill");
    assert_eq!(status["automation_stopped"]["by"]["id"], "admin");
    running.call("POST", "/api/v1/automation/stop", "").await.is_problem(409, "already");
    running.call("POST", "/api/v1/automation/stop", r#"{"reason":7}"#).await.is_problem(400, "the body");
    assert_eq!(running.call("POST", "/api/v1/automation/start", "").await.status, 200);
    let status = running.call("GET", "/api/v1/status", "").await.json();
    assert_eq!(status["automation_stopped"], serde_json::Value::Null);

    for path in ["/livez", "/readyz"] {
        assert_eq!(running.send("GET", path, &[], b"").await.status, 200);
    }
    let metrics = running.send("GET", "/metrics", &[], b"").await;
    assert!(metrics.body.contains("\naiops_http_responses_total{class=\"2xx\"}"), "{}", metrics.body);
    running.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    running.send("GET", "/readyz", &[], b"").await.is_problem(503, "the pipeline stands still");
    assert_eq!(running.send("GET", "/livez", &[], b"").await.status, 200);
    running.stop().await;
}

const PAUSE: &str = r#"
id: pause
title: Wait for {{ service }}
description: D
match: [{labels: {alertname: Down}}]
params:
  service: {type: string}
target: service/{{ service }}
read_only: true
steps:
  - {id: wait, run: {wait: 1s}, timeout: 5s}
"#;

async fn with_playbook() -> (Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("pause.yaml"), PAUSE).expect("written");
    let path = dir.path().to_owned();
    (Running::with(|s| s.playbooks.dir = path).await, dir)
}

/// Asks for an approval of the playbook for an incident, as `decide` does.
async fn ask(running: &Running, incident: &Incident, service: &str) -> Approval {
    let body = format!(r#"{{"params":{{"service":"{service}"}}}}"#);
    let shown = running.call("POST", "/api/v1/playbooks/pause/dry-run", &body).await.json();
    let plan: Plan = serde_json::from_value(shown["plan"].clone()).expect("a plan");
    let now = clock::now();
    let approval = Approval {
        id: aiops::ids::new(),
        incident_id: incident.id.clone(),
        state: ApprovalState::Pending,
        plan_hash: plan.hash(),
        plan,
        requested_at: now,
        expires_at: clock::after(now, Duration::from_secs(600)),
        decided_by: None,
        decided_at: None,
        reason: None,
    };
    let mut tx = running.store.write().await.expect("writable");
    approvals::insert(&mut tx, &approval).await.expect("asked");
    tx.commit().await.expect("committed");
    approval
}

#[tokio::test]
async fn an_approval_works_once_and_only_for_the_plan_that_was_shown() {
    let (running, _playbooks) = with_playbook().await;
    let incident = open_incident(&running, "a").await;
    let (yes, no) = (ask(&running, &incident, "a").await, ask(&running, &incident, "b").await);
    let listed = running.call("GET", "/api/v1/approvals?state=pending", "").await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    let approve = format!("/api/v1/approvals/{}/approve", yes.id);
    let reject = format!("/api/v1/approvals/{}/reject", no.id);
    for path in [&approve, &reject] {
        running.call("POST", path, r#"{"plan_hash":"0000"}"#).await.is_problem(409, "another plan");
        running.call("POST", path, r#"{"plan":"0000"}"#).await.is_problem(400, "unknown field `plan`");
    }
    let body = format!(r#"{{"plan_hash":"{}","reason":null}}"#, yes.plan_hash);
    let answer = running.call("POST", &approve, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["approval"]["decided_by"]["id"], "admin");
    let run = answer.json()["run_id"].as_str().expect("a run").to_owned();
    running.call("POST", &approve, &body).await.is_problem(409, "approved this already");
    assert_eq!(running.call("POST", &reject, r#"{"reason":"not now"}"#).await.json()["state"], "rejected");
    running.call("POST", &reject, "").await.is_problem(409, "rejected this already");
    running.call("POST", "/api/v1/approvals/x/approve", "").await.is_problem(404, "no approval");

    let shown = running.call("GET", &format!("/api/v1/runs/{run}"), "").await.json();
    assert_eq!((&shown["state"], &shown["plan_hash"]), (&"running".into(), &yes.plan_hash.into()));
    let settle = format!("/api/v1/runs/{run}/settle");
    running.call("POST", &settle, r#"{"answer":"abort"}"#).await.is_problem(409, "waits for nobody");
    running.call("POST", &settle, r#"{"answer":"pray"}"#).await.is_problem(400, "unknown variant `pray`");
    running.call("GET", "/api/v1/runs/x", "").await.is_problem(404, "no run");
    let audit = running.call("GET", "/api/v1/audit", "").await.json();
    let acts: Vec<_> =
        audit["items"].as_array().expect("items").iter().map(|e| e["action"].as_str()).collect();
    assert_eq!(acts, [Some("reject"), Some("approve")]);
    running.stop().await;
}

#[tokio::test]
async fn an_incident_is_acknowledged_and_resolved_once() {
    let running = Running::start().await;
    let incident = open_incident(&running, "a").await;
    let path = |verb: &str| format!("/api/v1/incidents/{}/{verb}", incident.short_id());
    let answer = running.call("POST", &path("ack"), "").await.json();
    assert_eq!(
        (&answer["state"], &answer["acknowledged_by"]["id"]),
        (&"acknowledged".into(), &"admin".into())
    );
    running.call("POST", &path("ack"), "").await.is_problem(409, "already");
    running.call("POST", &path("resolve"), r#"{"reason":7}"#).await.is_problem(400, "the body");
    running.call("POST", &path("resolve"), r#"{"reason":"\u0000"}"#).await.is_problem(400, "NUL");
    let answer = running.call("POST", &path("resolve"), r#"{"reason":"a cable"}"#).await.json();
    assert_eq!((&answer["state"], &answer["id"]), (&"resolved".into(), &incident.id.clone().into()));
    running.call("POST", &path("resolve"), "").await.is_problem(409, "resolved already");
    running.call("POST", "/api/v1/incidents/ffffff/ack", "").await.is_problem(404, "ffffff");
    let shown = running.call("GET", &format!("/api/v1/incidents/{}", incident.id), "").await.json();
    let last = shown["timeline"].as_array().and_then(|t| t.last()).expect("a story");
    assert_eq!(last["text"], "Resolved by hand: a cable");
    running.stop().await;
}

#[tokio::test]
async fn a_playbook_is_tried_and_started_by_hand() {
    let (running, _playbooks) = with_playbook().await;
    let listed = running.call("GET", "/api/v1/playbooks", "").await.json();
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["approval"]),
        (&"pause".into(), &"required".into())
    );
    assert_eq!(listed["items"][0]["params"]["service"]["type"], "string");
    let body = r#"{"params":{"service":"a"},"incident_id":null}"#;
    let shown = running.call("POST", "/api/v1/playbooks/pause/dry-run", body).await.json();
    assert_eq!(shown["plan"]["title"], "Wait for a");
    let hash = shown["plan_hash"].as_str().expect("a hash");
    let other = format!(r#"{{"params":{{"service":"b"}},"plan_hash":"{hash}"}}"#);
    running.call("POST", "/api/v1/playbooks/pause/run", &other).await.is_problem(409, "look at it again");
    let body = format!(r#"{{"params":{{"service":"a"}},"plan_hash":"{hash}"}}"#);
    let started = running.call("POST", "/api/v1/playbooks/pause/run", &body).await;
    assert_eq!(started.status, 201, "{started:?}");
    assert!(started.json()["id"].is_string() && started.json()["plan"]["target"] == "service/a");
    let again = running.call("POST", "/api/v1/playbooks/pause/run", &body).await;
    again.is_problem(409, "");
    assert!(again.json()["clause"].is_string(), "the rule that forbids it is named: {again:?}");
    let cancel = format!("/api/v1/runs/{}/cancel", started.json()["id"].as_str().expect("an id"));
    running.call("POST", &cancel, r#"{"why":"?"}"#).await.is_problem(400, "why");
    let cancelled = running.call("POST", &cancel, r#"{"reason":"wrong host"}"#).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["state"]),
        (200, &"running".into()),
        "it stops before its step"
    );
    running.call("POST", &cancel, "").await.is_problem(409, "cancelled by token:admin: wrong host already");
    running.call("POST", "/api/v1/runs/none/cancel", "").await.is_problem(404, "no run none");
    for verb in ["run", "dry-run"] {
        running
            .call("POST", &format!("/api/v1/playbooks/none/{verb}"), "")
            .await
            .is_problem(404, "no playbook");
        let path = format!("/api/v1/playbooks/pause/{verb}");
        running.call("POST", &path, r#"{"params":{"service":"a; rm -rf"}}"#).await.is_problem(422, "service");
        running.call("POST", &path, r#"{"incident_id":"ffffff"}"#).await.is_problem(404, "ffffff");
    }
    running.stop().await;
}

/// A client of the stream.
struct Follower {
    stream: TcpStream,
    text: String,
}

impl Follower {
    async fn new(running: &Running, path: &str, header: &str) -> Self {
        let mut stream = TcpStream::connect(running.address).await.expect("it listens");
        let token = &running.admin;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{header}\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        Self { stream, text: String::new() }
    }

    /// Reads on until these words have come.
    async fn until(&mut self, words: &str) -> &str {
        let read = async {
            let mut chunk = vec![0; 4096];
            while !self.text.contains(words) {
                let n = self.stream.read(&mut chunk).await.expect("read");
                assert_ne!(n, 0, "it ended after {:?}", self.text);
                self.text.push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("within 10 s");
        &self.text
    }
}

#[tokio::test]
async fn the_stream_tells_what_happens_and_resumes_where_it_broke() {
    let running = Running::with(|s| s.http.max_streams = 3).await;
    let incident = open_incident(&running, "a").await;
    let other = open_incident(&running, "b").await;
    let mut live = Follower::new(&running, "/api/v1/events", "").await;
    let head = live.until("retry:").await;
    assert!(head.contains("text/event-stream") && head.contains("content-encoding: identity"), "{head}");
    add_line(&running, &incident, "line one").await;
    let text = live.until("line one").await;
    assert!(!text.contains("it begins"), "what was before is not told: {text}");
    assert!(text.contains("event: timeline\ndata: {"), "{text}");
    add_line(&running, &other, "line two").await;
    add_line(&running, &incident, "line three").await;

    let mut resumed = Follower::new(&running, "/api/v1/events", "Last-Event-ID: 3\r\n").await;
    let text = resumed.until("line three").await;
    assert!(text.contains("id: 4\n") && text.contains("line two") && !text.contains("line one"), "{text}");
    let path = format!("/api/v1/events?after=0&incident_id={}", incident.short_id());
    let mut one = Follower::new(&running, &path, "").await;
    let text = one.until("line three").await;
    assert!(text.contains("it begins") && !text.contains("line two"), "{text}");
    running.call("GET", "/api/v1/events", "").await.is_problem(503, "too many clients");
    let answer = running
        .send(
            "GET",
            "/api/v1/events",
            &[("Authorization", &format!("Bearer {}", running.admin)), ("Last-Event-ID", "x")],
            b"",
        )
        .await;
    answer.is_problem(400, "Last-Event-ID");
    drop(one);
    let mut again = 503;
    for _ in 0..100 {
        let bearer = format!("Bearer {}", running.admin);
        again = running.send("GET", "/api/v1/events", &[("Authorization", &bearer)], b"").await.status;
        if again == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(again, 200, "the seat of a client that left is free at once");
    let started = std::time::Instant::now();
    running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "streams do not hold up a shutdown");
}
