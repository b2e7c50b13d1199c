//! Metric intake: reads pushed samples and hands [`Sample`]s to the bus.
//!
//! `POST /api/v1/metrics` takes a JSON array of
//! `{"name":"latency_seconds","service":"checkout","labels":{"route":"/pay"},"value":0.12,"timestamp":1795255200}`, one
//! such object per line, or `{"samples":[…]}`. `timestamp` is optional; without `service` the labels `service`, `app`,
//! `job` name it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    alert::{clean, printable},
    flatten::Scalar,
    logs,
    telemetry::{BadBody, Limits, Parsed},
    timestamps::{self, Time},
};
use crate::model::{Labels, Sample};

/// Parses a body. NaN, infinite and non-numeric values are refused by index, like any other bad record.
pub fn parse(body: &[u8], content_type: &str, limits: &Limits) -> Result<Parsed<Sample>, BadBody> {
    // Derived code would read an array as a struct, too.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(wrapped) = serde_json::from_slice::<Wrapped<'_>>(body)
    {
        return Parsed::from_body(wrapped.samples.get().as_bytes(), "application/json", |json| {
            sample(json, limits)
        });
    }
    Parsed::from_body(body, content_type, |json| sample(json, limits))
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    samples: &'a RawValue,
}

#[derive(Deserialize)]
struct Wire {
    name: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    labels: Labels,
    value: serde_json::Value,
    #[serde(default, alias = "ts", alias = "time")]
    timestamp: serde_json::Value,
}

const MAX_LABELS: usize = 64;
const MAX_TEXT: usize = 1024;

fn sample(json: &str, limits: &Limits) -> Result<(Sample, bool), String> {
    let wire: Wire = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if wire.name.trim().is_empty() {
        return Err("no name".into());
    }
    let texts = wire.labels.iter().flat_map(|(k, v)| [k, v]).chain([&wire.name]);
    if wire.labels.len() > MAX_LABELS || texts.into_iter().any(|text| text.len() > MAX_TEXT) {
        return Err(format!(
            "more than {MAX_LABELS} labels, or a name or value of more than {MAX_TEXT} bytes"
        ));
    }
    let sample = Sample {
        at: time(&wire.timestamp, limits)?,
        value: value(&wire.value)?,
        service: service(wire.service, &wire.labels),
        name: printable(wire.name),
        labels: clean(wire.labels),
    };
    Ok((sample, false))
}

fn service(given: String, labels: &Labels) -> String {
    let named = || ["service", "app", "job"].iter().find_map(|label| labels.get(*label));
    logs::name(Some(given.into()))
        .or_else(|| logs::name(named().map(Into::into)))
        .unwrap_or_else(|| logs::UNKNOWN_SERVICE.into())
}

/// A finite number, also as a string, the way that Prometheus writes it.
pub(super) fn value(json: &serde_json::Value) -> Result<f64, String> {
    let number = match json {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(number),
        Some(_) => Err("the value is not finite".into()),
        None => Err("the value is not a number".into()),
    }
}

fn time(json: &serde_json::Value, limits: &Limits) -> Result<jiff::Timestamp, String> {
    let scalar = match json {
        serde_json::Value::Null => return Ok(limits.now),
        serde_json::Value::Number(n) => {
            n.as_i64().map_or_else(|| Scalar::Float(n.as_f64().unwrap_or(f64::NAN)), Scalar::Int)
        }
        serde_json::Value::String(text) => Scalar::Text(text.into()),
        _ => return Err("the timestamp is neither a string nor a number".into()),
    };
    match timestamps::read(&scalar) {
        Time::At(at) => limits.admit(at),
        Time::Vague | Time::Unreadable => {
            Err("the timestamp is neither RFC 3339 nor a number since 1970".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Detect;

    fn limits() -> Limits {
        Limits::new(&Detect::default(), "2026-11-21T10:00:00Z".parse().expect("valid"))
    }
    fn run(body: &str) -> Parsed<Sample> {
        parse(body.as_bytes(), "application/json", &limits()).expect("a body of records")
    }

    #[test]
    fn array_lines_and_wrapped_are_the_same() {
        let a = r#"{"name":"lat","labels":{"job":"api"},"value":0.5,"timestamp":1795255199}"#;
        let b = r#"{"name":"lat","service":"api","value":"0.5"}"#;
        let array = run(&format!("[{a},{b}]"));
        assert_eq!(array.errors, []);
        assert_eq!(array.records[0].service, "api");
        assert_eq!(array.records[1].at, limits().now);
        assert_eq!(array, run(&format!("{a}\n{b}")));
        assert_eq!(array, run(&format!(r#"{{"samples":[{a},{b}]}}"#)));
    }

    #[test]
    fn values_that_are_no_finite_numbers_are_refused_by_index() {
        let parsed = run(
            r#"[{"name":"a","value":"NaN"},{"name":"a","value":true},{"name":"a","value":"+Inf"},
            {"name":"","value":1},{"value":1},{"name":"a","value":1,"timestamp":"x"},{"name":"a","value":1}]"#,
        );
        assert_eq!(parsed.records.len(), 1);
        assert_eq!(parsed.errors.iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(parsed.errors[0].reason, "the value is not finite");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(body: Vec<u8>) {
            let _ = parse(&body, "", &limits());
        }

        #[test]
        fn every_finite_value_arrives(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let body = serde_json::json!(values.iter().map(|v| serde_json::json!({"name": "x", "value": v})).collect::<Vec<_>>());
            let parsed = run(&body.to_string());
            let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
            prop_assert_eq!(parsed.records.len(), finite.len());
            for (sample, value) in parsed.records.iter().zip(finite) {
                prop_assert!((sample.value - value).abs() <= value.abs() * 1e-14, "{} for {value}", sample.value);
            }
            prop_assert_eq!(parsed.records.len() + parsed.rejected, values.len());
        }
    }
}
