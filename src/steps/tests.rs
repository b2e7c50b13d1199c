//! Real processes.

use std::{path::PathBuf, sync::Arc, time::Instant};

use super::*;
use crate::{clock, config::Settings};

fn tools(dir: &std::path::Path) -> Tools {
    let mut settings = Settings::default();
    settings.playbooks.dir = dir.join("none");
    settings.playbooks.executables = [
        "/usr/bin/sleep",
        "/usr/bin/printenv",
        "/usr/bin/pwd",
        "/usr/bin/yes",
        "/usr/bin/false",
        "/usr/bin/setsid",
    ]
    .map(PathBuf::from)
    .into();
    // The checks of the settings refuse shells; tests use one to make a tree of processes.
    settings.playbooks.executables.push("/bin/sh".into());
    Tools {
        registry: Arc::new(Registry::open(&settings)),
        http: crate::http_client::new(),
        prometheus: config::Prometheus::default(),
        data_dir: dir.to_owned(),
    }
}

fn context(timeout_ms: u64) -> Context {
    Context {
        run_id: crate::ids::new(),
        incident_id: Some("i1".into()),
        started_at: clock::now(),
        timeout: Duration::from_millis(timeout_ms),
    }
}

async fn command(argv: &[&str], timeout_ms: u64) -> Outcome {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let argv = argv.iter().map(|a| (*a).to_owned()).collect();
    run(&tools(dir.path()), &Action::Command { argv }, &context(timeout_ms), &CancellationToken::new()).await
}

#[tokio::test]
async fn the_environment_is_clean_and_the_directory_private() {
    let out = command(&["/usr/bin/printenv"], 5000).await;
    assert_eq!(out.ended, Ended::Succeeded);
    let names: Vec<_> = out.output.lines().filter_map(|l| l.split_once('=')).map(|(k, _)| k).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["AIOPS_INCIDENT_ID", "AIOPS_RUN_ID", "HOME", "LANG", "PATH"]);
    assert!(command(&["/usr/bin/pwd"], 5000).await.output.contains("/runs/"));
}

#[tokio::test]
async fn what_is_not_allowed_is_not_started() {
    let out = command(&["/usr/bin/touch", "/tmp/x"], 5000).await;
    assert_eq!(out.ended, Ended::Failed);
    insta::assert_snapshot!(out.output, @"/usr/bin/touch is not in playbooks.executables (any more)");
    let out = command(&["sleep", "0"], 5000).await;
    insta::assert_snapshot!(out.output, @"sleep is not in playbooks.executables (any more)");
}

#[tokio::test]
async fn failure_and_output_are_told_and_bounded() {
    let out = command(&["/bin/sh", "-c", "echo password=hunter22 >&2; exit 3"], 5000).await;
    assert_eq!(out.ended, Ended::Failed);
    assert!(out.output.ends_with("exit status 3"), "{}", out.output);
    assert!(!out.output.contains("hunter22"), "{}", out.output);
    let out = command(&["/usr/bin/yes", "0123456789"], 300).await;
    assert!(out.output.len() <= MAX_OUTPUT, "{}", out.output.len());
    assert!(out.output.ends_with("timed out after 300ms and was terminated"));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_even_if_it_ignores_sigterm() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pids = dir.path().join("pids");
    let script = format!("trap '' TERM; sleep 300 & echo $! $$ > {}; wait; sleep 300", pids.display());
    let began = Instant::now();
    let out = command(&["/bin/sh", "-c", &script], 300).await;
    assert_eq!(out.ended, Ended::Failed);
    assert!(began.elapsed() < Duration::from_secs(5));
    for pid in std::fs::read_to_string(pids).expect("it wrote its pids").split_whitespace() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z "), "{pid} still runs: {status}");
    }
}

#[tokio::test]
async fn a_daemon_left_behind_does_not_hold_the_step() {
    let began = Instant::now();
    let out = command(&["/bin/sh", "-c", "sleep 5 & echo started"], 4000).await;
    assert_eq!((out.ended, out.output.as_str()), (Ended::Succeeded, "started"));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_stop_ends_a_command_at_once_with_an_unknown_outcome() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stop = CancellationToken::new();
    let (tools, action) =
        (tools(dir.path()), Action::Command { argv: vec!["/usr/bin/sleep".into(), "300".into()] });
    let began = Instant::now();
    let context = context(60_000);
    let (out, ()) = tokio::join!(run(&tools, &action, &context, &stop), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    });
    assert_eq!(out.ended, Ended::Unknown);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_goes_on_where_a_restart_cut_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut context = context(1000);
    context.started_at = clock::before(clock::now(), Duration::from_secs(9));
    let began = Instant::now();
    let action = Action::Wait { duration: Duration::from_millis(9300) };
    let out = run(&tools(dir.path()), &action, &context, &CancellationToken::new()).await;
    assert_eq!(out.ended, Ended::Succeeded);
    assert!((200..2000).contains(&began.elapsed().as_millis()));
}

#[test]
fn what_is_shown_cannot_be_taken_for_something_else() {
    let argv = ["/bin/x", "a b", "--k=v", "", "é\n"].map(String::from).into();
    insta::assert_snapshot!(describe(&Action::Command { argv }), @r#"/bin/x "a b" --k=v "" "é\n""#);
}
