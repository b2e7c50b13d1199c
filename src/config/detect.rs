//! How telemetry is taken in, kept and judged.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, Problem, check};

/// Logs and metrics: the detectors, what they may keep in memory, and what is pulled for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Detect {
    /// The longest stretch that one count or one level is judged over; shorter ones (a third, one second) are judged too.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How much later than its neighbours a record may arrive and still be counted.
    #[serde(with = "humantime_serde")]
    pub lateness: Duration,
    /// A source known for less than this only teaches; nothing about it is an anomaly yet.
    #[serde(with = "humantime_serde")]
    pub warm_up: Duration,
    /// A new error is over when it has not been seen for so long.
    #[serde(with = "humantime_serde")]
    pub quiet: Duration,
    /// What stays changed for so long is the new normal: the anomaly ends and the baseline starts anew.
    #[serde(with = "humantime_serde")]
    pub adapt_after: Duration,
    /// How many false alarms a day each detector may raise about one service; thresholds follow from it, and for metrics from
    /// the number of its series and from how often they are sampled.
    pub false_alarms_per_day: f64,
    /// Fewer lines than this in a window are never a burst.
    pub min_count: u32,
    /// A record from further in the future than this is refused.
    #[serde(with = "humantime_serde")]
    pub max_future: Duration,
    /// A record older than this on arrival is refused.
    #[serde(with = "humantime_serde")]
    pub max_past: Duration,
    /// Bytes of a log message that are kept.
    pub max_message: usize,
    /// Services that are watched at a time; the telemetry of more is dropped and counted.
    pub max_services: usize,
    /// Log templates that are kept for one service, and the lines that they were learned from; the longest unseen makes room.
    pub max_templates: usize,
    /// Metric series that are watched for one service; more are dropped and counted.
    pub max_series: usize,
    /// Metric series that are watched over all services, 1 KB each and their names; more are dropped and counted.
    pub max_all_series: usize,
    /// Spans, and log lines that name their trace, that are kept of the last hour; beyond it whole traces are left out and
    /// counted.
    pub max_spans: usize,
    /// How often what was learned is saved, at most: less often when it is much. Without Redis, but with PostgreSQL: the call
    /// graph only.
    #[serde(with = "humantime_serde")]
    pub save_every: Duration,
    pub bus: BusSettings,
    /// Questions put to Prometheus again and again; each answer is a sample. What it scraped counts once, at its own time.
    /// Counters, and the sums and counts of histograms, are understood by their own names, which `name_label: __name__` keeps.
    pub watches: Vec<Watch>,
}

/// Bounds of the telemetry bus; at a bound, producers are told to come again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusSettings {
    /// Services are spread over so many queues, each read by one task.
    pub partitions: usize,
    /// Records that may wait, over all partitions.
    pub max_records: usize,
    /// Bytes that may wait, over all partitions.
    pub max_bytes: usize,
}

/// One PromQL question. An instant query; each element of its vector is one series. Of what Prometheus scraped each sample
/// counts once, at its own time; what it computes (`rate(…)`) counts at the time of the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// What the series are called in anomalies.
    pub name: String,
    /// Or the label of the answer that says it: `__name__`, where one question is about several metrics.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name_label: String,
    pub query: String,
    /// The service that the answer is about.
    #[serde(default)]
    pub service: String,
    /// Or the label of the answer that names it.
    #[serde(default)]
    pub service_label: String,
    #[serde(default = "every", with = "humantime_serde")]
    pub every: Duration,
}

fn every() -> Duration {
    Duration::from_secs(15)
}

impl Default for Detect {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            lateness: Duration::from_secs(1),
            warm_up: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
            adapt_after: Duration::from_secs(3600),
            false_alarms_per_day: 1.0,
            min_count: 5,
            max_future: Duration::from_secs(600),
            max_past: Duration::from_secs(86_400),
            max_message: 65_536,
            max_services: 500,
            max_templates: 2000,
            max_series: 500,
            max_all_series: 100_000,
            max_spans: 100_000,
            save_every: Duration::from_secs(10),
            bus: BusSettings::default(),
            watches: Vec::new(),
        }
    }
}

impl Default for BusSettings {
    fn default() -> Self {
        Self { partitions: 2, max_records: 200_000, max_bytes: 128 << 20 }
    }
}

impl Check for Detect {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        for (name, value) in [
            ("warm_up", self.warm_up),
            ("quiet", self.quiet),
            ("adapt_after", self.adapt_after),
            ("max_future", self.max_future),
            ("max_past", self.max_past),
            ("save_every", self.save_every),
        ] {
            check::positive(&format!("{at}.{name}"), value, problems);
        }
        let mut between = |name: &str, value: f64, low: f64, high: f64| {
            if !(low..=high).contains(&value) {
                let unit = if matches!(name, "window" | "lateness") { " seconds" } else { "" };
                let message = format!("must be between {low} and {high}{unit}");
                problems.push(Problem::new(format!("{at}.{name}"), message));
            }
        };
        between("window", self.window.as_secs_f64(), 1.0, 60.0);
        between("lateness", self.lateness.as_secs_f64(), 0.0, 60.0);
        between("false_alarms_per_day", self.false_alarms_per_day, 1e-6, 1e4);
        between("max_message", self.max_message as f64, 256.0, 1048576.0);
        between("max_services", self.max_services as f64, 1.0, 1e5);
        between("max_templates", self.max_templates as f64, 10.0, 1e5);
        between("max_series", self.max_series as f64, 1.0, 1e5);
        between("max_all_series", self.max_all_series as f64, 1.0, 1e7);
        between("max_spans", self.max_spans as f64, 1000.0, 1e7);
        between("bus.partitions", self.bus.partitions as f64, 1.0, 64.0);
        between("bus.max_records", self.bus.max_records as f64, 1000.0, 1e8);
        between("bus.max_bytes", self.bus.max_bytes as f64, 1048576.0, 1e11);
        self.check_watches(&format!("{at}.watches"), problems);
    }
}

impl Detect {
    fn check_watches(&self, at: &str, problems: &mut Vec<Problem>) {
        for (i, watch) in self.watches.iter().enumerate() {
            let mut wrong = |key: &str, message: &str| {
                problems.push(Problem::new(format!("{at}[{i}].{key}"), message));
            };
            if watch.name.is_empty() || self.watches[..i].iter().any(|other| other.name == watch.name) {
                wrong("name", "must be there, and no other watch may have it");
            }
            if watch.query.trim().is_empty() {
                wrong("query", "must be a PromQL expression");
            }
            if watch.service.is_empty() == watch.service_label.is_empty() {
                wrong("service", "exactly one of service and service_label must be set");
            }
            if watch.every < Duration::from_secs(1) {
                wrong("every", "must be at least 1s");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_a_watch_needs_one_service() {
        let mut detect = Detect::default();
        let mut problems = Vec::new();
        detect.check("detect", &mut problems);
        assert_eq!(problems, []);
        detect.watches = vec![Watch {
            name: "p99".into(),
            name_label: String::new(),
            query: "up".into(),
            service: String::new(),
            service_label: String::new(),
            every: every(),
        }];
        detect.check("detect", &mut problems);
        assert_eq!(problems[0].key, "detect.watches[0].service");
    }
}
