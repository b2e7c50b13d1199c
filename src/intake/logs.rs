//! Log intake: reads what Fluent Bit, Vector, syslog-ng, Filebeat and people's own scripts send, and hands
//! [`LogRecord`]s to the bus.
//!
//! `POST /api/v1/logs` takes a JSON array of objects, or one object per line. Fields are found by ECS names, dotted or
//! nested, and by the plain names in `place`; the case of names does not matter.

use std::borrow::Cow;

use super::{
    alert::printable,
    flatten::{Scalar, flatten},
    telemetry::{BadBody, Limits, Parsed},
    timestamps::{self, Time},
};
use crate::model::{LogLevel, LogRecord};

/// Parses a body. Bad records are refused by index and the others taken; only a body that cannot be cut into records at all
/// is an error.
pub fn parse(body: &[u8], content_type: &str, limits: &Limits) -> Result<Parsed<LogRecord>, BadBody> {
    Parsed::from_body(body, content_type, |json| record(json, limits))
}

/// The service of a record that names none.
pub const UNKNOWN_SERVICE: &str = "unknown";
const MAX_NAME: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Time,
    Level,
    Service,
    Host,
    Message,
    Trace,
}

/// Which field a path means, and its rank: of two paths for one field the lower rank wins.
fn place(path: &str) -> Option<(Field, u8)> {
    use Field::*;
    Some(match path {
        "@timestamp" => (Time, 0),
        "timestamp" => (Time, 1),
        "time" => (Time, 2),
        "ts" => (Time, 3),
        "isodate" => (Time, 4),
        "date" => (Time, 5),
        "log.level" => (Level, 0),
        "level" => (Level, 1),
        "severity" => (Level, 2),
        "severity_text" => (Level, 3),
        "lvl" => (Level, 4),
        "levelname" => (Level, 5),
        "loglevel" | "log_level" => (Level, 6),
        "priority" => (Level, 7),
        "service.name" => (Service, 0),
        "service" => (Service, 1),
        "service_name" => (Service, 2),
        "app" | "application" => (Service, 3),
        "program" | "appname" | "app_name" => (Service, 4),
        "kubernetes.labels.app.kubernetes.io/name" | "kubernetes.pod_labels.app.kubernetes.io/name" => {
            (Service, 5)
        }
        "kubernetes.labels.app" | "kubernetes.pod_labels.app" | "kubernetes.labels.k8s-app" => (Service, 6),
        "kubernetes.deployment.name" => (Service, 7),
        "kubernetes.container.name" | "kubernetes.container_name" => (Service, 8),
        "container.name" | "container_name" => (Service, 9),
        "syslog_identifier" => (Service, 10),
        "job" => (Service, 11),
        "_systemd_unit" | "unit" => (Service, 12),
        "logger" | "log.logger" | "logger_name" => (Service, 13),
        "host.name" => (Host, 0),
        "hostname" | "host.hostname" => (Host, 1),
        "host" => (Host, 2),
        "_hostname" => (Host, 3),
        "kubernetes.node.name" | "kubernetes.host" | "kubernetes.pod_node_name" => (Host, 4),
        "message" => (Message, 0),
        "msg" => (Message, 1),
        "log" => (Message, 2),
        "short_message" => (Message, 3),
        "line" => (Message, 4),
        "body" => (Message, 5),
        "event.original" => (Message, 6),
        "error.message" => (Message, 7),
        "trace.id" => (Trace, 0),
        "trace_id" | "traceid" => (Trace, 1),
        _ => return None,
    })
}

/// The best value so far for each field.
#[derive(Default)]
struct Draft<'a> {
    best: [Option<(u8, Scalar<'a>)>; 6],
}

impl<'a> Draft<'a> {
    fn read(json: &'a str) -> Result<Self, String> {
        let mut draft = Self::default();
        flatten(json, |path, value| draft.offer(path, value))?;
        Ok(draft)
    }

    fn offer(&mut self, path: &str, value: Scalar<'a>) {
        let Some((field, rank)) = place(path) else { return };
        let empty = matches!(&value, Scalar::Text(text) if text.trim().is_empty());
        let slot = &mut self.best[field as usize];
        if !empty && slot.as_ref().is_none_or(|(taken, _)| rank < *taken) {
            *slot = Some((rank, value));
        }
    }

    fn take(&mut self, field: Field) -> Option<Scalar<'a>> {
        self.best[field as usize].take().map(|(_, value)| value)
    }

    fn text(&mut self, field: Field) -> Option<Cow<'a, str>> {
        self.take(field).map(Scalar::into_text)
    }
}

fn record(json: &str, limits: &Limits) -> Result<(LogRecord, bool), String> {
    let mut draft = Draft::read(json)?;
    let message = draft.text(Field::Message).ok_or("no message")?;
    // Containers log JSON inside the shipper's JSON: what the program itself said wins over what was said about it.
    if message.starts_with('{')
        && let Ok(mut inner) = Draft::read(&message)
        && let Some(text) = inner.text(Field::Message)
    {
        return finish(text.into_owned(), Source { inner: Some(inner), outer: draft }, limits);
    }
    finish(message.into_owned(), Source { inner: None, outer: draft }, limits)
}

