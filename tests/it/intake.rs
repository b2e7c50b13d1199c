//! Alerts and changes on their way in: what real senders send, what nobody should, and what happens under pressure.

use std::{path::PathBuf, time::Duration};

use aiops::{
    config::{Settings, Source},
    model::{AlertEvent, AlertState, Role},
    store::changes,
};
use jiff::Timestamp;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::server::{Running, read_answer};

const WEBHOOK: &str = "/api/v1/webhooks/alertmanager";
const INTAKE: [&str; 6] = [
    WEBHOOK,
    "/api/v2/alerts",
    "/api/v1/webhooks/mine",
    "/api/v1/changes",
    "/api/v1/logs",
    "/api/v1/metrics",
];
const ONE: &str = r#"{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"A"}}]}"#;

fn source(yaml: &str) -> Source {
    serde_yaml::from_str(yaml).expect("valid YAML")
}

fn with_mine(settings: &mut Settings) {
    let mine =
        "mapping: {items: events, label: {alertname: name}, state: state, firing: [bad], resolved: [good]}";
    settings.intake.sources.insert("mine".into(), source(mine));
}

/// The bytes of a captured request, to our path; nothing else is touched.
fn captured(name: &str, path: &str) -> Vec<u8> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/alertmanager").join(name);
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let end = bytes.iter().position(|b| *b == b'\r').expect("a request line");
    let line = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
    let method = line.split(' ').next().expect("a method");
    [format!("{method} {path} HTTP/1.1").as_bytes(), &bytes[end..]].concat()
}

fn summary(events: &[AlertEvent]) -> Vec<(&str, &str, AlertState)> {
    events.iter().map(|e| (e.labels["instance"].as_str(), e.fingerprint.as_str(), e.state)).collect()
}

