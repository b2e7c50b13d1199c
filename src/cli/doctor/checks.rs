//! The checks: one function and one line in the table for each.

use serde_json::Value;

use super::{Scene, alertmanager, findings_of, symptom::Symptom};
use crate::{cli::check, cli::output, model::Severity};

type Check = fn(&Scene) -> Vec<Symptom>;

/// Every check, in the order in which symptoms of one severity are shown.
pub const TABLE: &[Check] = &[
    answers,
    damage,
    room,
    write_ahead_log,
    disk_speed,
    overload,
    inbox,
    jobs,
    failing_jobs,
    dead_rows,
    settings_and_alarms,
    dropped,
    unjudged,
    watches,
    models,
    logins,
    panics,
    clock_steps,
    clock_skew,
    open_files,
    memory_limits,
    versions,
    open_doors,
    alertmanagers,
];

const GIGABYTE: u64 = 1 << 30;
/// Share of what was asked that may fail before it is a symptom.
const FAILING: f64 = 0.5;

fn one(severity: Severity, at: &str, what: impl Into<String>, cure: impl Into<String>) -> Vec<Symptom> {
    vec![Symptom::new(severity, at, what, cure)]
}

fn answers(scene: &Scene) -> Vec<Symptom> {
    match &scene.service {
        Ok(told) => match told.status["not_ready"].as_str() {
            Some(why) => one(
                Severity::Critical,
                "service",
                format!("not ready: {why}"),
                "restart it; its log says why the part ended",
            ),
            None => Vec::new(),
        },
        Err(why) => one(
            Severity::Critical,
            "service",
            format!("does not answer: {why}"),
            "`systemctl status aiops` and its log say why; what follows is from the files alone",
        ),
    }
}

fn damage(scene: &Scene) -> Vec<Symptom> {
    let of = |(file, why): &(String, String)| {
        let cure = "stop the service, copy the data directory away, look at the disk, and restore the last backup (`aiops restore`)";
        Symptom::new(Severity::Critical, file, format!("is damaged: {why}"), cure)
    };
    scene.disk.damaged.iter().map(of).collect()
}

fn room(scene: &Scene) -> Vec<Symptom> {
    let (Some(free), Some(share)) = (scene.disk.free_bytes, scene.disk.free_share) else { return Vec::new() };
    let severity = match free {
        _ if free < GIGABYTE / 5 => Severity::Critical,
        _ if free < GIGABYTE || share < 0.05 => Severity::Warning,
        _ => return Vec::new(),
    };
    one(
        severity,
        &data_dir(scene),
        format!("{} MB are free; when none is, senders are told 503", free >> 20),
        "make room, or move data_dir; store.retention says how long things are kept",
    )
}

fn write_ahead_log(scene: &Scene) -> Vec<Symptom> {
    match scene.disk.wal_bytes {
        Some(bytes @ 268_435_456..) => one(
            Severity::Warning,
            &data_dir(scene),
            format!(
                "a write-ahead log has grown to {} MB: something reads the database for long",
                bytes >> 20
            ),
            "end what reads it from outside (sqlite3, a backup that hangs); a restart shortens it",
        ),
        _ => Vec::new(),
    }
}

fn disk_speed(scene: &Scene) -> Vec<Symptom> {
    let Some(sync) = scene.disk.sync else { return Vec::new() };
    let severity = match sync.as_millis() {
        0..20 => return Vec::new(),
        20..100 => Severity::Info,
        _ => Severity::Warning,
    };
    one(
        severity,
        &data_dir(scene),
        format!("a write takes {sync:.0?} to be durable; every acknowledged alert waits for one"),
        "use a local SSD for data_dir, and see what else writes there (iostat -x 1)",
    )
}

fn overload(scene: &Scene) -> Vec<Symptom> {
    let Some(status) = scene.status() else { return Vec::new() };
    let overload = &status["overload"];
    let level = overload["level"].as_str().unwrap_or("normal");
    let severity = match level {
        "normal" => return Vec::new(),
        "strained" => Severity::Info,
        _ => Severity::Warning,
    };
    let (since, cause) = (word(&overload["since"]), word(&overload["cause"]));
    one(
        severity,
        "overload",
        format!("{level} since {since}, because of {cause}"),
        "docs/operations.md, \"Overload\": what is shed at this level, and what to do about each cause",
    )
}

