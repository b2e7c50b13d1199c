//! Every real server starts, does what the other tests rely on, and ends.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lettre::message::Message;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::peers::{Alertmanager, Ollama, Postgres, Prometheus, Smtp, free_port, http, script, wait_ready};

#[tokio::test]
async fn prometheus_fires_an_alert_and_alertmanager_has_it_after_both_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut alertmanager =
        Alertmanager::start("route: { receiver: none }\nreceivers: [{ name: none }]\n", dir.path()).await;
    let mut prometheus = Prometheus::start(&always_firing(alertmanager.port, dir.path()), dir.path()).await;

    alertmanager.child.kill();
    alertmanager.child.restart().await;
    prometheus.child.restart().await;
    wait_ready(&format!("{}/-/healthy", alertmanager.url)).await;

    let alerts = eventually(async || {
        let alerts: Value = get(&format!("{}/api/v2/alerts", alertmanager.url)).await;
        (alerts[0] != Value::Null).then_some(alerts)
    })
    .await;
    assert_eq!(alerts[0]["labels"]["alertname"], "AlwaysFiring");

    let reload = http().post(format!("{}/-/reload", prometheus.url)).send().await.unwrap();
    assert_eq!(reload.status(), 200);
}

/// A `prometheus.yml` whose only rule fires at once, into the given Alertmanager.
fn always_firing(alertmanager: u16, dir: &Path) -> String {
    let rules = dir.join("rules.yml");
    let text = "groups: [{ name: smoke, rules: [{ alert: AlwaysFiring, expr: vector(1) }] }]\n";
    std::fs::write(&rules, text).unwrap();
    format!(
        "global: {{ evaluation_interval: 1s }}\n\
         rule_files: [{}]\n\
         alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['127.0.0.1:{alertmanager}'] }}] }}] }}\n",
        rules.display()
    )
}

#[tokio::test]
async fn postgres_gives_each_test_an_empty_database() {
    for _ in 0..2 {
        let mut connection = PgConnection::connect(&Postgres::database().await).await.unwrap();
        sqlx::query("CREATE TABLE incident (id BIGINT)").execute(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn postgres_keeps_its_data_when_killed_and_restarted() {
    let mut cluster = Postgres::start().await;
    let database = cluster.create_database().await;
    let mut connection = PgConnection::connect(&database).await.unwrap();
    sqlx::query("CREATE TABLE incident AS SELECT 7 AS id").execute(&mut connection).await.unwrap();

    cluster.child.kill();
    assert!(PgConnection::connect(&database).await.is_err());
    cluster.child.restart().await;

    let mut connection = PgConnection::connect(&database).await.unwrap();
    let id: i32 = sqlx::query_scalar("SELECT id FROM incident").fetch_one(&mut connection).await.unwrap();
    assert_eq!(id, 7);
}

#[tokio::test]
async fn smtp_stores_mail_and_refuses_the_recipients_it_is_told_to() {
    let mut server = Smtp::start().await;
    let client = smtp_client(&server).build();

    client.send(mail_to("on-call@example.org", "Disk full")).await.unwrap();
    let busy = client.send(mail_to("fail450@example.org", "Disk full")).await.unwrap_err();
    let unknown = client.send(mail_to("fail550@example.org", "Disk full")).await.unwrap_err();

    assert_eq!(busy.status().unwrap().to_string(), "450");
    assert_eq!(unknown.status().unwrap().to_string(), "550");
    server.child.stop();
    assert!(!client.test_connection().await.unwrap_or(false));
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].from, "aiops@example.org");
    assert_eq!(mails[0].to, ["on-call@example.org"]);
    assert!(mails[0].text.contains("Subject: Disk full\r\n"), "{}", mails[0].text);
    assert!(!mails[0].tls);
}

#[tokio::test]
async fn smtp_takes_mail_only_over_starttls_when_told_so() {
    let server = Smtp::start_starttls().await;

    smtp_client(&server).build().send(mail_to("on-call@example.org", "In the clear")).await.unwrap_err();
    let encrypted = smtp_client(&server).tls(Tls::Required(trust(&server))).build();
    encrypted.send(mail_to("on-call@example.org", "Encrypted")).await.unwrap();

    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].tls);
}

