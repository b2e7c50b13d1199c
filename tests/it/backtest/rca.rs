//! Root-cause ranking of recorded incidents.

use std::{fs, path::Path};

use serde_json::Value;

use super::shop::{self, ALL, Fault};
use crate::cli::run;

fn ranked(dir: &Path) -> Value {
    let (code, out, err) = run(dir, &["backtest", "rca", "--case", "case", "--output", "ranking.json"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    serde_json::from_str(&fs::read_to_string(dir.join("ranking.json")).expect("written")).expect("JSON")
}

fn case(fault: Fault, seed: u64, tables: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    shop::write(&dir.path().join("case"), fault, seed, tables);
    ranked(dir.path())
}

/// Each fault at each of these services, twice. Says which were missed.
fn missed(fault: fn(&'static str) -> Fault, services: &[&'static str], tables: &[&str]) -> Vec<String> {
    let mut missed = Vec::new();
    for (seed, service) in services.iter().flat_map(|s| [(1, s), (2, s)]) {
        let told = case(fault(service), seed, tables);
        let first = &told["ranking"][0];
        if told["verdict"] != "clear" || first["service"] != *service {
            missed.push(format!("{:?} with seed {seed}: {} {first}", fault(service), told["verdict"]));
        }
    }
    missed
}

const BEHIND: [&str; 4] = ["orders", "payments", "stock", "bank"];

#[test]
fn an_exception_that_only_the_logs_tell_is_found_where_it_began() {
    assert_eq!(missed(Fault::Exception, &BEHIND, &ALL), Vec::<String>::new());
    let told = case(Fault::Exception("bank"), 1, &ALL);
    let text = told["ranking"][0]["evidence"][0]["text"].as_str().expect("a sentence");
    assert!(text.contains("cannot read the ledger"), "{text}");
    assert!(text.contains("usually in 0 of "), "{text}");
}

#[test]
fn a_delay_that_only_the_spans_tell_is_found_where_it_is() {
    assert_eq!(missed(Fault::Work, &BEHIND, &["spans"]), Vec::<String>::new());
    assert_eq!(missed(Fault::Network, &BEHIND, &["spans"]), Vec::<String>::new());
}

#[test]
fn a_resource_that_only_the_metrics_tell_is_found_with_nothing_but_metrics() {
    assert_eq!(missed(Fault::Cpu, &shop::SERVICES, &["metrics"]), Vec::<String>::new());
    assert_eq!(missed(Fault::Cpu, &shop::SERVICES, &ALL), Vec::<String>::new());
}

#[test]
fn log_lines_that_no_longer_come_are_found() {
    assert_eq!(missed(Fault::LostLogs, &BEHIND, &ALL), Vec::<String>::new());
}

#[test]
fn a_healthy_window_with_another_mix_of_requests_has_no_clear_cause() {
    for seed in 1..=6 {
        let told = case(Fault::None, seed, &ALL);
        assert_eq!(told["verdict"], "no clear cause", "{}", told["ranking"][0]);
    }
}

/// The picture in the documentation is one that this code draws.
#[test]
fn the_figure_of_the_documentation_is_drawn_by_the_code() {
    let dir = tempfile::tempdir().expect("a directory");
    shop::write(&dir.path().join("case"), Fault::Network("payments"), 1, &["spans"]);
    let args = ["backtest", "rca", "--case", "case", "--output", "ranking.json", "--figure", "ranking.svg"];
    assert_eq!(run(dir.path(), &args).0, 0);
    let drawn = fs::read_to_string(dir.path().join("ranking.svg")).expect("drawn");
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ranking.svg");
    if fs::read_to_string(&shown).ok().as_deref() != Some(&drawn) {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ranking.svg");
        fs::write(&fresh, drawn).expect("writable");
        panic!("docs/ranking.svg shows something else; if it should be so, copy {} there", fresh.display());
    }
}

#[test]
fn a_change_just_before_decides_between_equals_and_is_no_evidence_by_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("case");
    shop::write(&path, Fault::None, 1, &ALL);
    let head: Value =
        serde_json::from_str(&fs::read_to_string(path.join("case.json")).expect("there")).expect("JSON");
    let at = head["window"]["from"].as_str().expect("a time");
    fs::write(path.join("changes.csv"), format!("timestamp,service,summary\n{at},stock,1.4 → 1.5\n"))
        .expect("writable");
    let told = ranked(dir.path());
    assert_eq!(
        (&told["verdict"], &told["ranking"][0]["service"]),
        (&"no clear cause".into(), &"stock".into())
    );
    assert_eq!(told["ranking"][0]["evidence"][0]["text"], "A change came 0 s before the onset: 1.4 → 1.5");
}

#[test]
fn bad_input_is_named_by_file_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("case");
    let wrong = || {
        let (code, out, err) = run(dir.path(), &["backtest", "rca", "--case", "case"]);
        assert_eq!((code, out.as_str()), (1, ""));
        err.trim_end().to_owned()
    };
    assert!(wrong().starts_with("aiops: case/case.json: "), "{}", wrong());
    shop::write(&path, Fault::None, 1, &[]);
    assert_eq!(wrong(), "aiops: case: none of metrics.csv, logs.csv and spans.csv is there");
    let put = |name: &str, text: &str| fs::write(path.join(name), text).expect("writable");
    put("metrics.csv", "time,value\n");
    assert_eq!(wrong(), "aiops: case/metrics.csv:1: the header must be timestamp,service,metric,value");
    put("metrics.csv", "timestamp,service,metric,value\n2026-11-21T03:00:00Z,a,cpu,1\nyesterday,a,cpu,1\n");
    assert_eq!(wrong(), "aiops: case/metrics.csv:3: \"yesterday\" is no RFC 3339 time");
    put("metrics.csv", "timestamp,service,metric,value\n2026-11-21T03:00:00Z,a,cpu,much\n");
    assert_eq!(wrong(), "aiops: case/metrics.csv:2: \"much\" is no number");
    put("metrics.csv", "timestamp,service,metric,value\n");
    put(
        "spans.csv",
        "trace_id,span_id,parent_id,service,operation,start,duration_us,status\na,b,,c,d,2026-11-21T03:00:00Z,fast,\n",
    );
    assert_eq!(wrong(), "aiops: case/spans.csv:2: \"fast\" is no whole number of microseconds");
    put("case.json", "{\"id\": 7}");
    assert!(wrong().starts_with("aiops: case/case.json:1: invalid type"), "{}", wrong());
}
