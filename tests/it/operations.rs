//! What docs/operations.md and deploy/prometheus say about our own health is about what there is.

use std::{fs, path::Path, process::Command};

use aiops::{
    admission::{Cause, Level},
    alarm::Alarm,
};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of metrics in a text.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("aiops_"))
}

#[test]
fn every_alarm_level_and_cause_is_explained_and_every_metric_exists() {
    let (page, declared) = (read("docs/operations.md"), read("src/metrics.rs"));
    let words = Alarm::ALL.iter().map(|a| a.as_str());
    let words =
        words.chain(Level::ALL.iter().map(|l| l.as_str())).chain(Cause::ALL.iter().map(|c| c.as_str()));
    for word in words {
        assert!(page.contains(&format!("`{word}`")), "docs/operations.md does not explain {word}");
    }
    for name in metrics(&page).chain(metrics(&read("deploy/prometheus/aiops.rules.yml"))) {
        assert!(declared.contains(&format!("\"{name}\"")), "{name} is no metric");
    }
}

#[test]
fn the_alerts_about_ourselves_fire_when_they_should_and_only_then() {
    let output = Command::new("promtool")
        .args(["test", "rules", "aiops.rules.test.yml"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus"))
        .output()
        .expect("promtool comes with Prometheus: tests/deps.sh");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (rules, tests) =
        (read("deploy/prometheus/aiops.rules.yml"), read("deploy/prometheus/aiops.rules.test.yml"));
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert_eq!(
            tests.matches(&format!("alertname: {name}")).count(),
            2,
            "{name}: silent once, fires once"
        );
    }
}
