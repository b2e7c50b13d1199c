//! Making a recording: of a store that a service really wrote, of a real Prometheus, of a real OpenSearch, of files.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aiops::store::Store;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::replay::{at, each};
use crate::{
    cli::run,
    fakes::{self, Answer, Request},
    peers::{self, OpenSearch, Postgres, Prometheus},
    search::unique,
    service::Service,
};

/// A directory with an empty store and settings.
struct Case(tempfile::TempDir);

impl Case {
    async fn new(yaml: &str) -> Self {
        let case = Self(tempfile::tempdir().expect("a directory"));
        fs::create_dir(case.0.path().join("data")).expect("the name is new");
        Store::open("", &case.0.path().join("data")).await.expect("opened").close().await;
        case.settings("aiops.yaml", yaml);
        case
    }
    fn settings(&self, name: &str, yaml: &str) {
        fs::write(self.0.path().join(name), format!("data_dir: data\n{yaml}")).expect("written");
    }
    fn record(&self, args: &[&str]) -> (i32, String, String) {
        let all = [&["backtest", "record", "--config", "aiops.yaml", "--output", "out"], args].concat();
        run(self.0.path(), &all)
    }
    /// Recorded from `at(0)` to `at(1000)`: what it says, on standard output and else.
    fn recorded(&self, args: &[&str]) -> (String, String) {
        let (code, out, err) = self.record(&[&["--from", &at(0), "--to", &at(1000)], args].concat());
        assert_eq!(code, 0, "{err}");
        (out, err)
    }
    /// Recorded from `at(0)` to `at(1000)` it fails, says this, and leaves nothing.
    fn refused(&self, args: &[&str], says: &str) {
        let (code, _, err) = self.record(&[&["--from", &at(0), "--to", &at(1000)], args].concat());
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(says), "{err}");
        assert_eq!(self.files(), [] as [String; 0], "{err}");
    }
    fn replay(&self, args: &[&str]) -> Value {
        let all = [&["backtest", "replay", "out", "--config", "aiops.yaml", "--json"], args].concat();
        let (code, out, err) = run(self.0.path(), &all);
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).expect("JSON")
    }
    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.path().join("out")) else { return Vec::new() };
        let names = entries.map(|e| e.expect("readable").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path().join("out").join(name)).expect(name);
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// A queue that grows by 400 for a minute, told by Prometheus out of the time alone; one series for each value of a label; and
/// a question without an answer.
fn watches(url: &str) -> String {
    let (from, to) = (1_791_187_200 + 700, 1_791_187_200 + 760);
    format!(
        "prometheus: {{url: \"{url}\"}}\ncorrelate: {{anomaly_opens: always}}\ndetect:\n  watches:\n    \
         - {{name: queue_depth, query: \"vector(time() % 7 % 3 + 400 * (time() >= bool {from}) * (time() < bool {to}))\", \
         service: search, every: 5s}}\n    \
         - {{name: by_job, query: 'label_replace(vector(time() % 9), \"job\", \"shop\", \"\", \"\")', service_label: job, \
         every: 60s}}\n    \
         - {{name: nothing, query: \"vector(1) > 2\", service: search}}\n"
    )
}

