//! How Alertmanager is set to tell us: what it leaves out, and how long it waits.

use std::time::Duration;

use serde_json::Value;

use super::symptom::Symptom;
use crate::{config::Settings, model::Severity};

/// Where it posts to us; newer versions show URLs as `<secret>`.
const PATH: &str = "/api/v1/webhooks/alertmanager";

/// The configuration of each Alertmanager that answers.
pub async fn configurations(settings: &Settings) -> Vec<(String, Value)> {
    let http = crate::http_client::new();
    let mut found = Vec::new();
    for url in &settings.alertmanager.urls {
        let status = format!("{}/api/v2/status", url.trim_end_matches('/'));
        let request =
            settings.alertmanager.auth.apply(http.get(status)).timeout(settings.alertmanager.timeout);
        let Ok(answer) = request.send().await else { continue };
        let Ok(status) = answer.json::<Value>().await else { continue };
        let text = status["config"]["original"].as_str().unwrap_or_default();
        let parsed = serde_yaml::from_str_with_options(text, crate::config::yaml_options());
        found.extend(parsed.ok().map(|configuration| (url.clone(), configuration)));
    }
    found
}

/// What is wrong with the receivers that tell us and with the routes that lead to them.
pub fn judge(url: &str, configuration: &Value, receiver: &str) -> Vec<Symptom> {
    let at = format!("Alertmanager {url}");
    let ours: Vec<&Value> = list(&configuration["receivers"]).filter(|r| is_ours(r, receiver)).collect();
    if ours.is_empty() {
        return vec![Symptom::new(
            Severity::Warning,
            at,
            "none of its receivers is a webhook to aiops",
            format!("add a receiver with a webhook to …{PATH}, as deploy/alertmanager/alertmanager.yml does"),
        )];
    }
    let mut symptoms = Vec::new();
    for receiver in &ours {
        let name = receiver["name"].as_str().unwrap_or("?");
        if list(&receiver["webhook_configs"]).any(|w| w["send_resolved"] == false) {
            symptoms.push(Symptom::new(
                Severity::Warning,
                &at,
                format!("receiver {name:?} has send_resolved: false, so incidents end late, when they are reconciled"),
                "take send_resolved: false out of its webhook_configs",
            ));
        }
    }
    let names: Vec<&str> = ours.iter().filter_map(|r| r["name"].as_str()).collect();
    let root = &configuration["route"];
    let defaults = (Duration::from_secs(30), Duration::from_secs(4 * 3600));
    routes(root, &names, root["receiver"].as_str().unwrap_or(""), defaults, &at, &mut symptoms);
    symptoms
}

fn is_ours(receiver: &Value, named: &str) -> bool {
    let webhooks = || list(&receiver["webhook_configs"]).filter_map(|w| w["url"].as_str());
    match named {
        "" => webhooks().any(|url| url.contains(PATH) || url == "<secret>"),
        named => receiver["name"] == named,
    }
}

/// A route has what its parent has, unless it says otherwise.
fn routes(
    route: &Value,
    ours: &[&str],
    receiver: &str,
    inherited: (Duration, Duration),
    at: &str,
    symptoms: &mut Vec<Symptom>,
) {
    let receiver = route["receiver"].as_str().unwrap_or(receiver);
    let wait = duration(&route["group_wait"]).unwrap_or(inherited.0);
    let repeat = duration(&route["repeat_interval"]).unwrap_or(inherited.1);
    if ours.contains(&receiver) {
        if wait > Duration::from_secs(10) {
            symptoms.push(Symptom::new(
                Severity::Info,
                at,
                format!("group_wait of the route to {receiver:?} is {wait:?}: every first page is that late"),
                "set group_wait: 0s there; aiops groups by itself",
            ));
        }
        if repeat > Duration::from_secs(12 * 3600) {
            symptoms.push(Symptom::new(
                Severity::Info,
                at,
                format!("repeat_interval of the route to {receiver:?} is {repeat:?}"),
                "set repeat_interval: 4h or less there: a repeat is how a lost delivery is noticed",
            ));
        }
    }
    for child in list(&route["routes"]) {
        routes(child, ours, receiver, (wait, repeat), at, symptoms);
    }
}

/// `1h30m`, as Prometheus writes it; humantime takes the same words.
fn duration(value: &Value) -> Option<Duration> {
    humantime::parse_duration(value.as_str()?).ok()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symptoms(yaml: &str, receiver: &str) -> Vec<String> {
        let configuration = serde_yaml::from_str(yaml).expect("YAML");
        judge("http://am", &configuration, receiver).into_iter().map(|s| s.what).collect()
    }

    #[test]
    fn what_leads_to_us_is_judged_with_what_it_inherits() {
        let yaml = "
route: {receiver: mail, group_wait: 30s, routes: [{receiver: aiops, repeat_interval: 1d}]}
receivers:
  - {name: mail, email_configs: [{to: x, send_resolved: false}]}
  - {name: aiops, webhook_configs: [{url: 'http://a:8080/api/v1/webhooks/alertmanager', send_resolved: false}]}
";
        let said = symptoms(yaml, "");
        assert_eq!(said.len(), 3, "{said:?}");
        for (what, part) in said.iter().zip(["send_resolved: false", "group_wait", "repeat_interval"]) {
            assert!(what.contains(part) && what.contains("aiops"), "{what}");
        }
        let quick = "
route: {receiver: aiops, group_wait: 0s}
receivers: [{name: aiops, webhook_configs: [{url: <secret>}]}]
";
        assert_eq!(symptoms(quick, ""), [""; 0]);
        assert!(symptoms(quick, "other")[0].contains("none of its receivers"));
    }
}
