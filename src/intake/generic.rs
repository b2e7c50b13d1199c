//! Webhooks of one's own: reads any JSON by the mapping in the settings, and hands alert events to the inbox.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    alert::{BadPayload, clean, printable},
    flatten::Scalar,
    timestamps::{self, Time},
};
use crate::{
    config::Mapping,
    model::{AlertEvent, AlertState, Labels, fingerprint},
};

/// Reads a body that arrived at `now` in the name of `source`. One item that cannot be read refuses the whole of it.
pub fn parse(
    body: &str,
    source: &str,
    mapping: &Mapping,
    now: Timestamp,
) -> Result<Vec<AlertEvent>, BadPayload> {
    let body: Value = serde_json::from_str(body)?;
    let found = at(&body, &mapping.items)
        .ok_or_else(|| BadPayload(format!("there is nothing at {:?}", mapping.items)))?;
    let items = match found {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let items = items.iter().enumerate();
    items.map(|(i, item)| event(item, source, mapping, now).map_err(|e| BadPayload::at(i, e))).collect()
}

fn event(item: &Value, source: &str, m: &Mapping, now: Timestamp) -> Result<AlertEvent, String> {
    if !item.is_object() {
        return Err("it is not an object".into());
    }
    let mut labels = collect(item, &m.labels, &m.label)?;
    labels.extend(m.fixed_labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    let labels = clean(labels);
    if !labels.contains_key("alertname") {
        return Err("nothing gives it an alertname".into());
    }
    let state = state(item, m)?;
    let ended = time(item, &m.ends_at)?;
    Ok(AlertEvent {
        source: source.to_owned(),
        fingerprint: fingerprint(&labels),
        state,
        annotations: clean(collect(item, &m.annotations, &m.annotation)?),
        starts_at: time(item, &m.starts_at)?.unwrap_or(now),
        ends_at: (state == AlertState::Resolved).then(|| ended.unwrap_or(now)),
        expires_at: None,
        generator_url: printable(text_at(item, &m.url).unwrap_or_default()),
        labels,
    })
}

/// The scalar members of an object, overlaid by single paths.
fn collect(
    item: &Value,
    object: &str,
    single: &std::collections::BTreeMap<String, String>,
) -> Result<Labels, String> {
    let mut labels = Labels::new();
    if !object.is_empty() {
        match at(item, object) {
            Some(Value::Object(members)) => {
                labels.extend(members.iter().filter_map(|(name, v)| Some((name.clone(), text(v)?))));
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(format!("what is at {object:?} is not an object")),
        }
    }
    labels.extend(single.iter().filter_map(|(name, path)| Some((name.clone(), text_at(item, path)?))));
    Ok(labels)
}

fn state(item: &Value, m: &Mapping) -> Result<AlertState, String> {
    if m.state.is_empty() {
        return Ok(AlertState::Firing);
    }
    let word = text_at(item, &m.state).ok_or_else(|| format!("there is no state at {:?}", m.state))?;
    let among = |words: &[String]| words.iter().any(|w| w.eq_ignore_ascii_case(word.trim()));
    match (among(&m.firing), among(&m.resolved)) {
        (true, _) => Ok(AlertState::Firing),
        (_, true) => Ok(AlertState::Resolved),
        _ => {
            let known = [m.firing.as_slice(), &m.resolved].concat().join(", ");
            Err(format!("state {word:?} is none of {known}"))
        }
    }
}

fn time(item: &Value, path: &str) -> Result<Option<Timestamp>, String> {
    let scalar = match (path, at(item, path)) {
        ("", _) | (_, None | Some(Value::Null)) => return Ok(None),
        (_, Some(Value::String(text))) if text.is_empty() => return Ok(None),
        (_, Some(Value::String(text))) => Scalar::Text(text.as_str().into()),
        (_, Some(Value::Number(n))) => match n.as_i64() {
            Some(number) => Scalar::Int(number),
            None => Scalar::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        (_, Some(_)) => return Err(format!("what is at {path:?} is not a time")),
    };
    match timestamps::read(&scalar) {
        Time::At(at) => Ok((at > Timestamp::UNIX_EPOCH).then_some(at)),
        Time::Vague | Time::Unreadable => Err(format!("what is at {path:?} is not a time")),
    }
}

/// The value at a dotted path or a JSON pointer.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() || path.starts_with('/') {
        return value.pointer(path);
    }
    path.split('.').try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

fn text_at(item: &Value, path: &str) -> Option<String> {
    if path.is_empty() { None } else { at(item, path).and_then(text) }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-21T02:00:00Z".parse().expect("a time")
    }
    fn mapping(yaml: &str) -> Mapping {
        serde_yaml::from_str(yaml).expect("valid YAML")
    }
    const ZABBIX: &str = "
items: data.events
labels: tags
label: {alertname: /trigger/name, host: hosts.0.name}
annotation: {summary: message}
fixed_labels: {team: core}
state: status
firing: [PROBLEM]
resolved: [OK, closed]
starts_at: clock
url: link
";

    #[test]
    fn paths_words_and_times_are_mapped() {
        let body = r#"{"data":{"events":[
            {"trigger":{"name":"disk"},"hosts":[{"name":"db-1"}],"tags":{"service":"db","n":3,"x":{}},"message":"full",
             "status":"problem","clock":1795224000,"link":"http://z/1"},
            {"trigger":{"name":"disk"},"tags":null,"status":"OK"}]}}"#;
        let events = parse(body, "zabbix", &mapping(ZABBIX), now()).expect("valid");
        let labels: Vec<String> = events[0].labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["alertname=disk", "host=db-1", "n=3", "service=db", "team=core"]);
        assert_eq!(events[0].annotations["summary"], "full");
        assert_eq!(events[0].starts_at.to_string(), "2026-11-21T01:20:00Z");
        assert_eq!((events[0].state, events[1].state), (AlertState::Firing, AlertState::Resolved));
        assert_eq!(events[1].ends_at, Some(now()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, reason) in [
            ("{}", "there is nothing at \"data.events\""),
            (r#"{"data":{"events":[7]}}"#, "alert 0: it is not an object"),
            (r#"{"data":{"events":[{"status":"OK"}]}}"#, "alert 0: nothing gives it an alertname"),
            (r#"{"data":{"events":[{"trigger":{"name":"x"}}]}}"#, "there is no state at \"status\""),
            (r#"{"data":{"events":[{"trigger":{"name":"x"},"status":"?"}]}}"#, "none of PROBLEM, OK, closed"),
            (r#"{"data":{"events":[{"trigger":{"name":"x"},"status":"OK","clock":"soon"}]}}"#, "not a time"),
        ] {
            let error = parse(body, "zabbix", &mapping(ZABBIX), now()).expect_err(body).to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_no_panic(text: String, path in "[a-z0-9./~]{0,12}") {
            let m = Mapping { items: path.clone(), labels: path, ..mapping(ZABBIX) };
            let _ = parse(&text, "zabbix", &m, now());
            let _ = parse(r#"{"a":[{"b":[1,"x",null]}],"":{"":[[]]}}"#, "zabbix", &m, now());
        }
    }
}
