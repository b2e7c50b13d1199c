//! `aiops doctor`, against a service that is well and one that is not.

use std::{
    io::Write,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{
    peers::{self, Alertmanager},
    service::Service,
};

fn doctor(service: &Service, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    command.arg("doctor").arg("--config").arg(service.dir.join("aiops.yaml")).args(args);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it can be run")
}

fn told(service: &Service) -> (Option<i32>, Value) {
    let output = doctor(service, &["--json"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// The symptom at this place, with these words in it.
fn symptom<'a>(told: &'a Value, at: &str, what: &str) -> Option<&'a Value> {
    let symptoms = told["symptoms"].as_array().expect("a list");
    symptoms.iter().find(|s| {
        s["at"].as_str().is_some_and(|a| a.contains(at))
            && s["what"].as_str().is_some_and(|w| w.contains(what))
    })
}

#[tokio::test]
async fn a_service_that_is_well_has_nothing_wrong() {
    let dir = peers::scratch("doctor");
    let service = Service::start_in(&dir, "").await;
    let (_, told) = told(&service);
    assert_eq!(told["running"], true, "{told:#}");
    assert!(told["checks"].as_u64() >= Some(20), "{told:#}");
    let symptoms = told["symptoms"].as_array().expect("a list");
    // The machine may have a slow or a full disk; nothing else is wrong.
    let of_the_machine = |what: &str| ["to be durable", "MB are free"].iter().any(|part| what.contains(part));
    let mut wrong = symptoms.iter().filter(|s| s["severity"] != "info");
    assert!(wrong.all(|s| s["what"].as_str().is_some_and(of_the_machine)), "{told:#}");
}

#[tokio::test]
async fn what_does_not_answer_and_what_is_mis_set_is_named_with_what_to_do() {
    let dir = peers::scratch("doctor-sick");
    let manager = Alertmanager::start(
        "route: {receiver: aiops, group_wait: 1m, repeat_interval: 3d}\n\
         receivers: [{name: aiops, webhook_configs: [{url: 'http://127.0.0.1:9/api/v1/webhooks/alertmanager', \
         send_resolved: false}]}]\n",
        &dir,
    )
    .await;
    let nobody = peers::free_port();
    let yaml = format!(
        "prometheus: {{url: 'http://127.0.0.1:{nobody}'}}\n\
         detect: {{watches: [{{name: up, query: up, service: shop, every: 1s}}]}}\n\
         breaker: {{failures: 3, open: 1s, open_max: 2s}}\n\
         alertmanager: {{urls: ['{}'], receiver: aiops}}\n",
        manager.url
    );
    let service = Service::start_in(&dir, &yaml).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let (code, told) = loop {
        let (code, told) = told(&service);
        if symptom(&told, "detect.watches", "0 had an answer").is_some() {
            break (code, told);
        }
        assert!(std::time::Instant::now() < deadline, "{told:#}\n{}", service.child.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(code, Some(1));
    for (at, what, severity) in [
        ("breaker prometheus", "since", "warning"),
        ("Alertmanager", "send_resolved: false", "warning"),
        ("Alertmanager", "group_wait", "info"),
        ("Alertmanager", "repeat_interval", "info"),
    ] {
        let found = symptom(&told, at, what).unwrap_or_else(|| panic!("{at}: {what}: {told:#}"));
        assert_eq!(found["severity"], severity, "{found:#}");
        assert!(found["cure"].as_str().is_some_and(|cure| cure.len() > 10), "{found:#}");
    }
    let text = String::from_utf8(doctor(&service, &[]).stdout).expect("UTF-8");
    assert!(text.contains("→ try each query in Prometheus"), "{text}");
    assert!(text.trim_end().ends_with("advice."), "{text}");
}

#[tokio::test]
async fn a_service_that_has_ended_is_examined_by_what_it_left() {
    let dir = peers::scratch("doctor-dead");
    let mut service = Service::start_in(&dir, "").await;
    service.child.stop();
    let mut file =
        std::fs::File::options().write(true).open(service.data.join("aiops.db")).expect("it is there");
    file.write_all(&[0x5a; 200]).expect("it can be written");
    let (code, told) = told(&service);
    assert_eq!((code, &told["running"]), (Some(1), &false.into()));
    for (at, what) in [("service", "does not answer"), ("aiops.db", "is damaged")] {
        let found = symptom(&told, at, what).unwrap_or_else(|| panic!("{at}: {what}: {told:#}"));
        assert_eq!(found["severity"], "critical");
    }
}