#[tokio::test]
async fn smtp_wants_a_password_over_implicit_tls_when_told_so() {
    let server = Smtp::start_with(&["--tls", "implicit", "--auth", "aiops:secret"]).await;
    let client = |password: &str| {
        smtp_client(&server)
            .tls(Tls::Wrapper(trust(&server)))
            .credentials(Credentials::new("aiops".into(), password.into()))
            .build()
    };

    client("wrong").send(mail_to("on-call@example.org", "Refused")).await.unwrap_err();
    client("secret").send(mail_to("on-call@example.org", "Signed in")).await.unwrap();

    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].user.as_deref(), Some("aiops"));
    assert!(mails[0].tls);
}

fn smtp_client(server: &Smtp) -> lettre::transport::smtp::AsyncSmtpTransportBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(server.port)
}

fn trust(server: &Smtp) -> TlsParameters {
    let pem = std::fs::read(server.certificate.as_ref().unwrap()).unwrap();
    TlsParameters::builder("127.0.0.1".into())
        .add_root_certificate(Certificate::from_pem(&pem).unwrap())
        .build()
        .unwrap()
}

fn mail_to(address: &str, subject: &str) -> Message {
    Message::builder()
        .from("aiops@example.org".parse().unwrap())
        .to(address.parse().unwrap())
        .subject(subject)
        .body("Volume /var is 97 % full.\n".to_owned())
        .unwrap()
}

#[tokio::test]
async fn ollama_answers_within_the_schema_on_both_of_its_interfaces() {
    let mut server = Ollama::start("tiny").await;
    let schema = json!({
        "type": "object",
        "properties": { "cause": { "type": "string" }, "playbook": { "enum": ["restart", "scale"] } },
        "required": ["cause", "playbook"]
    });
    let messages = json!([{ "role": "user", "content": "Почему вырос p99?" }]);

    let native = post(
        &format!("{}/api/chat", server.url),
        &json!({ "model": "tiny", "messages": messages, "format": schema, "stream": false }),
    )
    .await;
    assert_fits(&native.1["message"]["content"]);

    let openai = post(
        &format!("{}/v1/chat/completions", server.url),
        &json!({
            "model": "tiny", "messages": messages,
            "response_format": { "type": "json_schema", "json_schema": { "name": "verdict", "schema": schema } }
        }),
    )
    .await;
    assert_fits(&openai.1["choices"][0]["message"]["content"]);

    let unknown =
        post(&format!("{}/api/chat", server.url), &json!({ "model": "other", "messages": messages })).await;
    assert_eq!(unknown, (404, json!({ "error": "model 'other' not found" })));

    server.child.stop();
    assert!(http().get(&server.url).send().await.unwrap_err().is_connect());
}

fn assert_fits(content: &Value) {
    let answer: Value = serde_json::from_str(content.as_str().unwrap()).unwrap();
    assert!(answer["cause"].is_string(), "{answer}");
    assert!(["restart", "scale"].contains(&answer["playbook"].as_str().unwrap()), "{answer}");
}

#[test]
fn what_a_test_run_leaves_behind_is_ended_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let mut janitor = script("janitor.sh").arg(root.path()).stdin(Stdio::piped()).spawn().unwrap();

    writeln!(janitor.stdin.take().unwrap(), "start {}", server.id()).unwrap();

    assert!(!server.wait().unwrap().success());
    assert!(janitor.wait().unwrap().success());
    assert!(!root.path().exists());
}

#[test]
fn a_free_port_is_given_out_once() {
    assert_ne!(free_port(), free_port());
}

async fn get(url: &str) -> Value {
    http().get(url).send().await.unwrap().json().await.unwrap()
}

async fn post(url: &str, body: &Value) -> (u16, Value) {
    let answer = http().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Asks until there is an answer.
async fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let answer = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it happens within 20 seconds")
}
