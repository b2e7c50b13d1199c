//! `aiops demo` from the outside: it heals what it broke, only if it may, and leaves nothing behind.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

/// Runs it to its end, with `stdin` as what a person types; at most a minute.
async fn demo(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aiops"))
        .arg("demo")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was built");
    let mut typed = child.stdin.take().expect("it is piped");
    typed.write_all(stdin.as_bytes()).await.expect("it reads");
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    output.expect("under a minute").expect("it ends by itself")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in {l:?}"))).collect()
}

fn kinds(story: &[Value]) -> Vec<&str> {
    story.iter().map(|l| l["kind"].as_str().expect("every line has a kind")).collect()
}

fn position(kinds: &[&str], kind: &str) -> usize {
    kinds.iter().position(|k| *k == kind).unwrap_or_else(|| panic!("no {kind} in {kinds:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_heals_what_it_broke_and_says_how_long_that_took() {
    let output = demo(&["--yes", "--json"], "").await;
    let story = lines(&output);
    let kinds = kinds(&story);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{kinds:?}\n{errors}");
    let order = [
        "shop_open",
        "coupons",
        "opened",
        "diagnosed",
        "proposed",
        "question",
        "approved",
        "run_started",
        "verified",
        "resolved",
        "summary",
    ];
    let found = order.map(|kind| position(&kinds, kind));
    assert!(found.is_sorted(), "{order:?} are at {found:?} in {kinds:?}");
    for kind in ["shop_broke", "anomaly_found", "page", "shop_healed"] {
        position(&kinds, kind);
    }
    let text = |kind: &str| story[position(&kinds, kind)]["text"].as_str().expect("a text");
    assert!(
        text("question").contains("POST http://127.0.0.1:"),
        "the exact plan is shown: {}",
        text("question")
    );

    let restarted = text("step_finished");
    let pid = restarted.split_once("\"pid\":").and_then(|(_, rest)| rest.split([',', '}']).next());
    let pid: u32 = pid.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no pid in {restarted}"));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the shop outlived the demo");

    let summary = story.last().expect("a summary");
    assert_eq!(summary["healed"], true);
    let at = |kind: &str| -> jiff::Timestamp {
        story[position(&kinds, kind)]["at"].as_str().and_then(|t| t.parse().ok()).expect("a time")
    };
    let broke: jiff::Timestamp = summary["broke_at"].as_str().and_then(|t| t.parse().ok()).expect("a time");
    for (number, kind) in [
        ("seconds_to_page", "page"),
        ("seconds_to_diagnosis", "diagnosed"),
        ("seconds_to_fix", "verified"),
        ("seconds_to_resolve", "resolved"),
    ] {
        // What came before the first bad answer took no time.
        let seconds = at(kind).duration_since(broke).as_secs_f64().max(0.0);
        let said = summary[number].as_f64().unwrap_or_else(|| panic!("no {number} in {summary}"));
        assert!((said - seconds).abs() < 0.002, "{number} is {said}, the story says {seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_repairs_nothing_without_a_yes() {
    let output = demo(&["--json"], "n\n").await;
    let story = lines(&output);
    let kinds = kinds(&story);
    assert_eq!(output.status.code(), Some(1), "{kinds:?}");
    position(&kinds, "rejected");
    for kind in ["approved", "run_started", "step_started", "shop_healed", "resolved"] {
        assert!(!kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert_eq!(story.last().expect("a summary")["healed"], false);
}
