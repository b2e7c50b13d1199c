//! How signals become incidents.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};
use crate::model::{Labels, Matchers, all_match};

crate::model::words!(
    /// Whether anomalies that no alert explains may open an incident.
    AnomalyOpens {
        Never = "never",
        /// Two different detectors agree about one service within the window.
        Corroborated = "corroborated",
        Always = "always",
    }
);

/// Grouping, flapping, maintenance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Correlate {
    /// The labels that may name the service, the first one present wins.
    pub service_labels: Vec<String>,
    /// Signals of one service and its neighbours that begin within this time of each other form one incident.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// An alert that fires again this soon after its incident was resolved reopens it.
    #[serde(with = "humantime_serde")]
    pub reopen_within: Duration,
    /// What each service calls: `{checkout: [payments, postgres]}`.
    pub topology: BTreeMap<String, Vec<String>>,
    pub anomaly_opens: AnomalyOpens,
    /// So many openings and resolutions within `flap_within` make an incident flapping.
    pub flap_count: u32,
    #[serde(with = "humantime_serde")]
    pub flap_within: Duration,
    /// A flapping incident is told of again when it has been quiet for so long.
    #[serde(with = "humantime_serde")]
    pub flap_quiet: Duration,
    /// Times and labels for which incidents open without a message.
    pub maintenance: Vec<MaintenanceWindow>,
}

impl Default for Correlate {
    fn default() -> Self {
        Self {
            service_labels: ["service", "app", "app_kubernetes_io_name", "deployment", "job"]
                .map(String::from)
                .into(),
            window: Duration::from_secs(300),
            reopen_within: Duration::from_secs(1800),
            topology: BTreeMap::new(),
            anomaly_opens: AnomalyOpens::Corroborated,
            flap_count: 3,
            flap_within: Duration::from_secs(600),
            flap_quiet: Duration::from_secs(300),
            maintenance: Vec::new(),
        }
    }
}

impl Correlate {
    /// The services that this one calls, then those that call it.
    pub fn neighbours(&self, service: &str) -> Vec<String> {
        self.neighbours_of(&HashSet::from([service.to_owned()])).remove(service).unwrap_or_default()
    }

    /// The neighbours of each of these services; one walk over the topology for all of them.
    pub fn neighbours_of(&self, services: &HashSet<String>) -> HashMap<String, Vec<String>> {
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for service in services {
            if let Some(callees) = self.topology.get(service) {
                all.entry(service.clone()).or_default().extend(callees.iter().cloned());
            }
        }
        for (caller, calls) in &self.topology {
            for callee in calls.iter().filter(|c| services.contains(*c)) {
                all.entry(callee.clone()).or_default().push(caller.clone());
            }
        }
        for (service, neighbours) in &mut all {
            let mut seen = HashSet::from([service.clone()]);
            neighbours.retain(|n| seen.insert(n.clone()));
        }
        all
    }

    /// The service that these labels belong to: the first of `service_labels` that is there, else the alert's name.
    pub fn service_of(&self, labels: &Labels) -> String {
        let named = self.service_labels.iter().find_map(|l| labels.get(l)).filter(|s| !s.is_empty());
        named.or_else(|| labels.get("alertname")).cloned().unwrap_or_else(|| "unknown".into())
    }

    /// The maintenance window that covers these labels now.
    pub fn maintenance(&self, labels: &Labels, at: Timestamp) -> Option<&MaintenanceWindow> {
        self.maintenance.iter().find(|w| w.covers(labels, at))
    }
}

/// A planned piece of work. Silences that people make at run time are in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Shown where messages are held back.
    pub reason: String,
    #[serde(default)]
    pub from: Option<Timestamp>,
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// All must match; `{label: value}` or `{label: "~regex"}` (anchored).
    #[serde(default)]
    pub matches: Matchers,
}

impl MaintenanceWindow {
    /// True if it covers these labels at this time.
    pub fn covers(&self, labels: &Labels, at: Timestamp) -> bool {
        self.from.is_none_or(|t| t <= at)
            && self.until.is_none_or(|t| at < t)
            && all_match(&self.matches, labels)
    }
}

impl Check for Correlate {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if self.service_labels.is_empty() {
            problems.push(Problem::new(
                format!("{at}.service_labels"),
                "must name at least one label, such as service",
            ));
        }
        for (name, value) in [
            ("window", self.window),
            ("reopen_within", self.reopen_within),
            ("flap_within", self.flap_within),
            ("flap_quiet", self.flap_quiet),
        ] {
            check::positive(&format!("{at}.{name}"), value, problems);
        }
        if self.flap_count < 2 {
            problems.push(Problem::new(
                format!("{at}.flap_count"),
                "must be at least 2: one flip is an incident",
            ));
        }
        for (i, w) in self.maintenance.iter().enumerate() {
            if w.matches.is_empty() && (w.from.is_none() || w.until.is_none()) {
                problems.push(Problem::new(
                    format!("{at}.maintenance[{i}]"),
                    "would hold back every message for ever: give it matches, or both from and until",
                ));
            }
        }
    }
}
