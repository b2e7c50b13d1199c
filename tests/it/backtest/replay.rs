//! The time machine: a recording against two configurations differs in what the change makes different, and in nothing else.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::run;

/// `2026-10-05T08:00:00Z` plus seconds.
pub fn at(seconds: i64) -> String {
    Timestamp::from_second(1_791_187_200 + seconds).expect("in range").to_string()
}

fn lines(dir: &Path, name: &str, rows: impl IntoIterator<Item = Value>) {
    let text: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.join(name), text).expect("written");
}

fn webhook(arrived: i64, name: &str, service: &str, severity: &str, ended: Option<i64>, began: i64) -> Value {
    let labels = json!({"alertname": name, "service": service, "severity": severity});
    let mut alert = json!({
        "status": "firing", "labels": labels, "startsAt": at(began),
        "annotations": {"summary": format!("{service} is in trouble")},
    });
    if let Some(ended) = ended {
        alert["status"] = "resolved".into();
        alert["endsAt"] = at(ended).into();
    }
    json!({"at": at(arrived), "version": "4", "alerts": [alert]})
}

/// An outage of checkout, told by two services, in logs and in metrics, after a deploy; and a disk that fills later.
fn recording(dir: &Path) {
    fs::create_dir(dir).expect("the name is new");
    lines(
        dir,
        "alerts.jsonl",
        [
            webhook(600, "CheckoutDown", "checkout", "critical", None, 595),
            webhook(605, "PaymentsSlow", "payments", "warning", None, 600),
            webhook(900, "CheckoutDown", "checkout", "critical", Some(900), 595),
            webhook(905, "PaymentsSlow", "payments", "warning", Some(905), 600),
            webhook(2000, "DiskFilling", "db", "warning", None, 1990),
            webhook(2300, "DiskFilling", "db", "warning", Some(2300), 1990),
        ],
    );
    let log = |second: i64, level: &str, message: String| json!({"time": at(second), "service": "checkout", "level": level, "message": message});
    let usual = |s: i64| log(s, "info", format!("order {} placed in {} ms", s * 7, s % 13));
    let broken = |s: i64, k: i64| {
        log(s, "error", format!("cannot reach payments at 10.0.0.{k}:8443: connection refused"))
    };
    let all = (0..1000).flat_map(|s| {
        let errors = if (590..700).contains(&s) { 5 } else { 0 };
        std::iter::once(usual(s)).chain((0..errors).map(move |k| broken(s, k)))
    });
    lines(dir, "logs.jsonl", all);
    let queue = (0..200).map(|i| {
        let depth = (i * 7) % 3 + if (140..160).contains(&i) { 400 } else { 0 };
        json!({"name": "queue_depth", "service": "search", "value": depth, "timestamp": at(i * 5)})
    });
    lines(dir, "metrics.jsonl", queue);
    let deploy =
        json!({"kind": "deploy", "service": "payments", "summary": "payments 1.4 → 1.5", "at": at(540)});
    lines(dir, "changes.jsonl", [deploy]);
}

const CHANNELS: &str = "\
notify:
  pagerduty: {routing_key: 0123456789abcdef0123456789abcdef}
  slack: {webhook: \"https://hooks.example.org/services/T/B/x\"}
";
const PLAYBOOK: &str = "\
id: clean
title: Clean {{ service }}
description: Helps when a disk fills.
match:
  - labels: {alertname: DiskFilling}
params:
  service: {type: string, description: The service., from: incident service, pattern: '[a-z]+'}
target: service/{{ service }}
steps:
  - id: clean
    run: {http: {method: POST, url: 'http://127.0.0.1:9/clean/{{ service }}'}}
    timeout: 5s
verify:
  within: 5s
  every: 1s
  probes: [{http: {url: 'http://127.0.0.1:9/ok', expect: [200]}}]
on_failure: Look at it.
";

/// A directory with the recording, `present.yaml`, and two folders of playbooks.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().expect("a directory"));
        recording(&case.path("recording"));
        case.settings("present.yaml", "");
        fs::create_dir(case.path("none")).expect("made");
        fs::create_dir(case.path("playbooks")).expect("made");
        fs::write(case.path("playbooks/clean.yaml"), PLAYBOOK).expect("written");
        case
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
    fn settings(&self, name: &str, more: &str) {
        fs::write(self.path(name), format!("{CHANNELS}{more}")).expect("written");
    }
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let all: Vec<&str> = ["backtest", "replay", "recording", "--config", "present.yaml"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        run(self.0.path(), &all)
    }
    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).expect("JSON")
    }
    /// What `--against` settings with this added differs in.
    fn against(&self, more: &str) -> Value {
        self.settings("changed.yaml", more);
        self.json(&["--against", "changed.yaml"])
    }
}