#[tokio::test]
async fn the_samples_of_watches_come_from_a_real_prometheus_and_are_judged_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut prometheus = Prometheus::start("global: {}\n", dir.path()).await;
    let case = Case::new(&watches(&prometheus.url)).await;
    let (out, err) = case.recorded(&["--prometheus"]);
    // From the whole minute on, and before the end: 200 of five seconds, 17 of sixty.
    assert!(out.contains("0 log lines, 217 samples"), "{out}");
    assert!(err.contains("Prometheus has nothing for the watch nothing"), "{err}");
    assert_eq!(case.files(), ["watches-2.jsonl", "watches-3.jsonl", "watches.jsonl"]);
    let queue = case.lines("watches.jsonl");
    assert_eq!((&queue[0]["name"], &queue[0]["every"]), (&json!("queue_depth"), &json!("5s")));
    assert_eq!(queue[1]["at"], at(0));
    let jobs = case.lines("watches-2.jsonl");
    assert_eq!((&jobs[1]["service"], &jobs[1]["labels"]), (&json!("shop"), &json!({"job": "shop"})));

    let told = case.replay(&[]);
    assert_eq!(told["recording"]["counts"]["samples"], 217);
    let incident = &told["incidents"][0]["incident"];
    assert_eq!(incident["service"], "search", "{told:#}");
    assert!(incident["title"].as_str().is_some_and(|t| t.starts_with("`queue_depth` is 40")), "{incident:#}");

    // Without the watch nobody would have seen it; asked otherwise, the recording does not know.
    let without = watches(&prometheus.url).replace("name: queue_depth", "name: other");
    case.settings("changed.yaml", &without);
    let told = case.replay(&["--against", "changed.yaml"]);
    assert_eq!(each(&told["incidents"], "news"), ["gone"], "{told:#}");
    assert_eq!(told["incidents"][0]["clause"], "detect");
    let lacks = told["not_replayed"].to_string();
    assert!(lacks.contains("samples of the watch other"), "{lacks}");
    assert!(!lacks.contains("samples of the watch queue_depth"), "{lacks}");

    // Another Prometheus than the one of the settings.
    case.settings("aiops.yaml", &watches("http://127.0.0.1:9"));
    fs::remove_dir_all(case.0.path().join("out")).expect("removed");
    let (out, _) = case.recorded(&["--prometheus", &prometheus.url]);
    assert!(out.contains("217 samples"), "{out}");

    fs::remove_dir_all(case.0.path().join("out")).expect("removed");
    case.refused(&["--prometheus", &prometheus.url, "--most", "216"], "more than 216 samples and log lines");
    case.settings("aiops.yaml", &watches(&prometheus.url).replace("vector(1) > 2", "sum("));
    case.refused(
        &["--prometheus"],
        "asking Prometheus for the watch nothing: Prometheus refuses the query: ",
    );
    prometheus.child.stop();
    case.refused(&["--prometheus"], "the watch queue_depth: Prometheus cannot be reached: ");
    case.refused(&["--prometheus", "--within", "20ms"], "not done within 20ms");
}

/// What a real Prometheus scraped is recorded at its own time, whatever the pace of the watch, and each metric by its name.
#[tokio::test]
async fn what_was_scraped_is_recorded_once_and_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let prometheus = Prometheus::of_itself("1s", dir.path()).await;
    let from = aiops::clock::now();
    for _ in 0..300 {
        if prometheus.scraped_at("up").await.len() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let to = aiops::clock::now();
    let selector = r#"{__name__=~"up|process_max_fds"}"#;
    let case = Case::new(&format!(
        "prometheus: {{url: \"{}\"}}\ndetect:\n  watches:\n    - {{name: itself, name_label: __name__, \
         service_label: job, every: 15s, query: '{selector}'}}\n",
        prometheus.url
    ))
    .await;
    let (code, _, err) = case.record(&["--from", &from.to_string(), "--to", &to.to_string(), "--prometheus"]);
    assert_eq!(code, 0, "{err}");
    let recorded: Vec<(Timestamp, String)> = case.lines("watches.jsonl")[1..]
        .iter()
        .map(|line| serde_json::from_value(json!([line["at"], line["name"]])).expect("a time and a name"))
        .collect();
    for name in ["up", "process_max_fds"] {
        let of_it = |at: &i64| (from.as_millisecond()..to.as_millisecond()).contains(at);
        let scraped: Vec<i64> = prometheus.scraped_at(name).await.into_iter().filter(of_it).collect();
        let told = recorded.iter().filter(|(_, of)| of == name);
        assert_eq!(told.map(|(at, _)| at.as_millisecond()).collect::<Vec<_>>(), scraped, "{name}");
        assert!(scraped.len() > 3, "{scraped:?}");
    }

    // What the detectors said of one of them then is found anew, or not, from its samples.
    let anomaly = |name: &str| {
        json!({"at": to, "kind": "metric", "key": name, "service": "itself", "severity": "warning", "title": name,
            "detail": {"name": name}, "started_at": to, "ended_at": to})
    };
    let rows = ["up", "itself", "other"].map(|name| format!("{}\n", anomaly(name))).concat();
    fs::write(case.0.path().join("out/anomalies.jsonl"), rows).expect("written");
    let told = case.replay(&[]);
    assert_eq!(told["recording"]["counts"]["anomalies"], 4, "of itself and other, as they began and ended");
}

