//! More than can be handled: what is shed, in which order, that it is counted and said, and that it ends by itself.

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{peers, service::Service};

const PATIENCE: Duration = Duration::from_secs(90);

fn alerts(service: &str, severity: &str) -> Value {
    json!([{ "labels": { "alertname": "Down", "service": service, "severity": severity } }])
}

/// Log lines of thirty services.
fn logs() -> Value {
    let line = |n| json!({ "service": format!("service-{n}"), "level": "info", "message": "all is well" });
    Value::from((0..30).map(line).collect::<Vec<Value>>())
}

/// Status, `Retry-After` and body of an answer to somebody on this host.
async fn post(service: &Service, path: &str, body: &Value) -> (u16, Option<String>, Value) {
    let request = peers::http().post(format!("{}{path}", service.url)).json(body);
    let answer = request.timeout(PATIENCE).send().await.expect("it answers");
    let again = answer.headers().get("retry-after").map(|v| v.to_str().expect("ASCII").to_owned());
    (answer.status().as_u16(), again, answer.json().await.expect("JSON"))
}

async fn level(service: &Service) -> String {
    let status = service.get("/api/v1/status").await;
    status["overload"]["level"].as_str().expect("a word").to_owned()
}

async fn until_level(service: &Service, wanted: &str) {
    service
        .until(PATIENCE, "/api/v1/status", wanted, |status| {
            (status["overload"]["level"] == wanted).then_some(())
        })
        .await;
}