fn inbox(scene: &Scene) -> Vec<Symptom> {
    let age = queue(scene, "inbox_age_seconds");
    if age < 5 {
        return Vec::new();
    }
    let severity = if age < 15 { Severity::Warning } else { Severity::Critical };
    let waiting = queue(scene, "inbox");
    one(
        severity,
        "inbox",
        format!(
            "{waiting} acknowledged deliveries wait for correlation, the oldest for {}",
            output::age(age)
        ),
        "see the service's log for errors of the store, the disk's latency, and who sends most (aiops_intake_items_total)",
    )
}

fn jobs(scene: &Scene) -> Vec<Symptom> {
    let late = queue(scene, "jobs_overdue_seconds");
    if late < 10 {
        return Vec::new();
    }
    let severity = if late < 60 { Severity::Warning } else { Severity::Critical };
    one(
        severity,
        "jobs",
        format!("{} jobs wait, one has been due for {}", queue(scene, "jobs"), output::age(late)),
        "32 jobs are done at a time: see which kinds take long (aiops_job_seconds) and which breakers are open",
    )
}

fn failing_jobs(scene: &Scene) -> Vec<Symptom> {
    let failing = scene.status().map(|s| &s["failing_jobs"]).and_then(Value::as_array);
    let of = |job: &Value| {
        let (kind, subject, attempts) = (word(&job["kind"]), word(&job["subject"]), word(&job["attempts"]));
        Symptom::new(
            Severity::Warning,
            format!("job {kind}"),
            format!("about {subject} has failed {attempts} times: {}", word(&job["last_error"])),
            format!(
                "mend what the error names; it is tried again by itself. `aiops incident show {subject}` tells the story"
            ),
        )
    };
    failing.into_iter().flatten().map(of).collect()
}

fn dead_rows(scene: &Scene) -> Vec<Symptom> {
    match counted(scene, "aiops_inbox_dead_total", "") {
        0 => Vec::new(),
        n => one(
            Severity::Critical,
            "inbox",
            format!(
                "{n} deliveries could not be read back since the start; they are kept in the table inbox_dead"
            ),
            "report it with the rows: they were acknowledged, and nothing was made of them",
        ),
    }
}

/// What `check` sees on the disk, and the alarms, channels and breakers of the service.
fn settings_and_alarms(scene: &Scene) -> Vec<Symptom> {
    let of = |found: check::Finding| {
        let severity = match found.level {
            check::Level::Ok => return None,
            check::Level::Advice => Severity::Info,
            check::Level::Error => Severity::Warning,
        };
        let cure = match found.at.split(' ').next().unwrap_or_default() {
            "alarm" => "docs/operations.md, \"Alarms\", says what each one means",
            "channel" => "`aiops check` tries the channel; while it fails, people are not told there",
            "breaker" => {
                "mend that service; it is asked again by itself, and diagnoses say what is missing meanwhile"
            }
            _ => "as it says",
        };
        Some(Symptom::new(severity, found.at, found.message, cure))
    };
    // Whether it is ready is a check of its own.
    findings_of(scene).into_iter().filter(|found| found.at != "server").filter_map(of).collect()
}

fn dropped(scene: &Scene) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for (name, what, cure) in [
        (
            "aiops_intake_shed_total",
            "items were not taken because the service was under pressure; their senders were told 503",
            "see aiops_intake_shed_total by kind; senders that do not come again lose them",
        ),
        (
            "aiops_intake_sampled_out_total",
            "records were left out of detection because of overload",
            "docs/operations.md, \"Overload\"",
        ),
        (
            "aiops_intake_rejected_total",
            "items were malformed",
            "the answers to the senders say which and why; see aiops_intake_rejected_total by kind",
        ),
    ] {
        let count = counted(scene, name, "");
        if count > 0 {
            symptoms.push(Symptom::new(
                Severity::Info,
                "intake",
                format!("{count} {what}, since the start"),
                cure,
            ));
        }
    }
    symptoms
}