/// Answers range queries, but for more than 60 points at a time not, and at the first time not at all.
async fn narrow(request: Request, asked: Arc<AtomicU64>) -> Answer {
    let error = |status: u16, text: &str| Answer::json(status, json!({"status": "error", "error": text}));
    if asked.fetch_add(1, Ordering::Relaxed) == 0 {
        return error(503, "starting");
    }
    let number = |name: &str| -> i64 {
        let pairs = request.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.parse().expect("a number"))
            .next()
            .expect(name)
    };
    let (start, end, step) = (number("start"), number("end"), number("step"));
    if (end - start) / step >= 60 {
        return error(422, "query processing would load too many samples into memory in query execution");
    }
    let values: Vec<Value> = (start..=end).step_by(step as usize).map(|at| json!([at, "1"])).collect();
    let series = json!([{"metric": {"job": "shop"}, "values": values}]);
    Answer::json(200, json!({"status": "success", "data": {"resultType": "matrix", "result": series}}))
}

#[tokio::test]
async fn a_prometheus_that_gives_little_at_a_time_is_asked_in_pieces() {
    let asked: Arc<AtomicU64> = Arc::default();
    let server = fakes::serve({
        let asked = asked.clone();
        move |request| narrow(request, asked.clone())
    });
    let yaml = format!(
        "prometheus: {{url: \"{}\"}}\ndetect: {{watches: [{{name: up, query: up, service_label: job, every: 1s}}]}}\n",
        server.url
    );
    let case = Case::new(&yaml).await;
    let (out, _) = case.recorded(&["--prometheus"]);
    assert!(out.contains("1,000 samples"), "{out}");
    let times: Vec<Timestamp> = case.lines("watches.jsonl")[1..]
        .iter()
        .map(|line| line["at"].as_str().expect("a time").parse().expect("a time"))
        .collect();
    assert!(times.windows(2).all(|w| (w[1] - w[0]).get_seconds() == 1), "each once, in order");
    assert!(asked.load(Ordering::Relaxed) > 17, "in pieces");
}

#[tokio::test]
async fn flags_that_cannot_be_followed_say_why() {
    let case = Case::new("").await;
    for (args, says) in [
        (&["--prometheus"][..], "need --from"),
        (&["--elasticsearch"], "need --from"),
        (&["--from", "2026-10-01", "--elasticsearch"], "elasticsearch.urls"),
        (&["--from", "2026-10-01", "--prometheus"], "detect.watches of the settings names no query"),
        (&["--from", "2026-10-02", "--to", "2026-10-01"], "is not before --to"),
        (&["--elasticsearch", "--logs", "x"], "cannot be used with"),
    ] {
        let (code, _, err) = case.record(args);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says), "{err}");
    }
    case.settings("aiops.yaml", &watches("http://127.0.0.1:9"));
    let (code, _, err) = case.record(&["--from", "2026-10-01", "--prometheus", "ftp://x"]);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = case.record(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("the samples of detect.watches are not in it: --prometheus asks for them"), "{err}");
}

fn text(dir: &Path, name: &str, lines: &[String]) {
    fs::write(dir.join(name), lines.join("\n")).expect("written");
}

