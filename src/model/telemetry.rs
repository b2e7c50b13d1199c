//! Log records and metric samples, as every intake form is parsed into.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Labels, Said, case::Case};

super::words!(
    /// Ordered by seriousness. Syslog's and the libraries' words are mapped by `LogLevel::parse`.
    LogLevel {
        Trace = "trace",
        Debug = "debug",
        Info = "info",
        Warn = "warn",
        Error = "error",
        Fatal = "fatal",
    }
);

impl LogLevel {
    /// Reads a level as log shippers spell it (`WARNING`, `err`, `crit`), syslog severity numbers `0`–`7`, and the
    /// numbers `10`–`60` of pino, bunyan and Python's `levelno`.
    pub fn parse(text: &str) -> Option<Self> {
        // Most lines have a level: no allocation for it.
        let word = text.trim();
        let spelled = |level: &Self| level.spellings().iter().any(|s| s.eq_ignore_ascii_case(word));
        Self::ALL.iter().copied().find(spelled)
    }

    /// All that [`LogLevel::parse`] reads as this level, in small letters.
    pub fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::Trace => &["trace", "finest", "verbose", "10"],
            Self::Debug => &["debug", "dbg", "fine", "7", "20"],
            Self::Info => &["info", "information", "informational", "notice", "6", "5", "30"],
            Self::Warn => &["warn", "warning", "4", "40"],
            Self::Error => &["error", "err", "severe", "3", "50"],
            Self::Fatal => {
                &["fatal", "crit", "critical", "alert", "emerg", "emergency", "panic", "2", "1", "0", "60"]
            }
        }
    }
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    pub at: Timestamp,
    pub service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    pub level: LogLevel,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: Timestamp,
    /// Metric name, without labels.
    pub name: String,
    pub service: String,
    #[serde(default)]
    pub labels: Labels,
    /// Never NaN or infinite: those are refused at the edge.
    pub value: f64,
}

/// What one service did for one request, as far as ranking and the call graph need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its beginning.
    pub at: Timestamp,
    pub service: String,
    /// `POST /orders`, `SELECT shop.orders`.
    pub operation: String,
    /// Hashes ([`super::case::id_hash`]) of identifiers in hexadecimal; the parent of a root is 0.
    pub trace: u64,
    pub id: u64,
    pub parent: u64,
    pub duration_us: i64,
    /// Its status is an error.
    pub error: bool,
    /// Whom it waited for, if it says so: a service, a database, a queue.
    pub peer: Option<String>,
}

/// Word that a source could not be asked, or answers again: travels the bus beside the records, so that detectors and
/// diagnoses treat what is missing as unknown instead of healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Since when.
    pub at: Timestamp,
    /// Until when, if it is over and what came in between is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The service whose telemetry it concerns; none means every service.
    pub service: Option<String>,
    /// What was asked: `watch checkout_p99`.
    pub source: String,
    /// Why there is no answer; none means the source answers again.
    pub reason: Option<Said>,
}

/// Whether an empty answer means health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Coverage {
    /// Telemetry of the service arrives; what is not in it did not happen.
    Known,
    /// Nobody can tell; `reason` goes on the diagnosis as missing evidence.
    Unknown { reason: Said },
}

/// How often one log template was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateActivity {
    /// `connection refused to <*>`.
    pub template: String,
    /// The worst level that it was logged at.
    pub level: LogLevel,
    /// Lines in the window that was asked for, to the minute.
    pub count: u64,
    /// Lines to expect in a window of that length, if there is a baseline.
    pub usual: Option<f64>,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// One line of it, unmasked, cut to 512 bytes.
    pub sample: String,
}

/// What one metric series did in a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesSummary {
    pub name: String,
    pub labels: Labels,
    /// Samples in the window, of the last 64 that are kept.
    pub count: usize,
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub last: f64,
    pub last_at: Timestamp,
    /// The range that the detector expects, once it has learned one. Counters are per-second rates here and above.
    pub usual: Option<(f64, f64)>,
}

/// What is still in memory about one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecentTelemetry {
    pub coverage: Coverage,
    /// Most frequent first, at most 50; those at warning level and above come before the rest.
    pub templates: Vec<TemplateActivity>,
    /// The newest lines at error level and above, oldest first, unmasked.
    pub errors: Vec<LogRecord>,
    pub series: Vec<SeriesSummary>,
}

/// Recent telemetry as a diagnosis asks for it. Bounded, in memory, answered within a millisecond or so.
pub trait Telemetry: Send + Sync {
    /// What is known of `service` between `from` and `to` (half open).
    fn recent(&self, service: &str, from: Timestamp, to: Timestamp) -> RecentTelemetry;

    /// False where no telemetry came since the start.
    fn has_heard(&self) -> bool;

    /// Adds what is kept of all services since `from` to a case: lines by template and minute, series, and a fair sample of
    /// requests. False if some services are watched elsewhere, so that they are not in it.
    fn recall(&self, case: &mut Case, from: Timestamp) -> bool;

    /// Who calls whom, as spans of late show, and how often.
    fn calls(&self) -> Vec<(String, String, f64)>;
}