const PLAYBOOKS: &str = "playbooks: {dir: playbooks, http_hosts: [\"127.0.0.1:9\"]}\n";

pub fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().map(|item| item[key].as_str().unwrap_or("")).collect()
}

#[test]
fn one_configuration_tells_what_happens() {
    let case = Case::new();
    let told = case.json(&[]);
    let counts = &told["recording"]["counts"];
    assert_eq!((&counts["alerts"], &counts["log_lines"]), (&json!(6), &json!(1550)), "{counts}");
    assert_eq!((&counts["samples"], &counts["changes"]), (&json!(200), &json!(1)), "{counts}");
    let services: Vec<&str> = told["incidents"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|i| i["incident"]["service"].as_str().expect("a name"))
        .collect();
    assert_eq!(services, ["checkout", "payments", "db"]);
    let first = &told["incidents"][0];
    assert_eq!(first["incident"]["opened_at"], at(600));
    assert_eq!(first["incident"]["resolved_at"], at(900));
    let keys = first["signals"].as_array().expect("a list").len();
    assert!(keys >= 2, "the anomaly of the logs joins the alert: {first:#}");
    assert_eq!(
        told["totals"]["messages"],
        json!({"pagerduty": 1, "slack": 6}),
        "opened and resolved; critical only"
    );
    let (code, out, _) = case.run(&[]);
    assert_eq!(code, 0);
    assert!(out.contains("2026-10-05 08:10:00 UTC [critical] checkout: checkout is in trouble"), "{out}");
    assert!(out.contains("Not replayed:") && out.contains("answers of people"), "{out}");
}

#[test]
fn the_same_twice_is_no_difference_and_the_same_bytes() {
    let case = Case::new();
    let (code, out, _) = case.run(&["--against", "present.yaml", "--exit-code"]);
    assert_eq!(code, 0);
    assert!(out.contains("No difference."), "{out}");
    let (_, again, _) = case.run(&["--against", "present.yaml", "--exit-code"]);
    assert_eq!(out, again);
    assert_eq!(case.run(&["--json"]).1, case.run(&["--json"]).1, "down to the ids");
}

#[test]
fn a_topology_merges_two_incidents_and_takes_their_messages_away() {
    let case = Case::new();
    let told = case.against("correlate: {topology: {checkout: [payments]}}\n");
    assert_eq!(each(&told["incidents"], "news"), ["merged"], "{told:#}");
    let merged = &told["incidents"][0];
    assert_eq!(each(&merged["before"], "service"), ["checkout", "payments"]);
    assert_eq!(each(&merged["after"], "service"), ["checkout"]);
    assert_eq!(merged["clause"], "correlate.topology");
    assert_eq!(told["messages"].as_array().map(Vec::len), Some(2), "{told:#}");
    for message in told["messages"].as_array().expect("a list") {
        assert_eq!((&message["new"], &message["channel"]), (&json!(false), &json!("slack")));
        assert_eq!(message["why"], "its incident: merged");
    }
    assert_eq!(told["actions"], json!([]));
    assert_eq!((&told["before"]["incidents"], &told["after"]["incidents"]), (&json!(3), &json!(2)));
}

