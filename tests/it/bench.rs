//! `aiops bench` from the outside: what it sends is what is accepted, what it says adds up, and it loads nobody unasked. How
//! fast anything is is not asserted: that is what it is there to say.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use sqlx::{Connection, PgConnection};

use crate::peers::Postgres;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AIOPS_")) {
        command.env_remove(name);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = command.arg("bench").args(args).current_dir(dir.path()).stdin(Stdio::null()).output();
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 0, "it writes nothing where it is started");
    output.expect("the binary was built")
}

/// Runs it with `--json`, for a second.
fn figures(args: &[&str]) -> Value {
    let output = bench(&[args, &["--json", "--seconds", "1", "--warm-up", "0"]].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e} in {out}"))
}

fn refusal(args: &[&str]) -> String {
    let output = bench(args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// All that was sent was accepted, nothing went wrong, and the costs are there.
fn assert_sound(load: &Value) {
    assert!(number(&load["sent"]) > 0.0, "{load}");
    assert_eq!(load["sent"], load["accepted"], "{load}");
    for nothing in ["broken", "unanswered"] {
        assert_eq!(load[nothing], 0, "{nothing} in {load}");
    }
    let statuses = load["statuses"].as_object().expect("an object");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{load}");
    let latency = &load["latency"];
    let order = ["p50_ms", "p99_ms", "p999_ms", "max_ms"].map(|q| number(&latency[q]));
    assert!(order.is_sorted() && order[0] > 0.0, "{latency}");
    assert!(number(&load["cost"]["server_us"]) > 0.0 && number(&load["cost"]["generator_us"]) > 0.0);
    assert!(number(&load["cost"]["memory"]["peak_mb"]) > 5.0);
}

#[test]
fn every_alert_that_is_sent_is_accepted() {
    let found = figures(&["alerts", "--connections", "4"]);
    assert_sound(&found["ours"]);
    assert_eq!(found["store"], "SQLite");
    assert!(number(&found["machine"]["cores"]) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_reach_postgres_and_its_database_is_gone_afterwards() {
    let url = Postgres::database().await;
    let found = figures(&["alerts", "--connections", "2", "--batch", "50", "--store", &url]);
    assert_sound(&found["ours"]);
    assert_eq!((&found["store"], number(&found["ours"]["accepted"]) % 50.0), (&"PostgreSQL".into(), 0.0));
    let mut admin = PgConnection::connect(&url).await.expect("the cluster is ready");
    let left: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'aiops_bench_%'")
            .fetch_all(&mut admin)
            .await
            .expect("answered");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn sustained_load_is_followed_into_incidents() {
    let found = figures(&["alerts", "--sustained", "--rate", "200", "--connections", "4"]);
    assert_sound(&found["ours"]);
    let kept_up = &found["ours"]["kept_up"];
    assert!(number(&kept_up["caught_up_after_s"]) >= 0.0, "{kept_up}");
    let incidents = number(&kept_up["incidents"]);
    assert!((1.0..=50.0).contains(&incidents), "one for each service that was heard of: {kept_up}");
}

#[test]
fn nobody_is_loaded_unasked() {
    let here = refusal(&["alerts", "--url", "http://127.0.0.1:1"]);
    assert!(here.contains("if nobody needs that server, say --disposable loopback"), "{here}");
    let far = refusal(&["alerts", "--against", "http://192.0.2.1:9093", "--disposable", "loopback"]);
    assert!(far.contains("say --disposable 192.0.2.1:9093"), "{far}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (args, hint) in [
        (&["alerts", "--seconds", "0"][..], "0 is not in 1..=86400"),
        (&["alerts", "--batch", "0"], "0 is not in 1..=10000"),
        (&["alerts", "--rate", "-1"], "--rate"),
        (&["alerts", "--pid", "1"], "--url <URL>"),
        (&["alerts", "--url", "nonsense", "--disposable", "loopback"], "write http://127.0.0.1:9093"),
    ] {
        let err = refusal(args);
        assert!(err.contains(hint), "{args:?}: {err}");
    }
}

#[test]
fn nothing_that_answers_is_said_in_words() {
    let output =
        bench(&["alerts", "--url", "http://127.0.0.1:1", "--disposable", "loopback", "--seconds", "1"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("nothing answered"), "{err}");
}