#[tokio::test]
async fn lines_and_samples_come_from_files_of_what_the_api_takes() {
    let case = Case::new("correlate: {anomaly_opens: always}\n").await;
    let dir = case.0.path();
    let line =
        |second: i64, message: &str| json!({"time": at(second), "service": "shop", "message": message});
    let usual = (0..600).map(|s| line(s, &format!("order {s} placed")).to_string());
    let mut logs: Vec<String> = usual.collect();
    logs.push(r#"{"message": "as late as the one before it", "service": "shop"}"#.into());
    logs.push(format!("[{}, {}]", line(600, "ERROR cannot pay, password=hunter2hunter2"), line(550, "late")));
    logs.push("no JSON at all".into());
    logs.push(r#"{"level": "info"}"#.into());
    logs.push(line(-5, "of another day").to_string());
    text(dir, "app.jsonl", &logs);
    text(
        dir,
        "more.jsonl",
        &[r#"{"message": "of no time"}"#.into(), line(7, "of another program").to_string()],
    );
    let value = |i: i64| (i * 7) % 3 + if (140..160).contains(&i) { 400 } else { 0 };
    let sample = |i: i64| json!({"name": "queue_depth", "service": "search", "labels": {"q": "a"}, "value": value(i), "timestamp": at(i * 5)});
    text(dir, "pushed.jsonl", &(0..200).map(|i| sample(i).to_string()).collect::<Vec<_>>());
    let flags = ["--logs", "app.jsonl", "--logs", "more.jsonl", "--metrics", "pushed.jsonl"];
    let (out, err) = case.recorded(&flags);
    assert!(out.contains("604 log lines, 200 samples"), "{out}");
    assert!(err.contains("3 records are refused: app.jsonl:603: "), "{err}");
    assert!(err.contains("1 record is of another time"), "{err}");
    assert!(err.contains("1 record is older than one before"), "{err}");
    assert_eq!(case.files(), ["logs-2.jsonl", "logs.jsonl", "metrics.jsonl"]);
    let logs = case.lines("logs.jsonl");
    assert_eq!(logs[600]["time"], at(599), "without a time of its own");
    assert_eq!(
        (&logs[601]["message"], &logs[601]["level"]),
        (&json!("ERROR cannot pay, password=***"), &json!("error"))
    );
    let told = case.replay(&[]);
    let counts = &told["recording"]["counts"];
    assert_eq!((&counts["log_lines"], &counts["samples"]), (&json!(604), &json!(200)));
    let services: Vec<&str> = told["incidents"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|i| i["incident"]["service"].as_str())
        .collect();
    assert!(services.contains(&"search"), "{told:#}");

    fs::remove_dir_all(dir.join("out")).expect("removed");
    case.refused(&["--logs", "app.jsonl", "--most", "100"], "more than 100 samples and log lines");
    case.refused(&["--logs", "nowhere.jsonl"], "nowhere.jsonl: cannot be read");
    fs::write(dir.join("long.jsonl"), vec![b'x'; (16 << 20) + 2]).expect("written");
    case.refused(&["--metrics", "long.jsonl"], "long.jsonl:1: the line is longer than 16777216 bytes");
}

#[tokio::test]
async fn log_lines_come_from_a_real_search_index_the_oldest_first() {
    let server = OpenSearch::shared().await;
    let index = unique("logs-recorded");
    server.log_index(&index).await;
    let ship = |second: i64, of: i64| {
        json!({
            "@timestamp": at(second), "message": format!("order {second}.{of} placed, token=s3cr3tvalue{of}"),
            "service": {"name": "shop"}, "log": {"level": "WARN"}, "host": {"name": "web-1"},
        })
    };
    // More than a page within one second.
    let all: Vec<Value> = (0..60)
        .map(|s| ship(s * 10, 0))
        .chain((0..1500).map(|of| ship(605, of)))
        .chain([ship(1005, 0)])
        .collect();
    server.ship(&index, &all).await;
    let yaml = format!(
        "elasticsearch: {{urls: [\"{}\"], timeout: 30s, logs: {{index: \"{index}\"}}}}\n",
        server.url
    );
    let case = Case::new(&yaml).await;
    let (out, err) = case.recorded(&["--elasticsearch"]);
    // Of a moment with so many lines a part may be left out, which is told.
    let lines = case.lines("logs.jsonl");
    assert!(lines.len() == 1560 || err.contains("the log lines are not complete: "), "{out}{err}");
    assert!(lines.len() > 1000, "{out}");
    assert_eq!((&lines[0]["time"], &lines[0]["level"]), (&json!(at(0)), &json!("warn")));
    assert_eq!(lines[0]["message"], "order 0.0 placed, token=***");
    let times: Vec<&str> = lines.iter().filter_map(|l| l["time"].as_str()).collect();
    assert!(times.is_sorted(), "the oldest first");
    assert_eq!(case.replay(&[])["recording"]["counts"]["log_lines"], lines.len());
    let (code, _, err) =
        run(case.0.path(), &["backtest", "record", "--config", "aiops.yaml", "--output", "without"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("--elasticsearch takes them"), "{err}");
    fs::remove_dir_all(case.0.path().join("out")).expect("removed");
    let nobody = peers::free_port();
    case.settings("aiops.yaml", &format!("elasticsearch: {{urls: [\"http://127.0.0.1:{nobody}\"]}}\n"));
    case.refused(
        &["--elasticsearch"],
        "asking Elasticsearch for the log lines from 2026-10-05T08:00:00Z to ",
    );
}

/// A webhook with a mapping, and topology, windows and reopening that the story below is about.
const REALLY: &str = "notify: {stdout: {when: never}}\n\
    correlate: {topology: {checkout: [payments]}, window: 1s, reopen_within: 1ms}\n\
    intake:\n  sources:\n    zabbix: {mapping: {label: {alertname: trigger, service: host}, fixed_labels: {severity: warning}, \
    annotation: {summary: text}, state: status, firing: [PROBLEM], resolved: [OK]}}\n";

/// What three services go through is recorded, and replayed it comes to the same incidents at the same moments.
async fn replays_as_it_happened(store: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let service = Service::start_in(dir.path(), &format!("{REALLY}{store}")).await;
    let send = async |name: &str, of: &str, status: &str| {
        let now = Timestamp::now();
        let labels = json!({"alertname": name, "service": of, "severity": "warning"});
        let mut alert = json!({"status": status, "labels": labels, "startsAt": now, "annotations": {"summary": format!("{name} of {of}")}});
        if status == "resolved" {
            alert["endsAt"] = now.to_string().into();
        }
        let body = json!({"version": "4", "alerts": [alert]});
        service.post("/api/v1/webhooks/alertmanager", &body).await;
        // The times of arrival tell one from the other.
        tokio::time::sleep(Duration::from_millis(150)).await;
    };
    let send_mapped = async |status: &str| {
        let body = json!({"trigger": "Full", "host": "db", "text": "Full of db", "status": status});
        service.post("/api/v1/webhooks/zabbix", &body).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    };
    send("Down", "checkout", "firing").await;
    send("Slow", "payments", "firing").await;
    send_mapped("PROBLEM").await;
    service
        .post("/api/v1/changes", &json!({"kind": "deploy", "service": "db", "summary": "db 15 → 16"}))
        .await;
    send("Down", "checkout", "resolved").await;
    send("Slow", "payments", "resolved").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    send("Down", "checkout", "firing").await;
    send_mapped("OK").await;
    let logs = json!([{"service": "db", "level": "error", "message": "no space left on device"}]);
    service.post("/api/v1/logs", &logs).await;
    let three = |list: &Value| {
        let items = list["items"].as_array()?;
        let over = items.iter().filter(|i| i["state"] == "resolved").count();
        (items.len() == 3 && over == 2).then(|| items.clone())
    };
    let really = service.until(Duration::from_secs(20), "/api/v1/incidents", "three incidents", three).await;
    let told = |v: &Value| {
        format!("{} {} {} {} {}", v["service"], v["title"], v["state"], v["severity"], v["alert_count"])
    };
    let mut expected: Vec<String> = really.iter().map(&told).collect();
    expected.sort();

    let (code, out, err) =
        run(dir.path(), &["backtest", "record", "--config", "aiops.yaml", "--output", "history"]);
    assert_eq!(code, 0, "{err}");
    let expects = ["6 beginnings and ends of alerts", "7 beginnings and ends of alerts"];
    assert!(expects.iter().any(|e| out.contains(e)), "{out}");
    assert!(out.contains("1 change,"), "{out}");
    let alerts = fs::read_to_string(dir.path().join("history/alerts.jsonl")).expect("written");
    assert!(alerts.contains(r#""source":"zabbix""#), "{alerts}");
    let (code, out, err) =
        run(dir.path(), &["backtest", "replay", "history", "--config", "aiops.yaml", "--json"]);
    assert_eq!(code, 0, "{err}");
    let replayed: Value = serde_json::from_str(&out).expect("JSON");
    let incidents = replayed["incidents"].as_array().expect("a list");
    let mut found: Vec<String> = incidents.iter().map(|i| told(&i["incident"])).collect();
    found.sort();
    assert_eq!(found, expected);
    for i in incidents {
        let twin = really.iter().find(|r| told(r) == told(&i["incident"])).expect("the same");
        let opened =
            |v: &Value| v["opened_at"].as_str().expect("a time").parse::<Timestamp>().expect("a time");
        assert_eq!(opened(&i["incident"]), opened(twin), "to the microsecond");
    }
    let (code, _, err) =
        run(dir.path(), &["backtest", "record", "--config", "aiops.yaml", "--output", "history"]);
    assert_eq!(code, 1);
    assert!(err.contains("history/alerts.jsonl is there already"), "{err}");
}

#[tokio::test]
async fn a_record_of_what_really_happened_replays_as_it_happened() {
    replays_as_it_happened("").await;
}

#[tokio::test]
async fn a_record_from_a_real_postgresql_replays_as_it_happened() {
    let url = Postgres::database().await;
    replays_as_it_happened(&format!("store: {{url: '{url}'}}\n")).await;
}
