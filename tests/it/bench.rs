//! `aiops bench` from the outside: what it sends is what is accepted, what it says adds up, and it loads nobody unasked. How
//! fast anything is is not asserted: that is what it is there to say.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use sqlx::{Connection, PgConnection};

use crate::peers::{Postgres, Redis};

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
    let cost = &load["cost"];
    // Whole processes are counted in hundredths of a second, of which a busy machine may grant none; threads are not.
    assert!(number(&cost["server_us"]) >= 0.0 && number(&cost["generator_us"]) >= 0.0, "{cost}");
    let threads = cost["server_threads_us"].as_object().expect("an object");
    assert!(threads.values().map(number).sum::<f64>() > 0.0, "{cost}");
    assert!(number(&cost["memory"]["peak_mb"]) > 5.0);
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
fn too_much_is_offered_and_what_goes_through_is_told() {
    let found = figures(&["overload", "--times", "3", "--find", "1", "--batch", "5", "--connections", "2"]);
    let closed = found["closed"].as_array().expect("a list");
    let best = closed.iter().map(|c| number(&c["through_per_second"])).fold(1.0, f64::max);
    assert_eq!((closed.len(), number(&found["most_per_second"])), (2, best), "{found:#}");
    assert!(number(&found["load"]["sent"]) > 0.0 && number(&found["through_per_second"]) >= 0.0, "{found:#}");
    let statuses = found["load"]["statuses"].as_object().expect("an object");
    assert!(statuses.keys().all(|status| ["200", "503"].contains(&status.as_str())), "{statuses:?}");
    assert!(number(&found["normal_after_s"]) >= 0.0 && number(&found["peak_memory_mb"]) > 5.0, "{found:#}");
    assert!(number(&found["critical"]["accepted"]) > 0.0, "{found:#}");
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
fn every_line_and_sample_that_is_accepted_is_judged() {
    for kind in ["logs", "metrics"] {
        let found = figures(&[kind, "--rate", "2000", "--batch", "100", "--connections", "2"]);
        assert_sound(&found["load"]);
        // On a busy machine a line may come too late for its window; it is counted all the same.
        let counted = number(&found["judged"]) + number(&found["unjudged"]);
        assert_eq!(counted, number(&found["load"]["accepted"]), "{found}");
        assert_eq!(number(&found["refused"]), 0.0, "{found}");
        assert!(
            number(&found["judged_per_second"]) > 0.0 && number(&found["whole_cost"]["server_us"]) >= 0.0
        );
    }
    let packed = figures(&["logs", "--gzip", "--rate", "1000", "--batch", "100", "--connections", "1"]);
    assert_sound(&packed["load"]);
    let counted = number(&packed["judged"]) + number(&packed["unjudged"]);
    assert_eq!(counted, number(&packed["load"]["accepted"]), "{packed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_goes_through_redis_and_its_keys_are_gone_afterwards() {
    let redis = Redis::start_with(&["--requirepass", "geheim"]).await;
    let url = format!("redis://:geheim@127.0.0.1:{}", redis.port);
    for kind in ["logs", "metrics"] {
        let found =
            figures(&[kind, "--rate", "2000", "--batch", "100", "--connections", "2", "--redis", &url]);
        assert_sound(&found["load"]);
        let counted = number(&found["judged"]) + number(&found["unjudged"]);
        assert_eq!(
            (counted, &found["bus"]),
            (number(&found["load"]["accepted"]), &"redis".into()),
            "{found}"
        );
        assert!(number(&found["redis_us"]) > 0.0, "{found}");
    }
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it listens");
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await.expect("answered");
    assert_eq!(left, 0);
}

#[test]
fn every_alert_reaches_the_channel() {
    let found = figures(&["notify", "--rate", "20"]);
    assert_sound(&found["load"]);
    assert_eq!(
        (&found["told"], &found["incidents"]),
        (&found["load"]["accepted"], &found["load"]["accepted"])
    );
    let to_channel = number(&found["to_channel"]["p50_ms"]);
    assert!(to_channel >= number(&found["load"]["latency"]["p50_ms"]), "told after it was accepted: {found}");
    assert!(number(&found["calls"]) >= number(&found["told"]));
}

#[test]
fn start_says_how_soon_and_how_big() {
    let output = bench(&["start", "--runs", "3", "--idle", "0", "--storm", "100", "--json"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["cold_starts_ms"].as_array().map(Vec::len), Some(3));
    assert!(number(&found["cold_start_ms"]) > 1.0 && number(&found["idle_mb"]) > 5.0, "{found}");
    assert!(number(&found["storm_mb"]) >= number(&found["idle_mb"]), "{found}");
    assert_sound(&found["storm"]);
}

#[test]
fn growth_has_a_row_for_each_size() {
    let sizes = ["--incidents", "200,400", "--services", "5,10", "--series", "20,40"];
    let output = bench(&[&["growth", "--seconds", "1", "--json"][..], &sizes].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sizes = |rows: &Value, name: &str| -> Vec<f64> {
        rows.as_array().expect("rows").iter().map(|row| number(&row[name])).collect()
    };
    assert_eq!(sizes(&found["by_incidents"], "incidents"), [200.0, 400.0]);
    let disk: Vec<f64> = sizes(&found["by_incidents"], "disk_mb");
    assert!(
        disk[1] < 3.0 * disk[0],
        "copies are of what the originals were, not of what has happened to them since: {disk:?}"
    );
    assert_eq!(sizes(&found["by_services"], "number"), [5.0, 10.0]);
    assert_eq!(sizes(&found["by_series"], "number"), [20.0, 40.0]);
    for row in found["by_incidents"].as_array().expect("rows") {
        for cost in
            ["start_ms", "accept_ms", "correlate_2000_ms", "first_page_ms", "later_page_ms", "memory_mb"]
        {
            assert!(number(&row[cost]) > 0.0, "{cost} in {row}");
        }
    }
    for row in [&found["by_services"], &found["by_series"]]
        .into_iter()
        .flat_map(|rows| rows.as_array().expect("rows"))
    {
        assert!(
            number(&row["judged_per_second"]) > 0.0 && number(&row["server_us_per_record"]) >= 0.0,
            "{row}"
        );
    }
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
        (&["alerts", "--rate", "0"], "must be a number above 0"),
        (&["notify", "--rate", "20000"], "incidents have names of their own"),
        (&["notify", "--first-delay", "soon"], "write 500ms or 2s"),
        (&["growth", "--incidents", "10000,1000"], "--incidents must rise"),
        (&["logs", "--batch", "0"], "0 is not in 1..=50000"),
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
