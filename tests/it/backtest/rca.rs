//! Root-cause ranking of recorded incidents.

use std::{fs, path::Path};

use serde_json::Value;

use super::shop::{self, ALL, Fault, Rough};
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

fn rough(fault: Fault, seed: u64, tables: &[&str], rough: Rough) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    shop::write_rough(&dir.path().join("case"), fault, seed, tables, rough);
    ranked(dir.path())
}

#[test]
fn clocks_that_differ_and_lost_parents_mislead_nobody() {
    for how in [Rough { clocks: true, ..Rough::default() }, Rough { orphans: true, ..Rough::default() }] {
        for (fault, culprit) in [
            (Fault::Exception("bank"), "bank"),
            (Fault::Work("payments"), "payments"),
            (Fault::Network("stock"), "stock"),
            (Fault::LostLogs("orders"), "orders"),
        ] {
            let told = rough(fault, 3, &["spans", "logs"], how);
            let found = (&told["verdict"], &told["ranking"][0]["service"]);
            assert_eq!(found, (&"clear".into(), &culprit.into()), "{fault:?}, {how:?}: {}", told["ranking"]);
        }
        let told = rough(Fault::None, 3, &["spans", "logs"], how);
        assert_eq!(told["verdict"], "no clear cause", "{how:?}: {}", told["ranking"][0]);
    }
}

#[test]
fn a_service_without_spans_is_suspected_by_what_its_callers_wait_for() {
    for silent in ["bank", "stock"] {
        let how = Rough { silent: Some(silent), ..Rough::default() };
        for fault in [Fault::Work(silent), Fault::Network(silent)] {
            let told = rough(fault, 4, &["spans"], how);
            let first = &told["ranking"][0];
            assert_eq!(
                (&told["verdict"], &first["service"]),
                (&"clear".into(), &silent.into()),
                "{fault:?}: {told}"
            );
            let text = first["evidence"][0]["text"].as_str().expect("a sentence");
            assert!(text.starts_with(&format!("calls of {silent} wait")), "{text}");
        }
        let caller = rough(Fault::Work("payments"), 4, &["spans"], how);
        assert_eq!(caller["ranking"][0]["service"], "payments", "{}", caller["ranking"]);
    }
}

#[test]
fn a_service_that_only_logs_can_be_the_cause() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("case");
    shop::write(&path, Fault::None, 1, &ALL);
    let head: Value =
        serde_json::from_str(&fs::read_to_string(path.join("case.json")).expect("there")).expect("JSON");
    let from: jiff::Timestamp = head["window"]["from"].as_str().expect("a time").parse().expect("a time");
    let mut lines: Vec<(jiff::Timestamp, String)> = Vec::new();
    for second in (-700..170).step_by(10) {
        let at = from + jiff::SignedDuration::from_secs(second);
        lines.push((at, format!("{at},mailer,INFO,sent {} letters\n", second * second % 17)));
        if second > 0 {
            lines.push((at, format!("{at},mailer,ERROR,cannot reach the relay: connection refused\n")));
        }
    }
    let file = path.join("logs.csv");
    let rows: String = lines.into_iter().map(|l| l.1).collect();
    fs::write(&file, fs::read_to_string(&file).expect("there") + &rows).expect("writable");
    let told = ranked(dir.path());
    assert_eq!(
        (&told["verdict"], &told["ranking"][0]["service"]),
        (&"clear".into(), &"mailer".into()),
        "{told}"
    );
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

/// Rows that say nothing, and those that are odd, must neither be refused nor decide.
#[test]
fn what_is_odd_in_tables_changes_no_ranking() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("case");
    shop::write(&path, Fault::Work("payments"), 1, &ALL);
    let told = ranked(dir.path());
    let append = |name: &str, rows: &str| {
        let text = fs::read_to_string(path.join(name)).expect("there");
        fs::write(path.join(name), text + rows).expect("writable");
    };
    let at = "2026-11-21T03:00:00Z";
    append("metrics.csv", &format!("{at},payments,cpu,\n{at},payments,cpu,NaN\n"));
    // A span that is its own parent, two that are each other's, and times that no clock tells.
    let odd =
        [("own", "1", "1", "10"), ("two", "1", "2", "10"), ("two", "2", "1", "9"), ("long", "1", "", "-5")];
    let all = odd.map(|(trace, id, parent, us)| format!("{trace},{id},{parent},front,odd,{at},{us},OK\n"));
    append("spans.csv", &all.concat());
    // What seems to last for years is in the window: what is usual is the mean of what was before.
    let head: Value =
        serde_json::from_str(&fs::read_to_string(path.join("case.json")).expect("there")).expect("JSON");
    let from = head["window"]["from"].as_str().expect("a time");
    let all = [i64::MAX, i64::MIN].map(|us| format!("far{us},1,,front,odd,{from},{us},OK\n"));
    append("spans.csv", &all.concat());
    fs::write(path.join("changes.csv"), "timestamp,service,summary\n2026-01-01T00:00:00Z,stock,1.4 → 1.5\n")
        .expect("writable");
    let odd = ranked(dir.path());
    let first = |told: &Value| {
        [&told["verdict"], &told["ranking"][0]["service"], &told["ranking"][0]["score"]].map(Value::clone)
    };
    assert_eq!(first(&odd), first(&told));
    let mut scores = odd["ranking"].as_array().expect("a list").iter().map(|r| &r["score"]);
    assert!(scores.all(Value::is_number), "{odd}");
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