fn unjudged(scene: &Scene) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for (reason, what, cure) in [
        (
            "late",
            "log lines came too late to be judged",
            "let shippers send more often, or raise detect.lateness",
        ),
        ("services", "records were about more services than are watched", "raise detect.max_services"),
        (
            "series",
            "samples were of more series than are watched",
            "raise detect.max_series, or send fewer labels",
        ),
    ] {
        let count = counted(scene, "aiops_detect_unjudged_total", &format!("reason=\"{reason}\""));
        let judged = counted(scene, "aiops_detect_records_total", "");
        if count > 100 && count as f64 > 0.01 * judged as f64 {
            symptoms.push(Symptom::new(Severity::Info, "detection", format!("{count} {what}"), cure));
        }
    }
    symptoms
}

fn watches(scene: &Scene) -> Vec<Symptom> {
    let pulls = |result: &str| counted(scene, "aiops_watch_pulls_total", result);
    let (all, answered) = (pulls(""), pulls("result=\"answered\""));
    if all < 5 || answered as f64 >= FAILING * all as f64 {
        return Vec::new();
    }
    one(
        Severity::Warning,
        "detect.watches",
        format!("of {all} questions to Prometheus {answered} had an answer"),
        "try each query in Prometheus: an empty answer is no health, and its service counts as unknown",
    )
}

fn models(scene: &Scene) -> Vec<Symptom> {
    let attempts = |result: &str| counted(scene, "aiops_llm_attempts_total", result);
    let (all, answered) = (attempts(""), attempts("result=\"answered\""));
    if all < 5 || answered as f64 >= FAILING * all as f64 {
        return Vec::new();
    }
    one(
        Severity::Info,
        "llm",
        format!(
            "of {all} questions to language models {answered} were answered well; diagnoses come from the rules"
        ),
        "see aiops_llm_attempts_total by result; `aiops check` tries each model",
    )
}

fn logins(scene: &Scene) -> Vec<Symptom> {
    match counted(scene, "aiops_auth_failures_total", "") {
        0..50 => Vec::new(),
        n => one(
            Severity::Info,
            "http",
            format!("{n} requests came with a token that is none"),
            "look for a sender with an old token, or for somebody who guesses",
        ),
    }
}

fn panics(scene: &Scene) -> Vec<Symptom> {
    match counted(scene, "aiops_http_panics_total", "") {
        0 => Vec::new(),
        n => one(
            Severity::Warning,
            "http",
            format!("{n} requests ended in a panic"),
            "report it with the lines of the log around it",
        ),
    }
}

fn clock_steps(scene: &Scene) -> Vec<Symptom> {
    match counted(scene, "aiops_clock_steps_total", "") {
        0 => Vec::new(),
        n => one(
            Severity::Warning,
            "clock",
            format!("the wall clock was set {n} times by more than five seconds, or the machine slept"),
            "let chrony or systemd-timesyncd slew it; detection starts anew after a step back",
        ),
    }
}

fn clock_skew(scene: &Scene) -> Vec<Symptom> {
    let wrong = scene.clocks.iter().filter(|(_, ahead)| ahead.abs() > 5);
    let of = |(who, ahead): &(String, i64)| {
        let way = if *ahead > 0 { "ahead of" } else { "behind" };
        let cure = "synchronise both by NTP: onsets, windows and leases are compared across hosts";
        Symptom::new(
            Severity::Warning,
            format!("clock of {who}"),
            format!("is {} s {way} this machine's", ahead.abs()),
            cure,
        )
    };
    wrong.map(of).collect()
}

