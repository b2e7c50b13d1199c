//! Alertmanager's webhook, version "4": reads each alert by itself, and hands alert events to the inbox.
//!
//! The root `status` is computed after truncation and says `resolved` while the group still fires; it and whatever else
//! speaks for the group is not even read.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use super::alert::{BadPayload, clean, fingerprint_of, printable, time};
use crate::model::{AlertEvent, AlertState, Labels};

/// What alerts of this route name as their source.
pub const SOURCE: &str = "alertmanager";

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    alerts: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(borrow, default)]
    starts_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ends_at: Option<Cow<'a, str>>,
    #[serde(rename = "generatorURL", default)]
    generator_url: Option<String>,
    #[serde(borrow, default)]
    fingerprint: Option<Cow<'a, str>>,
}

/// Reads a payload that arrived at `now`. One alert that cannot be read refuses the whole of it.
pub fn parse(body: &str, now: Timestamp) -> Result<Vec<AlertEvent>, BadPayload> {
    // Derived code would read an array as a struct, field by field.
    if !body.trim_ascii_start().starts_with('{') {
        return Err(BadPayload("expected an object with alerts in it".into()));
    }
    let payload: Payload<'_> = serde_json::from_str(body)?;
    if let Some(version) = payload.version.filter(|v| v != "4") {
        return Err(BadPayload(format!("version {version:?} of the webhook is not known here; 4 is")));
    }
    let items = payload.alerts.into_iter().enumerate();
    items.map(|(i, item)| event(item, now).map_err(|reason| BadPayload::at(i, reason))).collect()
}

fn event(item: Item<'_>, now: Timestamp) -> Result<AlertEvent, String> {
    let state: AlertState = item.status.parse().map_err(|e| format!("status {e}"))?;
    let labels = clean(item.labels);
    if labels.is_empty() {
        return Err("it has no labels".into());
    }
    let ended = time(item.ends_at.as_deref())?;
    Ok(AlertEvent {
        source: SOURCE.into(),
        fingerprint: fingerprint_of(item.fingerprint.as_deref(), &labels),
        starts_at: time(item.starts_at.as_deref())?.unwrap_or(now),
        ends_at: (state == AlertState::Resolved).then(|| ended.unwrap_or(now)),
        expires_at: None,
        annotations: clean(item.annotations.unwrap_or_default()),
        generator_url: printable(item.generator_url.unwrap_or_default()),
        state,
        labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().expect("a time")
    }

    #[test]
    fn each_alert_has_its_own_state_whatever_the_root_says() {
        let body = r#"{"status":"resolved","version":"4","truncatedAlerts":1,"notification_reason":"new","alerts":[
            {"status":"firing","labels":{"alertname":"A"},"startsAt":"2026-11-21T01:06:25.8Z","endsAt":"0001-01-01T00:00:00Z"},
            {"status":"resolved","labels":{"alertname":"B"},"startsAt":"2026-11-21T01:06:25Z","endsAt":"2026-11-21T01:07:00Z"}]}"#;
        let events = parse(body, now()).expect("valid");
        assert_eq!((events[0].state, events[0].ends_at), (AlertState::Firing, None));
        assert_eq!(events[1].state, AlertState::Resolved);
        assert_eq!(events[1].ends_at.map(|t| t.to_string()), Some("2026-11-21T01:07:00Z".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, reason) in [
            ("", "expected an object"),
            ("[]", "expected an object"),
            ("{", "EOF"),
            ("{}", "missing field `alerts`"),
            (r#"{"version":"5","alerts":[]}"#, "version \"5\""),
            (
                r#"{"alerts":[{"status":"odd","labels":{"a":"b"}}]}"#,
                "alert 0: status \"odd\" is none of firing, resolved",
            ),
            (r#"{"alerts":[{"status":"firing","labels":{}}]}"#, "alert 0: it has no labels"),
            (r#"{"alerts":[{"status":"firing","labels":{"a":1}}]}"#, "invalid type: integer"),
            (r#"{"alerts":[{"status":"firing","labels":{"a":"b"},"startsAt":"x"}]}"#, "not an RFC 3339 time"),
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

        #[test]
        fn every_label_set_survives(
            labels in prop::collection::btree_map("[a-z_]{1,8}", "[^\0]{1,12}", 1..8),
            resolved: bool,
        ) {
            let status = if resolved { "resolved" } else { "firing" };
            let body = serde_json::json!({"alerts": [{"status": status, "labels": labels}]}).to_string();
            let events = parse(&body, now()).expect("valid");
            prop_assert_eq!(&events[0].labels, &labels);
            prop_assert_eq!(&events[0].fingerprint, &crate::model::fingerprint(&labels));
            prop_assert_eq!(events[0].ends_at.is_some(), resolved);
        }
    }
}
