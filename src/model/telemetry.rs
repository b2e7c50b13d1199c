//! Log records and metric samples, as every intake form is parsed into.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Labels;

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
    /// Reads a level as log shippers spell it (`WARNING`, `err`, `crit`, syslog severity numbers `0`–`7`).
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "trace" | "finest" | "verbose" => Self::Trace,
            "debug" | "dbg" | "fine" | "7" => Self::Debug,
            "info" | "information" | "informational" | "notice" | "6" | "5" => Self::Info,
            "warn" | "warning" | "4" => Self::Warn,
            "error" | "err" | "severe" | "3" => Self::Error,
            "fatal" | "crit" | "critical" | "alert" | "emerg" | "emergency" | "panic" | "2" | "1" | "0" => {
                Self::Fatal
            }
            _ => return None,
        })
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
