//! Whole playbooks: what lint says, what is offered, and what a hostile label can do.

use std::{collections::BTreeMap, path::PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    config::Settings,
    model::{Action as Done, Alert, AlertState, Incident, IncidentState, Labels, Severity},
};

fn settings() -> Settings {
    let mut s = Settings::default();
    s.playbooks.dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("playbooks");
    s.playbooks.executables =
        ["/usr/bin/systemctl", "/usr/bin/kubectl", "/usr/bin/journalctl", "/usr/bin/df", "/usr/bin/uptime"]
            .map(PathBuf::from)
            .into();
    s.playbooks.http_hosts = vec!["127.0.0.1:9001".into()];
    s.playbooks.values =
        [("supervisor_url", "http://127.0.0.1:9001"), ("kubeconfig", "/etc/aiops/kubeconfig")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
    s.playbooks.auto = vec!["collect-diagnostics".into()];
    s
}

fn incident(service: &str) -> Incident {
    let at = crate::clock::from_micros(0);
    Incident {
        id: "i".into(),
        state: IncidentState::Open,
        severity: Severity::Critical,
        title: "t".into(),
        service: service.into(),
        started_at: at,
        opened_at: at,
        updated_at: at,
        last_signal_at: at,
        resolved_at: None,
        alert_count: 1,
        firing_count: 1,
        version: 1,
        episode: 1,
        flapping: false,
        suppressed: None,
        acknowledged_by: None,
        resolved_by: None,
    }
}

fn alert(labels: &[(&str, &str)]) -> Alert {
    let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let at = crate::clock::from_micros(0);
    Alert {
        fingerprint: crate::model::fingerprint(&labels),
        source: "test".into(),
        labels,
        annotations: Labels::new(),
        state: AlertState::Firing,
        starts_at: at,
        ends_at: None,
        expires_at: None,
        generator_url: String::new(),
        incident_id: None,
        last_seen_at: at,
    }
}

fn said(text: &str) -> String {
    let mut catalog =
        Catalog { playbooks: BTreeMap::new(), findings: Vec::new(), ..Catalog::read(&settings()) };
    catalog.findings.clear();
    catalog.add("x.yaml", text);
    catalog.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_playbooks_are_clean() {
    let catalog = Catalog::read(&settings());
    assert_eq!(catalog.findings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let ids: Vec<_> = catalog.playbooks.keys().map(String::as_str).collect();
    assert_eq!(
        ids,
        ["clear-journal", "collect-diagnostics", "restart-by-http", "restart-service", "scale-deployment"]
    );
    assert!(catalog.is_auto("collect-diagnostics"));
    assert!(!catalog.is_auto("restart-service"));
}

#[test]
fn without_settings_nothing_is_allowed_and_it_says_what_to_set() {
    let mut bare = settings();
    bare.playbooks = crate::config::Playbooks { dir: bare.playbooks.dir, ..Default::default() };
    let catalog = Catalog::read(&bare);
    assert!(!catalog.has_errors());
    assert!(catalog.playbooks.values().all(|l| l.not_allowed.is_some()));
    let texts: Vec<_> = catalog.findings.iter().map(ToString::to_string).collect();
    let of = |file: &str| {
        texts.iter().filter_map(|t| t.find(file).map(|at| t[at..].to_owned())).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(of("restart-by-http"), @"restart-by-http.yaml:19:5: not allowed: params.supervisor: the setting playbooks.values.supervisor_url is not there; set it to use this playbook");
    insta::assert_snapshot!(of("clear-journal"), @"clear-journal.yaml:33:21: not allowed: steps[0].run.command[0]: journalctl is not in the settings' playbooks.executables; add its absolute path there to allow it");
}

const GOOD: &str = "id: x
title: T
description: D
match: [{service: s}]
target: t
read_only: true
steps: [{id: a, run: {wait: 1s}}]
";

#[test]
fn lint_says_where_and_what_would_be_right() {
    assert_eq!(said(GOOD), "");
    insta::assert_snapshot!(said(&GOOD.replace("title: T", "titel: T")), @"x.yaml:2:1: error: unknown field `titel`, expected one of id, title, title_ru, description, match, params, target, read_only, approval, guards, steps, verify, rollback, on_failure");
    insta::assert_snapshot!(said(&GOOD.replace("wait: 1s", "shell: rm")), @"x.yaml:7:23: error: unknown variant `shell`, expected one of command, http, prometheus, wait, notify");
    insta::assert_snapshot!(said(&GOOD.replace("title: T", "title: 'x {{ 7*7 }}'")), @"x.yaml:2:8: error: {{ 7*7 }} is not the name of a parameter; write {{ name }}");
    insta::assert_snapshot!(said(&GOOD.replace("target: t", "target: '{{ service }}'")), @"x.yaml:5:9: error: target: {{ service }} is not a parameter; there are none");
    insta::assert_snapshot!(said(&GOOD.replace("read_only: true", "read_only: false")), @r#"
x.yaml:1:1: advice: on_failure: is missing, and there is no rollback; say what a human should do when it did not help
x.yaml:1:1: error: verify: is missing: without it nobody knows whether it helped; add it, or `read_only: true`
"#);
    insta::assert_snapshot!(said(&GOOD.replace("[{service: s}]", "[{}]")), @"x.yaml:4:9: error: match[0]: asks for nothing and would fit every incident; name labels, service or anomaly");
    insta::assert_snapshot!(said(&GOOD.replace("{wait: 1s}", "{command: [bash, -c, x]}, retries: 2")), @"x.yaml:7:57: error: steps[0].retries: would do the step again although half of it may be done; add `idempotent: true` if that is harmless");
}

#[test]
fn lint_knows_every_rule() {
    let text = r#"id: Bad Id
title: T
description: D
match: [{labels: {a: b}}]
params:
  unused: {type: string}
  n: {type: integer, pattern: x, default: many}
  loose: {type: string, from: label x, pattern: ".*"}
  base: {type: url}
target: "{{ n }}{{ loose }}{{ base }}"
steps:
  - {id: a, run: {command: [systemctl, x]}, retries: 1}
  - {id: a, run: {wait: 2h}}
verify: {within: 5s, for: 10s, probes: []}
rollback: []
"#;
    insta::assert_snapshot!(said(text), @r#"
x.yaml:1:1: advice: on_failure: is missing, and there is no rollback; say what a human should do when it did not help
x.yaml:1:5: error: id: "Bad Id" must be lower-case letters, digits and -, beginning with a letter
x.yaml:6:11: advice: params.unused: is used nowhere
x.yaml:7:31: error: params.n.pattern: is for type string; this is of type integer
x.yaml:7:43: error: params.n.default: is "many", not a whole number
x.yaml:8:49: advice: params.loose.pattern: admits "--force", and the value comes from outside; narrow it, as in [a-z0-9-]{1,63}
x.yaml:9:9: error: params.base: a url comes from the settings only; write `from: setting NAME`
x.yaml:12:3: error: steps: timeouts and retries add up to 2h 2m 5s, more than the settings' playbooks.max_duration of 1h
x.yaml:12:54: error: steps[0].retries: would do the step again although half of it may be done; add `idempotent: true` if that is harmless
x.yaml:13:10: error: steps[1].id: "a" is the id of an earlier step
x.yaml:14:18: error: verify.within: 5s is over before the probes can have held for 10s, asked every 5s
x.yaml:14:40: error: verify.probes: must hold at least one probe
"#);
    let text = r#"id: x
title: T
description: D
match: [{labels: {a: b}}]
params:
  s: {type: string, from: label s}
target: t
steps:
  - {id: a, run: {command: [systemctl, "{{ s }}"]}}
  - {id: b, run: {command: ["{{ s }}"]}}
  - {id: c, run: {http: {url: "http://{{ s }}/", headers: {Authorization: x}}}}
  - {id: d, run: {http: {url: "http://other:1/"}}}
  - {id: e, run: {prometheus: {query: "up == {{ s }}", expect: present}}}
  - {id: f, run: {wait: "{{ s }}"}}
verify: {within: 1m, probes: [{command: [df]}]}
on_failure: x
"#;
    insta::assert_snapshot!(said(text), @r#"
x.yaml:10:29: error: steps[1].run.command[0]: the executable may not be a parameter; write its name
x.yaml:11:31: error: steps[2].run.http.url: {{ s }} may not be part of the scheme, host or port; use a parameter of type url, from a setting
x.yaml:12:31: not allowed: steps[3].run.http.url: other:1 is not in the settings' playbooks.http_hosts; add it there to allow it
x.yaml:13:39: error: steps[4].run.prometheus.query: {{ s }} must stand within double quotes, as in {label="{{ s }}"}; only integers and durations may stand outside
x.yaml:14:25: error: steps[5].run.wait: {{ s }} must be of type duration
"#);
}

#[test]
fn duplicate_ids_name_both_files() {
    let mut catalog = Catalog::read(&settings());
    catalog.add("again.yaml", GOOD);
    catalog.add("twice.yaml", GOOD);
    insta::assert_snapshot!(catalog.findings[0], @r#"twice.yaml:1:1: error: id: "x" is the id of again.yaml too; ids are unique"#);
    assert_eq!(catalog.playbooks["x"].file, "again.yaml");
}

#[test]
fn offers_bind_what_the_incident_knows() {
    let catalog = Catalog::read(&settings());
    let incident = incident("checkout");
    let alerts = [alert(&[("alertname", "ServiceDown"), ("unit", "checkout"), ("job", "shop")])];
    let facts = Facts { incident: &incident, alerts: &alerts, anomalies: &[] };
    let (offers, refusals) = catalog.offers(&facts);
    let titles: Vec<_> = offers.iter().map(|o| o.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "Collect diagnostics about checkout.service",
            "Restart checkout through its supervisor",
            "Restart checkout.service on this host"
        ]
    );
    assert_eq!(offers[2].params["unit"].bound, Some(json!("checkout")));
    assert_eq!(refusals, []);
    let plan = catalog.plan("restart-service", &BTreeMap::new(), Some(&facts)).expect("a plan");
    assert_eq!(plan.target, "systemd/checkout");
    assert_eq!(
        plan.steps[0].action,
        Done::Command {
            argv: ["/usr/bin/systemctl", "restart", "checkout.service"].map(String::from).into()
        }
    );
    let other = [("unit".to_owned(), json!("sshd"))].into();
    let why = catalog.plan("restart-service", &other, Some(&facts)).unwrap_err().why;
    insta::assert_snapshot!(why, @r#"unit is taken from elsewhere ("checkout") and cannot be chosen"#);
    let why = catalog.plan("clear-journal", &BTreeMap::new(), Some(&facts)).unwrap_err().why;
    insta::assert_snapshot!(why, @"clear-journal does not fit this incident");
}

#[test]
fn alerts_that_disagree_bind_nothing() {
    let catalog = Catalog::read(&settings());
    let incident = incident("checkout");
    let alerts = ["a", "b"].map(|u| alert(&[("alertname", "ServiceDown"), ("unit", u), ("job", "shop")]));
    let facts = Facts { incident: &incident, alerts: &alerts, anomalies: &[] };
    let (_, refusals) = catalog.offers(&facts);
    let why: Vec<_> = refusals.iter().map(|r| r.why.as_str()).collect();
    assert!(
        why.contains(&"unit comes from the label unit, for which the alerts have 2 different values"),
        "{why:?}"
    );
}

#[test]
fn the_schema_on_disk_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/playbook.schema.json");
    let current = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    if on_disk != current {
        std::fs::create_dir_all(path.parent().expect("docs")).expect("docs can be made");
        std::fs::write(&path, &current).expect("the schema can be written");
        panic!("{} was out of date and has been written anew; commit it", path.display());
    }
}

const HOSTILE: [&str; 9] = [
    "; rm -rf /",
    "$(x)",
    "`x`",
    "--flag",
    "a\nb",
    "{{7*7}}",
    "{{ job }}",
    "../../etc",
    "a' or \"b\"} or vector(1)",
];

/// A playbook whose parameter admits nearly everything: its place must hold it all the same.
const LOOSE: &str = r#"id: loose
title: "T {{ x }}"
description: D
match: [{service: s}]
params: {x: {type: string, from: label x, pattern: "(?s).*", max_length: 1000}}
target: "t/{{ x }}"
steps:
  - {id: a, run: {command: [df, "--x={{ x }}", "{{ x }}"]}}
  - {id: b, run: {http: {method: POST, url: "http://127.0.0.1:9001/a/{{ x }}/b?c={{ x }}", body: {k: "{{ x }}", l: ["p{{ x }}"]}}}}
  - {id: c, run: {prometheus: {query: 'up{job="{{ x }}"}', expect: present}}}
verify: {within: 1m, probes: [{command: [df]}]}
on_failure: x
"#;

fn loose_plan(value: &str) -> Result<crate::model::Plan, Refusal> {
    let mut catalog = Catalog::read(&settings());
    catalog.add("loose.yaml", LOOSE);
    let incident = incident("s");
    let alerts = [alert(&[("x", value)])];
    catalog.plan(
        "loose",
        &BTreeMap::new(),
        Some(&Facts { incident: &incident, alerts: &alerts, anomalies: &[] }),
    )
}

fn stays_in_place(value: &str) {
    let Ok(plan) = loose_plan(value) else { return };
    let Done::Command { argv } = &plan.steps[0].action else { panic!("a command") };
    assert_eq!(argv.as_slice(), ["/usr/bin/df".to_owned(), format!("--x={value}"), value.to_owned()]);
    assert!(!value.starts_with('-'));
    let Done::Http { url, body, .. } = &plan.steps[1].action else { panic!("a request") };
    let url = reqwest::Url::parse(url).expect("a URL");
    assert_eq!((url.host_str(), url.port()), (Some("127.0.0.1"), Some(9001)));
    assert_eq!(url.path_segments().map(Iterator::count), Some(3));
    assert_eq!(url.query_pairs().count(), 1);
    assert_eq!(body, &Some(json!({"k": value, "l": [format!("p{value}")]})));
}

#[test]
fn hostile_labels_never_leave_their_place() {
    HOSTILE.iter().for_each(|v| stays_in_place(v));
    assert!(loose_plan("--flag").is_err());
    assert!(loose_plan("a\nb").is_err());
    let catalog = Catalog::read(&settings());
    let incident = incident("checkout");
    for value in HOSTILE {
        let alerts = [alert(&[("alertname", "ServiceDown"), ("unit", value), ("job", "shop")])];
        let facts = Facts { incident: &incident, alerts: &alerts, anomalies: &[] };
        let refused = catalog.plan("restart-service", &BTreeMap::new(), Some(&facts)).unwrap_err();
        let clause = refused.clause.rsplit('/').next().unwrap_or_default();
        assert!(
            ["restart-service.yaml params.unit", "restart-service.yaml match"].contains(&clause),
            "{refused:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_value_makes_another_argument(value in "\\PC{0,60}") {
        stays_in_place(&value);
    }
    #[test]
    fn parsing_never_panics(text in "(\\PC|\\n| |: |- |\\{\\{){0,200}") {
        let _ = parse("x", &text);
    }
}