struct Source<'a, 'b> {
    inner: Option<Draft<'a>>,
    outer: Draft<'b>,
}

impl Source<'_, '_> {
    fn text(&mut self, field: Field) -> Option<Cow<'_, str>> {
        let Self { inner, outer } = self;
        inner.as_mut().and_then(|d| d.text(field)).or_else(|| outer.text(field))
    }

    fn time(&mut self) -> Option<Time> {
        let read = |draft: &mut Draft<'_>| draft.take(Field::Time).map(|value| timestamps::read(&value));
        self.inner
            .as_mut()
            .and_then(read)
            .filter(|t| *t != Time::Unreadable)
            .or_else(|| read(&mut self.outer))
    }
}

fn finish(
    mut message: String,
    mut from: Source<'_, '_>,
    limits: &Limits,
) -> Result<(LogRecord, bool), String> {
    let at = match from.time() {
        None | Some(Time::Vague) => limits.now,
        Some(Time::At(at)) => limits.admit(at)?,
        Some(Time::Unreadable) => return Err("the time is neither RFC 3339 nor a number since 1970".into()),
    };
    let level = from.text(Field::Level).and_then(|text| LogLevel::parse(&text));
    message = printable(message);
    let cut = message.len() > limits.max_message;
    message.truncate(message.floor_char_boundary(limits.max_message));
    message.truncate(message.trim_end().len());
    let record = LogRecord {
        at,
        service: name(from.text(Field::Service)).unwrap_or_else(|| UNKNOWN_SERVICE.into()),
        host: name(from.text(Field::Host)).unwrap_or_default(),
        level: level.unwrap_or_else(|| level_of_line(&message)),
        message,
        trace_id: name(from.text(Field::Trace)),
    };
    Ok((record, cut))
}

/// A name as identity: without Docker's leading slash, control characters, and anything beyond 200 bytes.
pub(super) fn name(text: Option<Cow<'_, str>>) -> Option<String> {
    let text = text?;
    let trimmed = text.trim().trim_start_matches('/');
    let mut name: String = match trimmed.contains(char::is_control) {
        true => trimmed.replace(char::is_control, " "),
        false => trimmed.to_owned(),
    };
    name.truncate(name.floor_char_boundary(MAX_NAME));
    (!name.is_empty()).then_some(name)
}

/// The level of a line that comes without one: the first level word in capitals, in brackets or after `level=`, among the
/// first 120 bytes; klog's `E1121 10:00:00`; else info.
fn level_of_line(line: &str) -> LogLevel {
    let head = &line[..line.floor_char_boundary(120)];
    if let Some(level) = klog(head) {
        return level;
    }
    let mut before = "";
    for word in head.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let spoken = word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase());
        let tagged = matches!(before, "level" | "lvl" | "severity") || head.contains(&format!("[{word}]"));
        if (spoken || tagged)
            && let Some(level) = LogLevel::parse(word)
        {
            return level;
        }
        before = word;
    }
    LogLevel::Info
}