#[tokio::test]
async fn captured_alertmanager_requests_are_taken_alert_by_alert() {
    use AlertState::{Firing, Resolved};
    let running = Running::with(|s| {
        let yaml = "basic: [{user: u, password: p}]\nbearer: [sekret, another]";
        s.intake.sources.insert("alertmanager".into(), source(yaml));
    })
    .await;
    let anonymous = Running::start().await;
    for (file, expected) in [
        ("01_firing_single.http", vec![("web-1", "c5ddf555cbb2b91e", Firing)]),
        (
            "02_firing_group_of_3.http",
            vec![
                ("web-1", "c5ddf555cbb2b91e", Firing),
                ("web-2", "3e727438a652099b", Firing),
                ("web-3", "49bafcd0c90318e4", Firing),
            ],
        ),
        (
            "03_mixed_firing_resolved.http",
            vec![
                ("web-1", "c5ddf555cbb2b91e", Firing),
                ("web-2", "3e727438a652099b", Resolved),
                ("web-3", "49bafcd0c90318e4", Firing),
            ],
        ),
        (
            "04_resolved_group.http",
            vec![("web-1", "c5ddf555cbb2b91e", Resolved), ("web-3", "49bafcd0c90318e4", Resolved)],
        ),
        (
            "05_truncated_firing.http",
            vec![("web-0", "d0feee5453bbb429", Firing), ("web-1", "e6685cddb93737f4", Firing)],
        ),
        (
            "06_truncated_resolved.http",
            vec![("web-0", "d0feee5453bbb429", Resolved), ("web-1", "e6685cddb93737f4", Resolved)],
        ),
        (
            "09_truncated_says_resolved_while_group_still_firing.http",
            vec![("w0", "cee330e11430f4ea", Resolved), ("w1", "0d956e978ad06853", Resolved)],
        ),
    ] {
        let answer = anonymous.raw(&captured(file, WEBHOOK)).await;
        assert_eq!(answer.status, 200, "{file}: {answer:?}");
        assert_eq!(answer.json()["accepted"], expected.len(), "{file}");
        let inbox = anonymous.inbox().await;
        assert_eq!(inbox.len(), 1, "{file}: one row for one delivery");
        assert_eq!(summary(&inbox[0]), expected, "{file}");
    }
    for (file, instance) in [("07_basic_auth.http", "n-1"), ("08_bearer_auth.http", "i1")] {
        let answer = running.raw(&captured(file, WEBHOOK)).await;
        assert_eq!(answer.status, 200, "{file}: {answer:?}");
        assert_eq!(running.inbox().await[0][0].labels["instance"], instance);
    }
    let answer = running.raw(&captured("01_firing_single.http", WEBHOOK)).await;
    answer.is_problem(401, "Authorization");
    assert_eq!(running.inbox().await.len(), 0);
    anonymous.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn texts_and_times_arrive_as_they_were_sent() {
    let running = Running::start().await;
    running.raw(&captured("03_mixed_firing_resolved.http", WEBHOOK)).await;
    let event = &running.inbox().await[0][1];
    assert_eq!(event.source, "alertmanager");
    assert_eq!(event.annotations["summary"], "p99 > 2s on web-2 <b>&\"quotes\" ünïcode 🚨");
    assert_eq!(event.starts_at.to_string(), "2026-11-21T01:06:28.884276Z");
    assert_eq!(event.ends_at.map(|t| t.to_string()), Some("2026-11-21T01:06:35.884927Z".into()));
    assert_eq!(event.generator_url, "http://prom.example:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1");
    running.stop().await;
}

#[tokio::test]
async fn prometheus_own_post_is_taken_and_a_followed_redirect_is_not() {
    let running = Running::start().await;
    let answer = running.raw(&captured("10_prometheus_to_alertmanager_post.http", "/api/v2/alerts")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let event = running.inbox().await.remove(0).remove(0);
    let ends: Timestamp = "2026-11-21T01:38:55.632Z".parse().expect("a time");
    let over = ends <= aiops::clock::now();
    assert_eq!(event.state, if over { AlertState::Resolved } else { AlertState::Firing });
    assert_eq!((event.source.as_str(), event.labels["job"].as_str()), ("prometheus", "down"));
    let answer = running.raw(&captured("11_302_followed_as_GET_empty_body.http", WEBHOOK)).await;
    answer.is_problem(405, "POST");
    assert_eq!(answer.header("allow"), Some("POST"));
    running.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_problems_and_leave_nothing_behind() {
    let running = Running::with(|s| {
        with_mine(s);
        s.http.max_intake_body = 60_000;
    })
    .await;
    let deep = format!("{}1{}", "[".repeat(9000), "]".repeat(9000));
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(3000), "}".repeat(3000));
    let deep_inside =
        format!(r#"{{"alerts":[{{"status":"firing","labels":{{"a":{deep_object}}}}}],"events":{deep}}}"#);
    let half = r#"{"alerts":[{"status":"firing","labels":{"alertname":"A"}},{"status":"firing"}]}"#;
    let bodies = [
        "",
        " ",
        "{",
        "[",
        "[{",
        "null",
        "7",
        "\"text\"",
        "true",
        "[[]]",
        "[null]",
        "[7]",
        r#"{"alerts":{}}"#,
        r#"{"alerts":[7]}"#,
        r#"{"alerts":[{"status":"firing","labels":[]}]}"#,
        r#"{"events":7}"#,
        r#"{"events":[{"name":{},"state":"bad"}]}"#,
        r#"[{"labels":{"a":{"b":"c"}}}]"#,
        r#"[{"labels":{"a":"b"},"endsAt":"yesterday"}]"#,
        r#"{"kind":1,"service":"a","summary":"b"}"#,
        r#"[{"kind":"deploy","service":"a","summary":"b"},{"kind":"deploy"}]"#,
        half,
        &deep,
        &deep_object,
        &deep_inside,
        "\u{feff}{}",
        "{\"alerts\":[{\"status\":\"firing\",\"labels\":{\"a\":\"\\ud800\"}}]}",
    ];
    for path in INTAKE {
        for body in bodies {
            let answer = running.post(path, body).await;
            let empty_telemetry =
                body.trim().is_empty() && (path.ends_with("logs") || path.ends_with("metrics"));
            if empty_telemetry {
                assert_eq!(answer.status, 200, "{path}: an empty batch is no error: {answer:?}");
                continue;
            }
            let start: String = body.chars().take(60).collect();
            assert!(matches!(answer.status, 400 | 422), "{path} {start}: {answer:?}");
            answer.is_problem(answer.status, "");
        }
        running.post(path, &"x".repeat(60_001)).await.is_problem(413, "larger than 60000 bytes");
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("1000\r\n{}\r\n", " ".repeat(4096)).repeat(20)
        );
        running.raw(chunked.as_bytes()).await.is_problem(413, "larger than 60000 bytes");
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", "br")];
        running.send("POST", path, &headers, b"{}").await.is_problem(415, "gzip, identity");
        let whole = gzip(format!("[{}]", " ".repeat(50_000)).as_bytes());
        let bomb = gzip(&vec![b' '; 60_001]);
        assert!(bomb.len() < 1000);
        let mut flipped = whole.clone();
        let checksum = flipped.len() - 8;
        flipped[checksum] ^= 1;
        for (packed, status, reason) in [
            (&b"{}"[..], 400, "not valid gzip"),
            (b"", 400, "not valid gzip"),
            (&whole[..whole.len() / 2], 400, "not valid gzip"),
            (&[&whole[..], b"more"].concat(), 400, "not valid gzip"),
            (&flipped, 400, "not valid gzip"),
            (&bomb, 413, "unpacked, is larger than 60000 bytes"),
            (&[gzip(&[b' '; 40_000]), gzip(&[b' '; 40_000])].concat(), 413, "unpacked, is larger"),
        ] {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
            running.send("POST", path, &headers, packed).await.is_problem(status, reason);
        }
        let not_utf8 = b"[{\"labels\":{\"a\":\"\xff\xfe\"}}]";
        let answer = running.send("POST", path, &[("Content-Type", "application/json")], not_utf8).await;
        answer.is_problem(answer.status, "");
        assert!(matches!(answer.status, 400 | 422), "{path}: {answer:?}");
        if !path.ends_with("logs") && !path.ends_with("metrics") {
            answer.is_problem(400, "not UTF-8: byte 17 does not fit");
            running
                .send("POST", path, &[("Content-Type", "text/plain")], b"{}")
                .await
                .is_problem(415, "application/json");
            running.send("POST", path, &[], b"{}").await.is_problem(415, "application/json");
        }
        // What was sent as logs is searched by a GET of the same path.
        let is_read = path == "/api/v1/logs";
        for method in ["GET", "PUT", "DELETE", "PATCH"].into_iter().skip(usize::from(is_read)) {
            running.send(method, path, &[], b"").await.is_problem(405, "POST");
        }
    }
    assert_eq!(running.inbox().await, [] as [Vec<AlertEvent>; 0]);
    let mut tx = running.store.read().await.expect("readable");
    let stored = changes::between(&mut tx, Timestamp::MIN, Timestamp::MAX).await.expect("listed");
    assert_eq!(stored, []);
    drop(tx);
    assert_eq!(running.post(WEBHOOK, ONE).await.status, 200, "it still works");
    running.stop().await;
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(plain).expect("packed");
    packed.finish().expect("packed")
}

#[tokio::test]
async fn gzip_is_taken_by_every_intake_route_and_by_no_other() {
    let running = Running::with(with_mine).await;
    let now = Timestamp::now();
    let bodies = [
        (WEBHOOK, ONE.to_owned()),
        ("/api/v2/alerts", r#"[{"labels":{"alertname":"B"}}]"#.to_owned()),
        ("/api/v1/webhooks/mine", r#"{"events":[{"name":"C","state":"bad"}]}"#.to_owned()),
        ("/api/v1/changes", r#"{"kind":"deploy","service":"a","summary":"b"}"#.to_owned()),
        ("/api/v1/logs", r#"[{"message":"x","service":"a"}]"#.to_owned()),
        ("/api/v1/metrics", format!(r#"[{{"name":"m","service":"a","value":1,"time":"{now}"}}]"#)),
    ];
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "GZIP")];
    for (path, body) in bodies {
        let answer = running.send("POST", path, &headers, &gzip(body.as_bytes())).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert_eq!(running.inbox().await.len(), 3, "one delivery for each route that takes alerts");
    let headers = [headers[0], headers[1], ("Authorization", "Bearer none")];
    let answer = running.send("POST", "/api/v1/automation/stop", &headers, &gzip(b"{}")).await;
    assert!(matches!(answer.status, 401 | 415), "{answer:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_trickling_body_or_head_is_cut_off() {
    let running = Running::with(|s| {
        s.http.body_timeout = Duration::from_millis(600);
        s.http.header_timeout = Duration::from_millis(600);
    })
    .await;
    let mut stream = TcpStream::connect(running.address).await.expect("it listens");
    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let trickle = async {
        loop {
            if stream.write_all(b" ").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(900), trickle).await;
    read_answer(&mut stream).await.is_problem(408, "did not arrive within 600ms");

    let mut stream = TcpStream::connect(running.address).await.expect("it listens");
    stream.write_all(b"POST / HTTP/1.1\r\nHost: loc").await.expect("sent");
    let started = std::time::Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("closed").expect("read");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(running.inbox().await.len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn many_bodies_at_once_are_bounded_together() {
    let running = Running::with(|s| {
        (s.http.max_intake_body, s.http.max_body, s.http.max_bodies) = (100_000, 100_000, 100_000);
    })
    .await;
    let mut first = TcpStream::connect(running.address).await.expect("it listens");
    let head = format!(
        "POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n"
    );
    first.write_all(head.as_bytes()).await.expect("sent");
    first.write_all(&[b' '; 80_000]).await.expect("sent");
    let body = format!("{ONE}{}", " ".repeat(50_000));
    let mut answer = running.post(WEBHOOK, &body).await;
    for _ in 0..100 {
        if answer.status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = running.post(WEBHOOK, &body).await;
    }
    answer.is_problem(503, "send it again");
    drop(first);
    for _ in 0..100 {
        answer = running.post(WEBHOOK, &body).await;
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(answer.status, 200, "what a broken connection held is given back: {answer:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_take_it_is_503_and_never_2xx() {
    let running = Running::with(|s| {
        with_mine(s);
        s.intake.commit_timeout = Duration::from_millis(200);
    })
    .await;
    let busy = (
        running.store.write().await.expect("the one writer"),
        aiops::store::testing::hold_inbox(&running.store).await,
    );
    let posts = [
        (WEBHOOK, ONE),
        ("/api/v2/alerts", r#"[{"labels":{"alertname":"A"}}]"#),
        ("/api/v1/webhooks/mine", r#"{"events":[{"name":"A","state":"bad"}]}"#),
        ("/api/v1/changes", r#"{"kind":"deploy","service":"a","summary":"b"}"#),
    ];
    for (path, body) in posts {
        running.post(path, body).await.is_problem(503, "the store did not answer in time");
    }
    drop(busy);
    for (path, body) in posts {
        assert_eq!(running.post(path, body).await.status, 200, "{path}");
    }
    running.commits.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for (path, body) in posts {
        running.post(path, body).await.is_problem(503, "the service is stopping");
    }
    running.stop().await;
}

#[tokio::test]
async fn an_alert_does_not_wait_for_what_else_is_written() {
    let running = Running::with(|s| s.intake.commit_timeout = Duration::from_secs(20)).await;
    let busy = running.store.write().await.expect("the one writer");
    assert_eq!(running.post(WEBHOOK, ONE).await.status, 200);
    drop(busy);
    assert_eq!(running.inbox().await.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_webhook_of_ones_own_is_mapped_and_an_unknown_one_is_not_found() {
    let running = Running::with(with_mine).await;
    let body = r#"{"events":[{"name":"disk","state":"BAD"},{"name":"cpu","state":"good"}]}"#;
    let answer = running.post("/api/v1/webhooks/mine", body).await;
    assert_eq!(answer.json(), serde_json::json!({"accepted": 2}));
    let events = running.inbox().await.remove(0);
    let told: Vec<_> =
        events.iter().map(|e| (e.source.as_str(), e.labels["alertname"].as_str(), e.state)).collect();
    assert_eq!(told, [("mine", "disk", AlertState::Firing), ("mine", "cpu", AlertState::Resolved)]);
    running.post("/api/v1/webhooks/other", body).await.is_problem(404, "there is no source \"other\"");
    running.stop().await;
}

#[tokio::test]
async fn a_change_sent_twice_is_one_change() {
    let running = Running::start().await;
    let body = r#"{"kind":"deploy","service":"checkout","summary":"1.4 → 1.5","author":"ann","at":"2026-11-21T01:00:00Z"}"#;
    for body in [body.to_owned(), format!("[{body}]")] {
        assert_eq!(running.post("/api/v1/changes", &body).await.status, 200);
    }
    let mut tx = running.store.read().await.expect("readable");
    let stored = changes::between(&mut tx, Timestamp::MIN, Timestamp::MAX).await.expect("listed");
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].author.as_deref(), stored[0].summary.as_str()), (Some("ann"), "1.4 → 1.5"));
    drop(tx);
    running.stop().await;
}

#[tokio::test]
async fn good_log_records_are_taken_beside_bad_ones() {
    let running = Running::start().await;
    let answer = running.post("/api/v1/logs", r#"[{"service":"a","message":"up"},7,{"service":"a"}]"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let counts = answer.json();
    assert_eq!((&counts["accepted"], &counts["rejected"]), (&1.into(), &2.into()), "{answer:?}");
    assert_eq!(counts["errors"][0]["index"], 1);
    let answer = running.post("/api/v1/logs", "7").await;
    answer.is_problem(400, "JSON array of objects");
    let answer = running.post("/api/v1/metrics", r#"[{"name":"x"}]"#).await;
    answer.is_problem(422, "no record could be used");
    assert_eq!(answer.json()["rejected"], 1);
    running.stop().await;
}

#[tokio::test]
async fn both_secrets_of_a_rotation_work_until_one_is_taken_away() {
    let (old, new) = ("old-secret-old-secret", "new-secret-new-secret");
    let rotate = move |s: &mut Settings, secrets: &[&str]| {
        s.intake.sources.insert("alertmanager".into(), source(&format!("bearer: [{}]", secrets.join(", "))));
    };
    let running = Running::with(|s| rotate(s, &[old, new])).await;
    let post = async |secret: &str| {
        let token = format!("Bearer {secret}");
        let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
        running.send("POST", WEBHOOK, &headers, ONE.as_bytes()).await.status
    };
    assert_eq!((post(old).await, post(new).await, post("neither-of-the-two").await), (200, 200, 401));
    let mut settings = Settings::default();
    rotate(&mut settings, &[new]);
    running.server(|s| s.reload(&settings));
    assert_eq!((post(old).await, post(new).await), (401, 200));
    let token = running.token(Role::Intake).await;
    assert_eq!(post(&token).await, 200, "a token with the role works beside them");
    let token = running.token(Role::Operator).await;
    assert_eq!(post(&token).await, 403);
    running.stop().await;
}
