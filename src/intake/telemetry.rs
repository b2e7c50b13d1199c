//! What log and metric intake share: cuts a body into records, counts what was refused, and hands the rest to the bus.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    bus::{Bus, Published, Record},
    clock,
    config::Detect,
    metrics,
};

crate::model::words!(
    /// Which road a record came in by; a metric label.
    Kind {
        Logs = "logs",
        Metrics = "metrics",
        Traces = "traces",
        Watches = "watches",
        Stream = "stream",
    }
);

/// What telemetry intake needs.
#[derive(Clone)]
pub struct Deps {
    pub bus: Arc<dyn Bus>,
}

/// Bounds for one body.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time of arrival; a record without a time gets it.
    pub now: Timestamp,
    pub max_future: Duration,
    pub max_past: Duration,
    /// Bytes of a message that are kept.
    pub max_message: usize,
}

impl Limits {
    pub fn new(settings: &Detect, now: Timestamp) -> Self {
        let Detect { max_future, max_past, max_message, .. } = *settings;
        Self { now, max_future, max_past, max_message }
    }

    /// Refuses a time that no window could take.
    pub(super) fn admit(&self, at: Timestamp) -> Result<Timestamp, String> {
        if at > clock::after(self.now, self.max_future) {
            return Err(format!(
                "time {at} is more than {} ahead",
                humantime::format_duration(self.max_future)
            ));
        }
        if at < clock::before(self.now, self.max_past) {
            return Err(format!("time {at} is more than {} ago", humantime::format_duration(self.max_past)));
        }
        Ok(at)
    }
}

/// The body as a whole is not what the route takes; nothing of it was used. Answer 400.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BadBody {
    #[error("expected a JSON array of objects, or one JSON object per line")]
    NotRecords,
    #[error("this is no ExportTraceServiceRequest: {0}")]
    NotOtlp(String),
    #[error("the JSON is broken: {0}")]
    Broken(String),
}

/// One record that was refused while its neighbours were taken.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Rejected {
    /// Position in the array, or of the line (blank lines do not count), from 0.
    pub index: usize,
    pub reason: String,
}

/// A body, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    pub records: Vec<T>,
    /// How many records were refused.
    pub rejected: usize,
    /// The first [`MAX_ERRORS`] of them.
    pub errors: Vec<Rejected>,
    /// Byte sequences that were not UTF-8 and were replaced by U+FFFD.
    pub replaced: usize,
    /// Messages that were cut to the limit.
    pub cut: usize,
}

/// Refused records that are named in an answer; the rest are only counted, or a body of junk would be answered by a larger one.
pub const MAX_ERRORS: usize = 100;
/// Records that a body may well have.
const USUAL: usize = 4096;

impl<T> Parsed<T> {
    /// Parses every record of a body with `one`, which says why it refuses one and whether it cut it.
    pub(super) fn from_body(
        body: &[u8],
        content_type: &str,
        mut one: impl FnMut(&str) -> Result<(T, bool), String>,
    ) -> Result<Self, BadBody> {
        let (text, replaced) = lossy(body);
        let parts = split(&text, content_type)?;
        // A body of very many tiny parts must not make much of nothing.
        let records = Vec::with_capacity(parts.len().min(USUAL));
        let mut parsed = Self { records, rejected: 0, errors: Vec::new(), replaced, cut: 0 };
        for (index, record) in parts.into_iter().enumerate() {
            match one(record) {
                Ok((record, cut)) => {
                    parsed.records.push(record);
                    parsed.cut += usize::from(cut);
                }
                Err(reason) => parsed.reject(index, reason),
            }
        }
        Ok(parsed)
    }

    pub(super) fn reject(&mut self, index: usize, reason: String) {
        self.rejected += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Rejected { index, reason });
        }
    }
}

/// The answer to a telemetry request:
/// `{"accepted":2,"rejected":1,"errors":[{"index":1,"reason":"no message"}],"sampled_out":0,"dropped":0,"replaced":0,"cut":0}`.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// On the bus, on their way to the detectors.
    pub accepted: usize,
    /// Malformed; sending them again will not help.
    pub rejected: usize,
    /// Which and why, the first 100.
    pub errors: Vec<Rejected>,
    /// Well-formed and left out: while it is overloaded the service judges some services only. Sending them again will not
    /// help.
    pub sampled_out: usize,
    /// Well-formed, but there is no room: send the whole body again later. Either this or `accepted` is 0.
    pub dropped: usize,
    /// Invalid UTF-8 sequences that were replaced.
    pub replaced: usize,
    /// Messages that were cut to `detect.max_message`.
    pub cut: usize,
}

impl Counts {
    /// 503 if the sender should come again, 422 if there were records and none was usable, else 200.
    pub fn status(&self) -> u16 {
        match self {
            Self { dropped: 1.., .. } => 503,
            Self { accepted: 0, rejected: 1.., .. } => 422,
            _ => 200,
        }
    }
}