fn open_files(scene: &Scene) -> Vec<Symptom> {
    let Some(process) = &scene.process else { return Vec::new() };
    let http = &scene.loaded.settings.http;
    let wanted = (http.workers * http.max_connections) as u64 + 100;
    match (process.open_files, process.most_files) {
        (Some(open), Some(most)) if open * 10 > most * 8 => one(
            Severity::Warning,
            "open files",
            format!("{open} of {most} are open"),
            "raise LimitNOFILE (systemd) or ulimit -n, and see who keeps so many connections",
        ),
        (_, Some(most)) if most < wanted => one(
            Severity::Info,
            "open files",
            format!("{most} may be open, and http.workers × http.max_connections would need {wanted}"),
            "raise LimitNOFILE (systemd) or ulimit -Hn, or lower http.max_connections",
        ),
        _ => Vec::new(),
    }
}

fn memory_limits(scene: &Scene) -> Vec<Symptom> {
    let settings = &scene.loaded.settings.overload;
    let Some(most) = scene.process.as_ref().and_then(|p| p.most_memory) else { return Vec::new() };
    if settings.max_memory != 0 && settings.max_memory as u64 <= most / 10 * 9 {
        return Vec::new();
    }
    one(
        Severity::Warning,
        "overload.max_memory",
        format!("is {}, and the kernel ends the process at {most} bytes", settings.max_memory),
        format!("set it to {} or less, so that load is shed before that", most / 10 * 9),
    )
}

fn versions(scene: &Scene) -> Vec<Symptom> {
    let running = scene.status().and_then(|s| s["version"].as_str());
    match running {
        Some(running) if running != env!("CARGO_PKG_VERSION") => one(
            Severity::Info,
            "version",
            format!("the service is {running}, this command {}", env!("CARGO_PKG_VERSION")),
            "restart the service after an upgrade",
        ),
        _ => Vec::new(),
    }
}

fn open_doors(scene: &Scene) -> Vec<Symptom> {
    let settings = &scene.loaded.settings;
    let address: Option<std::net::SocketAddr> = settings.listen.parse().ok();
    if address.is_none_or(|a| a.ip().is_loopback()) || settings.public_url.starts_with("https://") {
        return Vec::new();
    }
    one(
        Severity::Info,
        "listen",
        format!("{} is reached from elsewhere without TLS: tokens can be read on the way", settings.listen),
        "listen on loopback behind a proxy with TLS, and set public_url to its https:// address",
    )
}

fn alertmanagers(scene: &Scene) -> Vec<Symptom> {
    let receiver = &scene.loaded.settings.alertmanager.receiver;
    scene.alertmanagers.iter().flat_map(|(url, conf)| alertmanager::judge(url, conf, receiver)).collect()
}

fn data_dir(scene: &Scene) -> String {
    scene.loaded.settings.data_dir.display().to_string()
}

fn queue(scene: &Scene, name: &str) -> u64 {
    scene.status().and_then(|s| s["queues"][name].as_u64()).unwrap_or(0)
}

fn counted(scene: &Scene, name: &str, labels: &str) -> u64 {
    scene.metrics().map_or(0, |m| m.count(name, labels))
}

