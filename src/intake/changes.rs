//! Changes: one deploy or configuration change, or an array of them; hands them to the store, where diagnosis finds them.

use jiff::Timestamp;
use serde::Deserialize;

use super::alert::{BadPayload, printable};
use crate::{clock, model::Change};

const LONGEST: usize = 4096;

/// A change as people's pipelines send it.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChange {
    /// The same id again is the same change. Absent: computed from the rest, so that a repeat with `at` is harmless.
    #[serde(default)]
    pub id: String,
    /// `deploy`, `config`, `flag`, `infra` …
    pub kind: String,
    pub service: String,
    /// One line: "checkout 1.4.2 → 1.5.0".
    pub summary: String,
    #[serde(default)]
    pub author: Option<String>,
    #[serde(default)]
    pub url: Option<String>,
    /// When it took effect; absent: now.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
}

/// Reads one change or an array of them; one that cannot be read refuses all.
pub fn parse(body: &str, now: Timestamp) -> Result<Vec<Change>, BadPayload> {
    let list = body.trim_start().starts_with('[');
    let changes: Vec<NewChange> =
        if list { serde_json::from_str(body)? } else { vec![serde_json::from_str(body)?] };
    let changes = changes.into_iter().enumerate();
    changes.map(|(i, c)| change(c, now).map_err(|e| BadPayload(format!("change {i}: {e}")))).collect()
}

fn change(new: NewChange, now: Timestamp) -> Result<Change, String> {
    for (name, text) in [("kind", &new.kind), ("service", &new.service), ("summary", &new.summary)] {
        if text.trim().is_empty() {
            return Err(format!("{name} is empty"));
        }
    }
    let optional = [&new.author, &new.url].into_iter().flatten();
    let texts = [&new.id, &new.kind, &new.service, &new.summary];
    if texts.into_iter().chain(optional).any(|text| text.len() > LONGEST) {
        return Err(format!("a text is longer than {LONGEST} bytes"));
    }
    let at = new.at.map_or(now, |at| clock::from_micros(at.as_microsecond()));
    let mut change = Change {
        id: printable(new.id),
        kind: printable(new.kind),
        service: printable(new.service),
        summary: printable(new.summary),
        author: new.author.map(printable),
        url: new.url.map(printable),
        at,
    };
    if change.id.is_empty() {
        change.id = computed_id(&change);
    }
    Ok(change)
}

/// 32 hex digits over what the change says.
fn computed_id(change: &Change) -> String {
    let text = serde_json::to_string(change).expect("a change holds only strings");
    crate::model::sha256_hex(text.as_bytes())[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_repeat_without_an_id_is_the_same_change() {
        let body =
            r#"{"kind":"deploy","service":"checkout","summary":"1.4 → 1.5","at":"2026-11-21T01:00:00Z"}"#;
        let one = parse(body, now()).expect("valid");
        let many = parse(&format!("[{body},{body}]"), now()).expect("valid");
        assert_eq!(one[0].id.len(), 32);
        assert_eq!(many, [one[0].clone(), one[0].clone()]);
        let other = parse(&body.replace("1.5", "1.6"), now()).expect("valid");
        assert_ne!(other[0].id, one[0].id);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, reason) in [
            (r#"[{"kind":"deploy","service":" ","summary":"x"}]"#, "change 0: service is empty"),
            (r#"{"kind":"deploy","service":"a"}"#, "missing field `summary`"),
            (r#"{"kind":"deploy","service":"a","summary":"x","when":1}"#, "unknown field `when`"),
            ("7", "invalid type"),
        ] {
            let error = parse(body, now()).expect_err(body).to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_no_panic(text: String) {
            let _ = parse(&text, now());
        }
    }
}