#[test]
fn a_lower_bar_pages_for_more() {
    let case = Case::new();
    let more = CHANNELS.replace("abcdef}", "abcdef, min_severity: warning}");
    fs::write(case.path("changed.yaml"), more).expect("written");
    let told = case.json(&["--against", "changed.yaml"]);
    assert_eq!(told["incidents"], json!([]));
    assert_eq!(each(&told["messages"], "channel"), ["pagerduty", "pagerduty"], "{told:#}");
    assert_eq!(each(&told["messages"], "clause"), ["notify.min_severity"; 2]);
    assert_eq!(told["messages"][1]["at"], at(2000));
    let (code, out, _) = case.run(&["--against", "changed.yaml", "--exit-code"]);
    assert_eq!(code, 1, "something differs");
    assert!(out.contains("      1       3     +2  messages by pagerduty"), "{out}");
    assert!(out.contains("new: 2026-10-05 08:33:20 UTC pagerduty, opened: "), "{out}");
}

#[test]
fn a_detector_that_may_open_incidents_opens_one_more() {
    let case = Case::new();
    let told = case.against("correlate: {anomaly_opens: always}\n");
    let new: Vec<&Value> =
        told["incidents"].as_array().expect("a list").iter().filter(|i| i["news"] == "new").collect();
    assert_eq!(new.len(), 1, "{told:#}");
    assert_eq!(new[0]["after"][0]["service"], "search");
    assert_eq!(new[0]["clause"], "correlate.anomaly_opens");
    let title = new[0]["after"][0]["title"].as_str().expect("a title");
    assert!(title.starts_with("`queue_depth` is 4"), "{title}");
    let loose = ["before", "after"].map(|side| told[side]["anomalies_in_no_incident"].as_u64());
    assert_eq!(loose, [Some(1), Some(0)], "{told:#}");
    assert_eq!(told["before"]["anomalies"], told["after"]["anomalies"]);
}

#[test]
fn a_longer_warm_up_finds_no_new_error_and_the_incident_opens_with_the_alert() {
    let case = Case::new();
    case.settings("present.yaml", "correlate: {anomaly_opens: always}\n");
    let told = case.against("correlate: {anomaly_opens: always}\ndetect: {warm_up: 2000s}\n");
    assert_eq!(each(&told["incidents"], "news"), ["changed"], "{told:#}");
    let changed = &told["incidents"][0];
    assert_eq!(changed["changes"][0], "opened 2026-10-05 08:09:50 UTC → 2026-10-05 08:10:00 UTC");
    assert_eq!((&changed["before"][0]["signals"], &changed["after"][0]["signals"]), (&json!(4), &json!(1)));
    assert_eq!(changed["clause"], "detect");
    assert_eq!((&told["messages"], &told["actions"]), (&json!([]), &json!([])), "as many, ten seconds later");
}

#[test]
fn a_playbook_more_is_proposed_and_may_run_unasked() {
    let case = Case::new();
    case.settings("present.yaml", PLAYBOOKS);
    let told = case.json(&["--playbooks", "none", "--against-playbooks", "playbooks"]);
    assert_eq!(told["incidents"], json!([]));
    let [action] = &told["actions"].as_array().expect("a list")[..] else { panic!("one action: {told:#}") };
    assert_eq!(action["before"], Value::Null);
    assert_eq!((&action["after"]["how"], &action["after"]["target"]), (&json!("asks"), &json!("service/db")));
    assert_eq!(action["after"]["title"], "Clean db");
    let approval: Vec<&str> = each(&told["messages"], "moment");
    assert!(approval.contains(&"approval"), "people are asked: {told:#}");

    fs::create_dir(case.path("auto")).expect("made");
    let auto = PLAYBOOK.replace("target:", "approval: auto\ntarget:");
    fs::write(case.path("auto/clean.yaml"), auto).expect("written");
    case.settings("changed.yaml", "playbooks: {dir: auto, http_hosts: [\"127.0.0.1:9\"], auto: [clean]}\n");
    let told = case.json(&["--against", "changed.yaml"]);
    let [action] = &told["actions"].as_array().expect("a list")[..] else { panic!("one action: {told:#}") };
    assert_eq!((&action["before"]["how"], &action["after"]["how"]), (&json!("asks"), &json!("runs")));
    assert_eq!(action["after"]["clause"], "settings playbooks.auto");
    let (_, out, _) = case.run(&["--against", "changed.yaml"]);
    assert!(
        out.contains("asks → runs: 2026-10-05 08:33:20 UTC runs unasked: Clean db (clean on service/db)"),
        "{out}"
    );
}

