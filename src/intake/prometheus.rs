//! Prometheus' own `POST /api/v2/alerts`: a bare array, sent anew about every minute while it fires; hands alert events to
//! the inbox.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::alert::{BadPayload, clean, printable, time};
use crate::{
    clock,
    model::{AlertEvent, AlertState, Labels, fingerprint},
};

/// What alerts of this route name as their source.
pub const SOURCE: &str = "prometheus";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(borrow, default)]
    starts_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ends_at: Option<Cow<'a, str>>,
    #[serde(rename = "generatorURL", default)]
    generator_url: Option<String>,
}

/// Reads a body that arrived at `now`. An end in the future is when silence means resolved; one in the past means resolved;
/// none is `now + resolve_timeout`, as Alertmanager has it.
pub fn parse(body: &str, now: Timestamp, resolve_timeout: Duration) -> Result<Vec<AlertEvent>, BadPayload> {
    let items: Vec<Item<'_>> = serde_json::from_str(body)?;
    let items = items.into_iter().enumerate();
    items.map(|(i, item)| event(item, now, resolve_timeout).map_err(|e| BadPayload::at(i, e))).collect()
}

fn event(item: Item<'_>, now: Timestamp, resolve_timeout: Duration) -> Result<AlertEvent, String> {
    let labels = clean(item.labels);
    if labels.is_empty() {
        return Err("it has no labels".into());
    }
    let ends_at = time(item.ends_at.as_deref())?.unwrap_or_else(|| clock::after(now, resolve_timeout));
    // Alertmanager takes a lone end as the start, too.
    let starts_at = time(item.starts_at.as_deref())?.unwrap_or_else(|| now.min(ends_at));
    if ends_at < starts_at {
        return Err(format!("it ends at {ends_at}, before it starts at {starts_at}"));
    }
    let over = ends_at <= now;
    Ok(AlertEvent {
        source: SOURCE.into(),
        fingerprint: fingerprint(&labels),
        state: if over { AlertState::Resolved } else { AlertState::Firing },
        annotations: clean(item.annotations.unwrap_or_default()),
        starts_at,
        ends_at: over.then_some(ends_at),
        expires_at: (!over).then_some(ends_at),
        generator_url: printable(item.generator_url.unwrap_or_default()),
        labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn now() -> Timestamp {
        "2026-11-21T01:35:00Z".parse().expect("a time")
    }
    fn one(json: &str) -> AlertEvent {
        parse(json, now(), FIVE_MINUTES).expect("valid").remove(0)
    }

    #[test]
    fn an_end_in_the_future_expires_and_one_in_the_past_resolves() {
        let e = one(
            r#"[{"labels":{"alertname":"A"},"startsAt":"2026-11-21T01:34:55.632Z","endsAt":"2026-11-21T01:38:55.632Z"}]"#,
        );
        assert_eq!((e.state, e.ends_at), (AlertState::Firing, None));
        assert_eq!(e.expires_at.map(|t| t.to_string()), Some("2026-11-21T01:38:55.632Z".into()));
        let e = one(
            r#"[{"labels":{"alertname":"A"},"startsAt":"2026-11-21T01:30:00Z","endsAt":"2026-11-21T01:35:00Z"}]"#,
        );
        assert_eq!((e.state, e.ends_at, e.expires_at), (AlertState::Resolved, Some(now()), None));
    }

    #[test]
    fn without_times_it_begins_now_and_expires() {
        let e = one(r#"[{"labels":{"alertname":"A","gone":""}}]"#);
        assert_eq!(e.starts_at, now());
        assert_eq!(e.expires_at, Some(clock::after(now(), FIVE_MINUTES)));
        assert!(!e.labels.contains_key("gone"));
    }

    #[test]
    fn an_end_before_the_start_is_refused() {
        let body =
            r#"[{"labels":{"a":"b"},"startsAt":"2026-11-21T01:30:00Z","endsAt":"2026-11-21T01:20:00Z"}]"#;
        let error = parse(body, now(), FIVE_MINUTES).expect_err("refused");
        assert!(error.to_string().starts_with("alert 0: it ends at"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_no_panic(text: String) {
            let _ = parse(&text, now(), FIVE_MINUTES);
        }
        #[test]
        fn it_fires_exactly_until_its_end(offset in -10_000i64..10_000) {
            let end = now() + jiff::SignedDuration::from_secs(offset);
            let start = now() - jiff::SignedDuration::from_secs(20_000);
            let body = serde_json::json!([{"labels": {"a": "b"}, "startsAt": start.to_string(), "endsAt": end.to_string()}]);
            let e = parse(&body.to_string(), now(), FIVE_MINUTES).expect("valid").remove(0);
            prop_assert_eq!(e.state == AlertState::Firing, offset > 0);
            prop_assert_eq!(e.expires_at.is_some(), offset > 0);
        }
    }
}