fn klog(head: &str) -> Option<LogLevel> {
    let (letter, rest) = head.as_bytes().split_first()?;
    let dated = rest.len() > 5 && rest[..4].iter().all(u8::is_ascii_digit) && rest[4] == b' ';
    match letter {
        b'I' if dated => Some(LogLevel::Info),
        b'W' if dated => Some(LogLevel::Warn),
        b'E' if dated => Some(LogLevel::Error),
        b'F' if dated => Some(LogLevel::Fatal),
        _ => None,
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
    fn one(json: &str) -> LogRecord {
        let parsed = parse(json.as_bytes(), "application/json", &limits()).expect("a body of records");
        assert_eq!(parsed.errors, []);
        parsed.records.into_iter().next().expect("one record")
    }
    fn brief(r: &LogRecord) -> (&str, &str, LogLevel, &str) {
        (&r.service, &r.host, r.level, &r.message)
    }

    #[test]
    fn fluent_bit() {
        let r = one(r#"[{"date":1795255199.5,"log":"2026-11-21 ERROR db: gone\n","kubernetes":
            {"pod_name":"pay-1","container_name":"pay","host":"n1","labels":{"app":"payments"}}}]"#);
        assert_eq!(brief(&r), ("payments", "n1", LogLevel::Error, "2026-11-21 ERROR db: gone"));
        assert_eq!(r.at.to_string(), "2026-11-21T09:59:59.5Z");
    }

    #[test]
    fn container_json_inside_a_shippers_json() {
        let r =
            one(r#"{"date":1795255199,"container_name":"/cart","log":"{\"level\":50,\"msg\":\"boom\"}"}"#);
        assert_eq!(brief(&r), ("cart", "", LogLevel::Error, "boom"));
    }

    #[test]
    fn nul_which_postgresql_cannot_keep_is_replaced() {
        let r = one(r#"{"message":"a\u0000b","service":"s\u0000t"}"#);
        assert_eq!(brief(&r), ("s t", "", LogLevel::Info, "a\u{fffd}b"));
    }

    #[test]
    fn filebeat_ecs() {
        let r = one(r#"{"@timestamp":"2026-11-21T09:59:00.000Z","log":{"level":"warn","file":{"path":"/x"}},
            "service":{"name":"api"},"host":{"name":"h1"},"message":"slow","trace":{"id":"abc"}}"#);
        assert_eq!(brief(&r), ("api", "h1", LogLevel::Warn, "slow"));
        assert_eq!(r.trace_id.as_deref(), Some("abc"));
    }

    #[test]
    fn syslog_ng() {
        let r = one(
            r#"{"PROGRAM":"sshd","PRIORITY":"err","MESSAGE":"fatal: no","HOST":"h2","DATE":"Nov 21 09:00:00"}"#,
        );
        assert_eq!(brief(&r), ("sshd", "h2", LogLevel::Error, "fatal: no"));
        assert_eq!(r.at, limits().now, "a BSD date names no moment");
    }

    #[test]
    fn vector_lines() {
        let body = "{\"appname\":\"web\",\"host\":\"h\",\"message\":\"a\",\"timestamp\":\"2026-11-21T09:59:59Z\"}\n\
                    {\"message\":\"b\"}\n";
        let parsed = parse(body.as_bytes(), "application/x-ndjson", &limits()).expect("lines");
        assert_eq!(parsed.records.len(), 2);
        assert_eq!(parsed.records[1].service, UNKNOWN_SERVICE);
    }

    #[test]
    fn bad_records_are_refused_by_index_and_the_others_taken() {
        let body = r#"[{"msg":"ok"},{"level":"info"},7,{"msg":"x","ts":"soon"},{"msg":"y","ts":"2020-01-01T00:00:00Z"},
            {"msg":"z","ts":"2026-11-22T10:00:00Z"},{"msg":"ok"}]"#;
        let parsed = parse(body.as_bytes(), "application/json", &limits()).expect("an array");
        assert_eq!(parsed.records.len(), 2);
        let reasons: Vec<_> = parsed.errors.iter().map(|e| (e.index, e.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (1, "no message"),
                (2, "not a JSON object"),
                (3, "the time is neither RFC 3339 nor a number since 1970"),
                (4, "time 2020-01-01T00:00:00Z is more than 1day ago"),
                (5, "time 2026-11-22T10:00:00Z is more than 10m ahead"),
            ]
        );
    }

    #[test]
    fn long_messages_are_cut_between_characters_and_counted() {
        let body = format!(r#"{{"msg":"{}"}}"#, "я".repeat(40_000));
        let parsed = parse(body.as_bytes(), "", &limits()).expect("one object");
        assert_eq!((parsed.cut, parsed.records[0].message.len()), (1, 65_536));
    }

    #[test]
    fn invalid_bytes_in_one_line_spoil_neither_it_nor_the_next() {
        let parsed = parse(b"{\"msg\":\"a\xff\"}\n{\"msg\":\"b\"}", "", &limits()).expect("lines");
        assert_eq!((parsed.records.len(), parsed.replaced), (2, 1));
        assert_eq!(parsed.records[0].message, "a\u{fffd}");
    }

    #[test]
    fn level_is_read_from_lines_that_come_without() {
        for (line, level) in [
            ("2026-11-21 10:00:00 [error] 7#7: upstream timed out", LogLevel::Error),
            ("level=warning msg=\"late\"", LogLevel::Warn),
            ("E1121 10:00:00.1 7 pod.go:1] no", LogLevel::Error),
            ("an error in lower case prose", LogLevel::Info),
            ("", LogLevel::Info),
        ] {
            assert_eq!(level_of_line(line), level, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(body: Vec<u8>, kind in "(application/json|application/x-ndjson|)") {
            let _ = parse(&body, &kind, &limits());
        }

        #[test]
        fn counts_add_up(records in prop::collection::vec((any::<bool>(), "\\PC{0,40}"), 0..150)) {
            let bodies: Vec<String> = records.iter().map(|(named, text)| {
                let key = if *named { "msg" } else { "other" };
                serde_json::json!({ key: text }).to_string()
            }).collect();
            let array = parse(format!("[{}]", bodies.join(",")).as_bytes(), "application/json", &limits()).unwrap();
            let lines = parse(bodies.join("\n").as_bytes(), "application/x-ndjson", &limits()).unwrap();
            prop_assert_eq!(array.records.len() + array.rejected, records.len());
            prop_assert_eq!(array.errors.len(), array.rejected.min(100));
            prop_assert_eq!(array.records, lines.records);
        }
    }
}