#[test]
fn a_changed_playbook_shows_what_it_would_do_instead_and_to_whom() {
    let case = Case::new();
    case.settings("present.yaml", PLAYBOOKS);
    let changed = |name: &str, text: String| {
        fs::create_dir(case.path(name)).expect("made");
        fs::write(case.path(name).join("clean.yaml"), text).expect("written");
        case.json(&["--against-playbooks", name])
    };
    // The same playbook for the same target, and another request.
    let told =
        changed("purge", PLAYBOOK.replace("9/clean/", "9/purge/").replace("timeout: 5s", "timeout: 7s"));
    assert_eq!((&told["incidents"], &told["messages"]), (&json!([]), &json!([])), "{told:#}");
    let [action] = &told["actions"].as_array().expect("a list")[..] else { panic!("one action: {told:#}") };
    assert_eq!(action["parts"], json!(["steps"]));
    assert_eq!((&action["before"]["how"], &action["after"]["how"]), (&json!("asks"), &json!("asks")));
    let (_, out, _) = case.run(&["--against-playbooks", "purge"]);
    assert!(
        out.contains("changed: 2026-10-05 08:33:20 UTC people are asked: Clean db (clean on service/db)"),
        "{out}"
    );
    assert!(out.contains("not the same: steps\n"), "{out}");
    assert!(out.contains("− 1. POST http://127.0.0.1:9/clean/db\n"), "{out}");
    assert!(out.contains("+ 1. POST http://127.0.0.1:9/purge/db\n"), "{out}");
    // For another alert, so of another service.
    let told = changed("moved", PLAYBOOK.replace("DiskFilling", "PaymentsSlow"));
    let of = |side: &str| -> Vec<&Value> {
        let all = told["actions"].as_array().expect("a list").iter();
        all.filter(|a| a[side] != Value::Null).map(|a| &a[side]["target"]).collect()
    };
    assert_eq!(
        (of("before"), of("after")),
        (vec![&json!("service/db")], vec![&json!("service/payments")]),
        "{told:#}"
    );
    // Not for this service any more: nothing is offered, and nobody is asked.
    let told = changed(
        "bounded",
        PLAYBOOK.replace("alertname: DiskFilling}", "alertname: DiskFilling, service: web}"),
    );
    let [action] = &told["actions"].as_array().expect("a list")[..] else { panic!("one action: {told:#}") };
    assert_eq!((&action["before"]["target"], &action["after"]), (&json!("service/db"), &Value::Null));
    // Unasked, but too often: the guard holds, and that is told.
    let guarded = PLAYBOOK.replace("target:", "approval: auto\ntarget:");
    fs::create_dir(case.path("auto")).expect("made");
    fs::write(case.path("auto/clean.yaml"), guarded).expect("written");
    let told = case.json(&["--against-playbooks", "auto"]);
    assert_eq!(
        told["actions"],
        json!([]),
        "the settings do not list it in playbooks.auto: it asks as before"
    );
}