/// Somebody else writes into the state, and nothing can be correlated meanwhile.
async fn hold_the_state(service: &Service) -> SqliteConnection {
    let url = format!("sqlite://{}", service.data.join("aiops.db").display());
    let options = SqliteConnectOptions::from_str(&url).expect("a URL").busy_timeout(PATIENCE);
    let mut holder = SqliteConnection::connect_with(&options).await.expect("the file is there");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.expect("it becomes free");
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_sheds_telemetry_then_all_but_critical_alerts_and_ends_by_itself() {
    let dir = peers::scratch("overload");
    let service = Service::start_in(&dir, "overload: {max_age: 2s}\n").await;
    assert_eq!(level(&service).await, "normal");
    assert_eq!(post(&service, "/api/v1/logs", &logs()).await.2["sampled_out"], 0);

    let holder = hold_the_state(&service).await;
    let mut taken = BTreeSet::new();
    let (mut sampled, mut refused) = (None, None);
    let deadline = Instant::now() + PATIENCE;
    for n in 0.. {
        assert!(Instant::now() < deadline, "nothing is refused\n{}", service.child.log());
        let (status, _, counts) = post(&service, "/api/v1/logs", &logs()).await;
        if status == 200 && counts["sampled_out"].as_u64() > Some(0) {
            sampled.get_or_insert(counts);
        }
        let name = format!("service-{n}");
        match post(&service, "/api/v2/alerts", &alerts(&name, "warning")).await {
            (200, ..) => drop(taken.insert(name)),
            other => {
                refused = Some(other);
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Telemetry first: what is judged keeps its true counts, and the rest is told to the sender.
    let counts = sampled.expect("telemetry was sampled before the first alert was refused");
    let (accepted, out) = (counts["accepted"].as_u64(), counts["sampled_out"].as_u64());
    assert_eq!(accepted.zip(out).map(|(a, b)| a + b), Some(30), "{counts}");
    assert!(accepted > Some(0), "{counts}");
    let (status, again, problem) = refused.expect("a warning was refused");
    assert_eq!((status, again.as_deref()), (503, Some("10")), "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("only deliveries with a critical alert"), "{detail}");

    let (status, again, _) = post(&service, "/api/v1/logs", &logs()).await;
    assert_eq!((status, again.as_deref()), (503, Some("10")));
    let mixed = Value::from(
        [alerts("mixed-1", "warning"), alerts("mixed-2", "critical")].map(|a| a[0].clone()).to_vec(),
    );
    assert_eq!(
        post(&service, "/api/v2/alerts", &mixed).await.0,
        200,
        "a critical alert brings its neighbours"
    );
    taken.extend(["mixed-1".to_owned(), "mixed-2".to_owned()]);
    let told = service.get("/api/v1/status").await["overload"].clone();
    assert_eq!((&told["level"], &told["cause"]), (&"critical_only".into(), &"inbox_age".into()), "{told:#}");
    for counted in ["sampled_out_records", "refused_deliveries"] {
        assert!(told[counted].as_u64() > Some(0), "{counted}: {told:#}");
    }
    let metrics = peers::http().get(format!("{}/metrics", service.url)).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("text");
    for line in ["aiops_overload_level 3", "aiops_alarm_active{alarm=\"overloaded\"} 1"] {
        assert!(metrics.contains(line), "{line}");
    }

    // What is taken now would wait for too long, critical or not.
    until_level(&service, "full").await;
    let (status, again, problem) = post(&service, "/api/v2/alerts", &alerts("late", "critical")).await;
    assert_eq!((status, again.as_deref()), (503, Some("10")), "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("nothing is taken now"), "{detail}");

    let freed = Instant::now();
    drop(holder);
    until_level(&service, "normal").await;
    assert!(freed.elapsed() < Duration::from_secs(60), "{:?}", freed.elapsed());
    assert_eq!(post(&service, "/api/v2/alerts", &alerts("after", "warning")).await.0, 200);
    taken.insert("after".into());
    assert_eq!(post(&service, "/api/v1/logs", &logs()).await.2["sampled_out"], 0);
    let has_all = |page: &Value| {
        let with_incident = |a: &&Value| a["incident_id"].is_string();
        let items = page["items"].as_array()?.iter().filter(with_incident);
        let known: BTreeSet<&str> = items.filter_map(|a| a["labels"]["service"].as_str()).collect();
        taken.iter().all(|name| known.contains(name.as_str())).then_some(())
    };
    service.until(PATIENCE, "/api/v1/alerts?limit=200", "an incident for all that was taken", has_all).await;
    diagnoses_say_so(&service).await;
}

/// Diagnoses made meanwhile name what was left out.
async fn diagnoses_say_so(service: &Service) {
    let page = service.get("/api/v1/incidents?limit=200").await;
    let mut reasons = Vec::new();
    for incident in page["items"].as_array().expect("a list") {
        let whole =
            service.get(&format!("/api/v1/incidents/{}", incident["id"].as_str().expect("an id"))).await;
        let all = whole["diagnoses"].as_array().expect("all that were made");
        let missing = all.iter().filter_map(|d| d["missing"].as_array()).flatten();
        reasons.extend(missing.filter_map(|m| m["reason"].as_str().map(str::to_owned)));
    }
    for part in ["because aiops is overloaded", "because aiops was overloaded and judged some services only"]
    {
        assert!(reasons.iter().any(|r| r.contains(part)), "{part:?} is not in {reasons:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_bodies_stays_within_memory_and_critical_alerts_are_taken() {
    let dir = peers::scratch("flood");
    let service = Service::start_in(&dir, "").await;
    let line = json!({ "service": "noisy", "level": "info", "message": "x".repeat(400) }).to_string();
    let body = format!("{line}\n").repeat(9000);
    let url = format!("{}/api/v1/logs", service.url);
    let is_over = Arc::new(AtomicBool::new(false));
    let flood = (0..32).map(|_| {
        let (url, body, is_over) = (url.clone(), body.clone(), is_over.clone());
        tokio::spawn(async move {
            let http = peers::http();
            let mut statuses = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                let request = http.post(&url).header("content-type", "application/x-ndjson");
                // A connection may be closed on a body that is not wanted.
                if let Ok(answer) = request.body(body.clone()).timeout(PATIENCE).send().await {
                    statuses.insert(answer.status().as_u16());
                }
            }
            statuses
        })
    });
    let flood: Vec<_> = flood.collect();
    let (least, most) = (Instant::now() + Duration::from_secs(6), Instant::now() + PATIENCE);
    let mut taken = 0_u32;
    while taken == 0 || Instant::now() < least {
        assert!(Instant::now() < most, "no critical alert was taken\n{}", service.child.log());
        // A starved machine may be too slow for the disk's deadline, but nobody is shut out for long.
        let alert = alerts(&format!("n-{taken}"), "critical");
        let (status, _, answer) = post(&service, "/api/v2/alerts", &alert).await;
        assert!(
            status == 200 || answer["detail"].as_str().is_some_and(|d| d.contains("in time")),
            "{answer}"
        );
        taken += u32::from(status == 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for statuses in futures_util::future::join_all(flood).await {
        let statuses = statuses.expect("no panic");
        assert!(statuses.is_subset(&BTreeSet::from([200, 503])), "{statuses:?}");
    }
    let file = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).expect("it runs");
    let peak = file.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("the peak").trim();
    let kilobytes: u64 = peak.trim_end_matches("kB").trim().parse().expect("a number");
    assert!(kilobytes < 512 << 10, "{kilobytes} kB at the peak");
    until_level(&service, "normal").await;
}