/// A value of the status, as it is shown.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{
        super::{Told, disk::Disk, metrics::Metrics, process::Process},
        *,
    };
    use crate::config::{Loaded, Settings};

    fn scene(status: Value, metrics: &str) -> Scene {
        Scene {
            loaded: Loaded { settings: Settings::default(), file: None, env: Vec::new() },
            service: Ok(Told { status, metrics: Metrics::parse(metrics) }),
            disk: Disk::default(),
            process: None,
            clocks: Vec::new(),
            alertmanagers: Vec::new(),
        }
    }

    fn found(scene: &Scene) -> Vec<(Severity, String)> {
        TABLE
            .iter()
            .flat_map(|check| check(scene))
            .map(|s| (s.severity, format!("{}: {}", s.at, s.what)))
            .collect()
    }

    #[test]
    fn a_healthy_service_has_no_symptoms() {
        assert_eq!(found(&scene(json!({}), "")), []);
    }

    #[test]
    fn each_sickness_has_its_symptom() {
        type Sicken = fn(&mut Scene);
        let cases: &[(Sicken, Severity, &str)] = &[
            (|s| s.service = Err("refused".into()), Severity::Critical, "service: does not answer: refused"),
            (
                |s| s.disk.damaged.push(("aiops.db".into(), "page 7".into())),
                Severity::Critical,
                "aiops.db: is damaged: page 7",
            ),
            (
                |s| (s.disk.free_bytes, s.disk.free_share) = (Some(1 << 20), Some(0.5)),
                Severity::Critical,
                "data: 1 MB are free",
            ),
            (
                |s| (s.disk.free_bytes, s.disk.free_share) = (Some(1 << 40), Some(0.01)),
                Severity::Warning,
                "MB are free",
            ),
            (|s| s.disk.wal_bytes = Some(1 << 29), Severity::Warning, "write-ahead log has grown to 512 MB"),
            (|s| s.disk.sync = Some(Duration::from_millis(250)), Severity::Warning, "a write takes 250ms"),
            (
                |s| s.clocks.push(("Prometheus".into(), -40)),
                Severity::Warning,
                "clock of Prometheus: is 40 s behind",
            ),
            (
                |s| {
                    s.process =
                        Some(Process { open_files: Some(90), most_files: Some(100), most_memory: None })
                },
                Severity::Warning,
                "open files: 90 of 100",
            ),
            (
                |s| {
                    s.process =
                        Some(Process { open_files: None, most_files: None, most_memory: Some(256 << 20) })
                },
                Severity::Warning,
                "the kernel ends the process at 268435456 bytes",
            ),
            (|s| s.loaded.settings.listen = "0.0.0.0:80".into(), Severity::Info, "without TLS"),
        ];
        for (sicken, severity, what) in cases {
            let mut scene = scene(json!({}), "");
            sicken(&mut scene);
            let found = found(&scene);
            assert!(found.iter().any(|(s, text)| s == severity && text.contains(what)), "{what}: {found:?}");
        }
    }

    #[test]
    fn what_a_service_tells_of_itself_is_read() {
        let status = json!({
            "version": "0.0.1",
            "not_ready": "the part detect has ended",
            "overload": { "level": "shedding", "since": "2026-11-21T02:00:00Z", "cause": "bus_fill" },
            "queues": { "inbox": 7, "inbox_age_seconds": 20, "jobs": 9, "jobs_overdue_seconds": 70 },
            "failing_jobs": [{ "kind": "diagnose", "subject": "i1", "attempts": 9, "last_error": "no route" }],
            "alarms": [{ "alarm": "inbox_aging", "text": "7 wait" }],
            "breakers": [{ "name": "prometheus", "state": "open", "since": "x", "last_error": "refused" }],
        });
        let metrics = "aiops_watch_pulls_total{result=\"failed\"} 9\naiops_inbox_dead_total 1\naiops_http_panics_total 2\n\
                       aiops_intake_shed_total{kind=\"logs\"} 5\naiops_clock_steps_total{direction=\"back\"} 1\n";
        let found = found(&scene(status, metrics));
        for (severity, what) in [
            (Severity::Critical, "not ready: the part detect has ended"),
            (Severity::Warning, "overload: shedding since 2026-11-21T02:00:00Z, because of bus_fill"),
            (Severity::Critical, "7 acknowledged deliveries wait for correlation, the oldest for 20 s"),
            (Severity::Critical, "9 jobs wait, one has been due for 70 s"),
            (Severity::Warning, "about i1 has failed 9 times: no route"),
            (Severity::Warning, "alarm: 7 wait"),
            (Severity::Warning, "breaker prometheus: open since x"),
            (Severity::Warning, "of 9 questions to Prometheus 0 had an answer"),
            (Severity::Critical, "1 deliveries could not be read back"),
            (Severity::Warning, "2 requests ended in a panic"),
            (Severity::Info, "5 items were not taken"),
            (Severity::Warning, "was set 1 times"),
            (Severity::Info, "the service is 0.0.1"),
        ] {
            assert!(
                found.iter().any(|(s, text)| *s == severity && text.contains(what)),
                "{what}: {found:#?}"
            );
        }
    }
}