#[test]
fn a_webhook_of_ones_own_is_read_by_the_mapping_of_each_configuration() {
    let case = Case::new();
    let sent = |arrived: i64, status: &str| {
        let body = json!({"trigger": "Lag", "host": "queue", "priority": "critical", "status": status});
        json!({"at": at(arrived), "webhook": "zabbix", "body": body})
    };
    lines(&case.path("recording"), "alerts-zabbix.jsonl", [sent(50, "PROBLEM"), sent(400, "OK")]);
    let mapping = |more: &str| {
        format!(
            "intake:\n  sources:\n    zabbix: {{mapping: {{label: {{alertname: trigger, service: host{more}}}, \
             state: status, firing: [PROBLEM], resolved: [OK]}}}}\n"
        )
    };
    case.settings("present.yaml", &mapping(""));
    let told = case.against(&mapping(", severity: priority"));
    assert_eq!(each(&told["incidents"], "news"), ["changed"], "{told:#}");
    let changed = &told["incidents"][0];
    assert_eq!(changed["changes"][0], "severity warning → critical", "{told:#}");
    assert_eq!(
        (&changed["after"][0]["service"], &changed["after"][0]["opened_at"]),
        (&json!("queue"), &json!(at(50)))
    );
    case.settings("present.yaml", "");
    let (code, _, err) = case.run(&[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("alerts-zabbix.jsonl:1: the settings have no intake.sources.zabbix.mapping"),
        "{err}"
    );
}

#[test]
fn what_prometheus_stops_repeating_ends_as_it_would() {
    let case = Case::new();
    let sent = |arrived: i64| {
        let labels = json!({"alertname": "Lag", "service": "queue", "severity": "warning"});
        json!({"at": at(arrived), "prometheus": [{"labels": labels, "startsAt": at(100), "endsAt": at(arrived + 240)}]})
    };
    lines(&case.path("recording"), "alerts-prometheus.jsonl", [sent(110), sent(170), sent(230)]);
    let told = case.json(&[]);
    let incident = &told["incidents"][0]["incident"];
    assert_eq!((&incident["service"], &incident["opened_at"]), (&json!("queue"), &json!(at(110))));
    assert_eq!(incident["resolved_at"], at(230 + 240 + 5), "swept every five seconds");
}

#[test]
fn anomalies_are_found_anew_where_their_telemetry_is_and_else_taken_from_the_record() {
    let case = Case::new();
    let anomaly = |kind: &str, service: &str| {
        json!({
            "at": at(596), "kind": kind, "key": format!("{kind} of {service}"), "service": service, "severity": "warning",
            "title": format!("{service} is not as usual"), "detail": {}, "started_at": at(595), "ended_at": at(800),
        })
    };
    let rows = [anomaly("metric", "checkout"), anomaly("log_burst", "payments")];
    lines(&case.path("recording"), "anomalies.jsonl", rows);
    let signals = |told: &Value, i: usize| told["incidents"][i]["signals"].to_string();
    let told = case.json(&[]);
    assert_eq!(told["recording"]["counts"]["anomalies"], 0, "logs and metrics are there");
    fs::remove_file(case.path("recording/metrics.jsonl")).expect("removed");
    let told = case.json(&[]);
    assert_eq!(told["recording"]["counts"]["anomalies"], 2, "its beginning and its end");
    assert!(signals(&told, 0).contains("metric of checkout"), "{told:#}");
    fs::remove_file(case.path("recording/logs.jsonl")).expect("removed");
    let told = case.json(&[]);
    assert!(signals(&told, 1).contains("log_burst of payments"), "{told:#}");
    assert_eq!(
        (&told["totals"]["anomalies"], &told["totals"]["anomalies_in_no_incident"]),
        (&json!(2), &json!(0))
    );
}

#[test]
fn spans_are_read_as_the_api_takes_them() {
    let case = Case::new();
    let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /",
        "startTimeUnixNano": "1791187210000000000", "endTimeUnixNano": "1791187211000000000"});
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]});
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
    lines(&case.path("recording"), "traces.jsonl", [body]);
    assert_eq!(case.json(&[])["recording"]["counts"]["spans"], 1);
}