/// Puts what was parsed on the bus and counts everything.
pub async fn accept<T: Into<Record>>(deps: &Deps, kind: Kind, mut parsed: Parsed<T>) -> Counts {
    let records: Vec<Record> = std::mem::take(&mut parsed.records).into_iter().map(Into::into).collect();
    let published = deps.bus.publish(records).await;
    count(kind, parsed, published)
}

/// Counts what became of a body.
pub(super) fn count<T>(kind: Kind, parsed: Parsed<T>, published: Published) -> Counts {
    let label = [kind.as_str()];
    metrics::INTAKE_DELIVERIES.with_label_values(&label).inc();
    metrics::INTAKE_ITEMS.with_label_values(&label).inc_by(published.taken as u64);
    metrics::INTAKE_REJECTED.with_label_values(&label).inc_by(parsed.rejected as u64);
    metrics::INTAKE_SHED.with_label_values(&label).inc_by(published.refused as u64);
    metrics::INTAKE_REPLACED.with_label_values(&label).inc_by(parsed.replaced as u64);
    metrics::INTAKE_CUT.with_label_values(&label).inc_by(parsed.cut as u64);
    Counts {
        accepted: published.taken,
        rejected: parsed.rejected,
        errors: parsed.errors,
        sampled_out: 0,
        dropped: published.refused,
        replaced: parsed.replaced,
        cut: parsed.cut,
    }
}

fn lossy(body: &[u8]) -> (Cow<'_, str>, usize) {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let replaced = match text {
        Cow::Borrowed(_) => 0,
        Cow::Owned(_) => body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count(),
    };
    (text, replaced)
}

/// The records of a body: elements of an array, or lines. An array that does not end is broken as a whole.
fn split<'a>(text: &'a str, content_type: &str) -> Result<Vec<&'a str>, BadBody> {
    let body = text.trim();
    match body.as_bytes().first() {
        None => Ok(Vec::new()),
        Some(b'[') if !content_type.contains("ndjson") => raw::<Vec<&RawValue>>(body).map(texts),
        Some(b'{') => lines_or_one(body),
        _ if content_type.contains("ndjson") => Ok(lines(body)),
        _ => Err(BadBody::NotRecords),
    }
}

/// Lines, unless the first is the beginning of one object that was written over several.
fn lines_or_one(body: &str) -> Result<Vec<&str>, BadBody> {
    let lines = lines(body);
    let unfinished = |line: &str| raw::<&RawValue>(line).is_err();
    if lines.len() > 1 && unfinished(lines[0]) && raw::<&RawValue>(body).is_ok() {
        return Ok(vec![body]);
    }
    Ok(lines)
}

fn lines(body: &str) -> Vec<&str> {
    body.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

fn raw<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, BadBody> {
    serde_json::from_str(text).map_err(|e| BadBody::Broken(e.to_string()))
}

fn texts(values: Vec<&RawValue>) -> Vec<&str> {
    values.into_iter().map(RawValue::get).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_lines_and_one_pretty_object_are_cut_into_records() {
        assert_eq!(split(r#"[{"a":1}, 2]"#, "application/json"), Ok(vec![r#"{"a":1}"#, "2"]));
        assert_eq!(split("{\"a\":1}\r\n\n{\"b\":2}\n", ""), Ok(vec![r#"{"a":1}"#, r#"{"b":2}"#]));
        assert_eq!(split("{\n\"a\":\n1}", "application/json"), Ok(vec!["{\n\"a\":\n1}"]));
        assert_eq!(split("7\n8", "application/x-ndjson"), Ok(vec!["7", "8"]));
        assert_eq!(split("", "application/json"), Ok(vec![]));
        assert_eq!(split("hello", "text/plain"), Err(BadBody::NotRecords));
        assert!(matches!(split(r#"[{"a":1},"#, ""), Err(BadBody::Broken(_))), "nothing of it is used");
    }

    #[test]
    fn invalid_bytes_are_replaced_and_counted() {
        let (text, replaced) = lossy(b"a\xff\xfeb\xf0\x9f");
        assert_eq!((text.as_ref(), replaced), ("a\u{fffd}\u{fffd}b\u{fffd}", 3));
    }

    #[test]
    fn the_status_tells_the_sender_whether_to_come_again() {
        let counts = |accepted, rejected, dropped| Counts {
            accepted,
            rejected,
            errors: vec![],
            sampled_out: 0,
            dropped,
            replaced: 0,
            cut: 0,
        };
        assert_eq!(counts(1, 1, 0).status(), 200);
        assert_eq!(counts(0, 1, 0).status(), 422);
        assert_eq!(counts(0, 1, 3).status(), 503);
        assert_eq!(counts(0, 0, 0).status(), 200);
    }
}
