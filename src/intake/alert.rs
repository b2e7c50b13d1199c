//! What every alert intake shares: times as monitoring writes them, labels as the store can keep them.

use jiff::Timestamp;
use memchr::memmem;

use crate::{
    clock,
    model::{Labels, Severity, fingerprint},
};

/// A body that is not what the route takes; nothing of it was used. The text is fit for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(pub String);

impl BadPayload {
    pub(super) fn at(index: usize, reason: impl std::fmt::Display) -> Self {
        Self(format!("alert {index}: {reason}"))
    }
}

impl From<serde_json::Error> for BadPayload {
    fn from(e: serde_json::Error) -> Self {
        Self(e.to_string())
    }
}

/// Whether a critical alert may be in a body, without reading it as JSON: under overload most are refused, and that has to cost
/// next to nothing. Errs to one side only.
pub fn may_be_critical(body: &str) -> bool {
    // An escape spells a letter in another way.
    let (keys, text) = (["severity\"", "priority\""], body.as_bytes());
    memmem::find(text, b"\\u").is_some()
        || keys.iter().any(|key| {
            memmem::find_iter(text, key).any(|at| is_followed_by_critical(&body[at + key.len()..]))
        })
}

fn is_followed_by_critical(rest: &str) -> bool {
    let value = rest.trim_start().strip_prefix(':').and_then(|rest| rest.trim_start().strip_prefix('"'));
    let word = value.and_then(|value| value.split('"').next());
    word.is_some_and(|word| word.contains('\\') || Severity::from_label(Some(word)) == Severity::Critical)
}

/// About how many alerts are in a body that was not read.
pub fn count_unread(body: &str) -> usize {
    memmem::find_iter(body.as_bytes(), "\"labels\"").count()
}

/// RFC 3339 with 0 to 9 fractional digits, cut to microseconds; `None` for absent, empty, and Go's zero time
/// `0001-01-01T00:00:00Z`.
pub(super) fn time(text: Option<&str>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let bad = || format!("{:?} is not an RFC 3339 time", text.chars().take(64).collect::<String>());
    let at: Timestamp = text.parse().map_err(|_| bad())?;
    Ok((at > Timestamp::UNIX_EPOCH).then(|| clock::from_micros(at.as_microsecond())))
}

/// Drops labels without a value, which mean the same as none, and replaces NUL, which PostgreSQL cannot keep.
pub(super) fn clean(mut labels: Labels) -> Labels {
    if labels.iter().any(|(name, value)| value.is_empty() || name.contains('\0') || value.contains('\0')) {
        labels = labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (printable(name), printable(value)))
            .collect();
    }
    labels
}

pub(super) fn printable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The sender's fingerprint if it is one, else our own.
pub(super) fn fingerprint_of(given: Option<&str>, labels: &Labels) -> String {
    match given {
        Some(hex) if hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            hex.to_ascii_lowercase()
        }
        _ => fingerprint(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_times_are_read() {
        let at = |text| time(Some(text)).expect("a time").expect("not zero").to_string();
        assert_eq!(at("2026-11-21T01:06:25.875421676Z"), "2026-11-21T01:06:25.875421Z");
        assert_eq!(at("2026-11-21T01:06:42.8861Z"), "2026-11-21T01:06:42.8861Z");
        assert_eq!(at("2026-11-21T04:06:42+03:00"), "2026-11-21T01:06:42Z");
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), Ok(None));
        assert_eq!(time(Some("")), Ok(None));
        assert_eq!(time(None), Ok(None));
        assert!(time(Some("yesterday")).is_err());
    }

    #[test]
    fn a_label_without_a_value_is_none_and_nul_is_replaced() {
        let labels = Labels::from([("a".into(), "".into()), ("b\0".into(), "x\0y".into())]);
        assert_eq!(clean(labels), Labels::from([("b\u{fffd}".into(), "x\u{fffd}y".into())]));
    }

    #[test]
    fn only_sixteen_hex_digits_are_a_fingerprint() {
        let labels = Labels::from([("alertname".into(), "A".into())]);
        assert_eq!(fingerprint_of(Some("C5DDF555CBB2B91E"), &labels), "c5ddf555cbb2b91e");
        let own = fingerprint(&labels);
        for given in [None, Some(""), Some("c5ddf555cbb2b91"), Some("../../../etc/pass")] {
            assert_eq!(fingerprint_of(given, &labels), own);
        }
    }

    proptest! {
        #[test]
        fn any_fraction_of_a_second_is_read(digits in "[0-9]{0,9}") {
            let text = match digits.as_str() { "" => "2026-11-21T01:06:25Z".to_owned(), d => format!("2026-11-21T01:06:25.{d}Z") };
            prop_assert!(time(Some(&text)).expect("a time").is_some());
        }
        #[test]
        fn any_text_is_no_panic(text: String) {
            let _ = time(Some(&text));
        }
    }

    #[test]
    fn a_glance_sees_what_a_parser_would() {
        for (body, expected) in [
            (r#"[{"labels":{"alertname":"A","severity":"warning"}},{"labels":{"severity" : "Page"}}]"#, true),
            (r#"[{"labels":{"priority":"P1"}}]"#, true),
            (r#"[{"labels":{"severity":"warning"},"annotations":{"text":"a critical disk"}}]"#, false),
            (r#"[{"labels":{"\u0073everity":"critical"}}]"#, true),
            (r#"[{"labels":{"severity":"cr\/it"}}]"#, true),
            ("severity\"", false),
            ("", false),
        ] {
            assert_eq!(may_be_critical(body), expected, "{body}");
        }
        assert_eq!(count_unread(r#"{"commonLabels":{},"alerts":[{"labels":{}},{"labels":{}}]}"#), 2);
    }

    proptest::proptest! {
        #[test]
        fn what_is_critical_is_never_overlooked(
            key in "severity|priority",
            word in "\\PC{0,3}(critical|PAGE|p1| Error\t)?",
            pretty: bool,
        ) {
            let labels = Labels::from([("alertname".to_owned(), "A".to_owned()), (key, word)]);
            let body = serde_json::json!([{ "labels": labels }]);
            let body = if pretty { format!("{body:#}") } else { body.to_string() };
            proptest::prop_assert!(may_be_critical(&body) || Severity::of(&labels) != Severity::Critical, "{}", body);
        }
    }
}