#[test]
fn a_line_of_a_clock_that_began_in_1970_takes_no_decades() {
    let case = Case::new();
    let told = case.json(&[]);
    let line = json!({"time": "1970-01-02T00:00:00Z", "service": "sensor", "message": "booting"});
    lines(&case.path("recording"), "logs-2.jsonl", [line]);
    let with = case.json(&[]);
    assert_eq!(with["recording"]["from"], "1970-01-02T00:00:00Z");
    assert_eq!(with["totals"], told["totals"]);
}

#[test]
fn secrets_in_files_are_not_read_and_need_not_be_there() {
    let case = Case::new();
    let yaml = "notify:\n  pagerduty: {routing_key: {file: /nowhere/key}}\n  slack: {webhook: {file: /nowhere/url}}\n";
    fs::write(case.path("changed.yaml"), yaml).expect("written");
    let (code, out, err) = case.run(&["--against", "changed.yaml", "--exit-code"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("No difference."), "{out}");
    let (code, _, err) =
        run(&case.path(""), &["backtest", "record", "--config", "changed.yaml", "--output", "x"]);
    assert_eq!(code, 78, "only a replay reaches nobody: {err}");
}

#[test]
fn silences_of_the_recording_hold_back() {
    let case = Case::new();
    let silence =
        json!({"at": at(1900), "until": at(4000), "matches": {"service": "db"}, "reason": "disk swap"});
    lines(&case.path("recording"), "silences.jsonl", [silence]);
    let told = case.json(&[]);
    assert_eq!(
        told["totals"]["messages"],
        json!({"pagerduty": 1, "slack": 4}),
        "nobody hears of the disk: {told:#}"
    );
}

#[test]
fn what_is_wrong_names_file_and_line() {
    let case = Case::new();
    let dir = case.path("recording");
    let wrong = |name: &str, text: &str, says: &str| {
        fs::write(dir.join(name), text).expect("written");
        let (code, _, err) = case.run(&[]);
        fs::remove_file(dir.join(name)).expect("removed");
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(says), "{err}");
    };
    let firing = r#"{"status":"firing","labels":{"a":"b"},"startsAt":"2026-10-05T08:00:00Z"}"#;
    wrong("alerts-2.jsonl", &format!("{firing}\n\n{{"), "recording/alerts-2.jsonl:3: EOF");
    wrong(
        "alerts-2.jsonl",
        r#"{"status":"odd","labels":{"a":"b"}}"#,
        "alerts-2.jsonl:1: alert 0: status \"odd\"",
    );
    let back = r#"{"at":"2026-10-05T07:00:00Z","status":"firing","labels":{"a":"b"}}"#;
    wrong(
        "alerts-2.jsonl",
        &format!("{firing}\n{back}"),
        "alerts-2.jsonl:2: it arrived at 2026-10-05T07:00:00Z, before",
    );
    wrong("logs-2.jsonl", r#"{"message":"x"}"#, "logs-2.jsonl:1: it has no time");
    wrong("metrics-2.jsonl", r#"{"name":"x","value":"y"}"#, "metrics-2.jsonl:1: the value is not a number");
    wrong("changes-2.jsonl", r#"{"kind":"deploy"}"#, "changes-2.jsonl:1: missing field");
    wrong("notes.jsonl", "{}", "recording/notes.jsonl: its name must say what it holds");
    wrong("watches-2.jsonl", "{}", "watches-2.jsonl:1: it must be the watch whose answers follow");
    let (code, _, err) = run(&case.path(""), &["backtest", "replay", "nowhere"]);
    assert_eq!(code, 1);
    assert!(err.contains("nowhere: cannot be read"), "{err}");
    fs::write(case.path("changed.yaml"), "correlate: {window: 0s}\n").expect("written");
    assert_eq!(case.run(&["--against", "changed.yaml"]).0, 78, "wrong settings");
}
