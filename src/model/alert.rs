//! An alert: somebody's rule fired. One delivery of it is an [`AlertEvent`]; what we know by now is an [`Alert`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Label and annotation sets, sorted by name.
pub type Labels = BTreeMap<String, String>;

super::words!(
    /// Whether the rule holds now.
    AlertState {
        Firing = "firing",
        Resolved = "resolved",
    }
);

/// One alert of one delivery, as any intake source parses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// Which intake took it: `alertmanager`, `prometheus`, `reconcile`, or the name of a generic source.
    pub source: String,
    /// 16 hex digits over the labels; the same labels are the same alert, whoever sends them.
    pub fingerprint: String,
    pub state: AlertState,
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
    pub starts_at: Timestamp,
    /// When it ended, for a resolved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// Silence until then means resolved (Prometheus sends a firing alert anew with a later one every minute or so).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub generator_url: String,
}

/// An alert as we know it: the last event that counted, and the incident that it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alert {
    pub fingerprint: String,
    pub source: String,
    pub labels: Labels,
    pub annotations: Labels,
    pub state: AlertState,
    #[schema(value_type = String, format = DateTime)]
    pub starts_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    pub generator_url: String,
    pub incident_id: Option<String>,
    /// When we last heard of it, a repeat included.
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
}

impl AlertEvent {
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("alert", String::as_str)
    }
}

impl Alert {
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("alert", String::as_str)
    }
    /// The line that a person reads first: the summary annotation, else the name.
    pub fn title(&self) -> &str {
        title(&self.labels, &self.annotations)
    }
}

/// The `summary` annotation, else `message`, `description`, else the alert's name.
pub fn title<'a>(labels: &'a Labels, annotations: &'a Labels) -> &'a str {
    ["summary", "message", "description"]
        .iter()
        .find_map(|k| annotations.get(*k))
        .or_else(|| labels.get("alertname"))
        .map_or("alert", String::as_str)
}

/// The label fingerprint that Prometheus and Alertmanager compute (`LabelSet.Fingerprint` in prometheus/common): FNV-1a
/// of 64 bits over the sorted names and values, each followed by a byte 255; 16 hex digits.
pub fn fingerprint(labels: &Labels) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for b in bytes.iter().chain(&[255]) {
            hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (name, value) in labels {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    format!("{hash:016x}")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        write!(s, "{b:02x}").expect("writing to a string cannot fail");
        s
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_alertmanagers() {
        let labels = [("alertname", "T1"), ("instance", "w0"), ("rcv", "trunc")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(fingerprint(&labels), "cee330e11430f4ea");
    }
}
