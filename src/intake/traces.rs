//! Span intake: reads OTLP over HTTP, in protobuf or JSON, and hands [`Span`]s to the bus.
//!
//! Texts are read as bytes: programs cut them amid a letter, or copy what clients sent, and a batch of spans is not lost for one.
//!
//! `POST /v1/traces` takes an `ExportTraceServiceRequest` (opentelemetry-proto 1.x, `collector/trace/v1`). Only what ranking
//! and the call graph need is read of it: who, what, when, for whom, and whether it failed. The answer is an
//! `ExportTraceServiceResponse` in the form of the question, with `partialSuccess` where spans were refused.

use prost::Message;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::telemetry::{BadBody, Counts, Limits, Parsed};
use crate::{
    clock,
    model::{TraceSpan as Span, case::id_hash},
};

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "maybe")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "maybe")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "maybe")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "text")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

/// A text or a whole number (ports); of other kinds of values none names a service.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnyValue {
    #[prost(bytes = "vec", optional, tag = "1")]
    #[serde(deserialize_with = "maybe_text")]
    string_value: Option<Vec<u8>>,
    #[prost(int64, optional, tag = "3")]
    #[serde(deserialize_with = "maybe_integer")]
    int_value: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    #[serde(deserialize_with = "maybe")]
    spans: Vec<Wire>,
}

/// A span as it comes. JSON writes identifiers in hexadecimal and 64-bit numbers as text.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "hex")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "hex")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    #[serde(deserialize_with = "hex")]
    parent_span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    #[serde(deserialize_with = "text")]
    name: Vec<u8>,
    #[prost(int32, tag = "6")]
    #[serde(deserialize_with = "kind")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    #[serde(deserialize_with = "nanoseconds")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    #[serde(deserialize_with = "nanoseconds")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    #[serde(deserialize_with = "maybe")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
struct Status {
    #[prost(int32, tag = "3")]
    #[serde(deserialize_with = "code")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<Partial>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
/// `SPAN_KIND_CLIENT` and `SPAN_KIND_PRODUCER`.
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
/// Bytes of a service's and of an operation's name that are kept.
const MAX_NAME: usize = 200;

/// Whether a body of this content type is protobuf, or JSON; none if it is neither.
pub fn is_protobuf(content_type: &str) -> Option<bool> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(true),
        "application/json" => Some(false),
        _ => None,
    }
}

/// Parses a body. Spans that no window could take, or that lack what OTLP demands, are refused one by one.
pub fn parse(body: &[u8], content_type: &str, limits: &Limits) -> Result<Parsed<Span>, BadBody> {
    let request = match is_protobuf(content_type) {
        Some(true) => Request::decode(body).map_err(|e| BadBody::NotOtlp(e.to_string()))?,
        _ => serde_json::from_str(&String::from_utf8_lossy(body))
            .map_err(|e| BadBody::NotOtlp(e.to_string()))?,
    };
    let mut parsed = Parsed { records: Vec::new(), rejected: 0, errors: Vec::new(), replaced: 0, cut: 0 };
    let mut index = 0;
    for of_resource in request.resource_spans {
        let service = service_of(of_resource.resource.as_ref());
        for wire in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            match span(&wire, service.as_deref(), limits) {
                Ok(span) => parsed.records.push(span),
                Err(reason) => parsed.reject(index, reason),
            }
            index += 1;
        }
    }
    Ok(parsed)
}

/// What OTLP answers where the body could be read.
pub fn answer(counts: &Counts, protobuf: bool) -> Vec<u8> {
    let partial = (counts.rejected > 0).then(|| Partial {
        rejected_spans: counts.rejected as i64,
        error_message: counts
            .errors
            .first()
            .map(|e| format!("span {}: {}", e.index, e.reason))
            .unwrap_or_default(),
    });
    if protobuf {
        return Response { partial_success: partial }.encode_to_vec();
    }
    let partial = partial.map(|p| {
        serde_json::json!({"rejectedSpans": p.rejected_spans.to_string(), "errorMessage": p.error_message})
    });
    let answer = partial.map_or(serde_json::json!({}), |p| serde_json::json!({ "partialSuccess": p }));
    answer.to_string().into_bytes()
}

fn service_of(resource: Option<&Resource>) -> Option<String> {
    let named = resource?.attributes.iter().find(|a| a.key == b"service.name")?;
    let name = String::from_utf8_lossy(named.value.as_ref()?.string_value.as_deref()?);
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn span(wire: &Wire, service: Option<&str>, limits: &Limits) -> Result<Span, String> {
    let service = service.ok_or("its resource has no service.name")?;
    let id = |bytes: &[u8], length: usize, what: &str| match bytes {
        // All zeros is what OTLP calls invalid.
        bytes if bytes.len() == length && bytes.iter().any(|b| *b != 0) => Ok(hash(bytes)),
        _ => Err(format!("its {what} is not {length} bytes")),
    };
    let trace = id(&wire.trace_id, 16, "trace_id")?;
    let own = id(&wire.span_id, 8, "span_id")?;
    let parent = if wire.parent_span_id.iter().all(|b| *b == 0) {
        0
    } else {
        id(&wire.parent_span_id, 8, "parent_span_id")?
    };
    let micros = |nanos: u64| (nanos / 1000) as i64;
    let (start, end) = (micros(wire.start_time_unix_nano), micros(wire.end_time_unix_nano));
    if wire.start_time_unix_nano == 0 || end < start {
        return Err("it has no start, or ends before it".into());
    }
    Ok(Span {
        at: limits.admit(clock::from_micros(start))?,
        service: bounded(service),
        operation: bounded(&shape(&String::from_utf8_lossy(&wire.name))),
        trace,
        id: own,
        parent,
        duration_us: end - start,
        error: wire.status.as_ref().is_some_and(|s| s.code == ERROR),
        peer: peer(wire).map(|name| bounded(&name)),
    })
}

/// Whom a client's span waits for, by the semantic conventions of OpenTelemetry, old names and new: the service if it is named,
/// else the host, else what kind of store it is. Spans of other kinds wait for nobody.
fn peer(wire: &Wire) -> Option<String> {
    let text = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| wire.attributes.iter().find(|a| a.key == key.as_bytes()));
        let text = found.and_then(|a| str::from_utf8(a.value.as_ref()?.string_value.as_deref()?).ok());
        text.map(str::trim).filter(|text| !text.is_empty())
    };
    if !matches!(wire.kind, CLIENT | PRODUCER) {
        return None;
    }
    let system = text(&["db.system.name", "db.system", "messaging.system"]);
    let host = text(&["server.address", "net.peer.name", "server.socket.domain", "http.host"])
        .or_else(|| host_of(text(&["url.full", "http.url"])?));
    let named = text(&["peer.service", "service.peer.name"]).map(str::to_owned);
    named.or_else(|| host.and_then(service_of_host)).or_else(|| system.map(str::to_owned)).or_else(|| {
        // Just an address: better than nobody.
        let address =
            host.or_else(|| text(&["network.peer.address", "net.sock.peer.addr", "net.peer.ip"]))?;
        let port =
            ["server.port", "network.peer.port", "net.peer.port", "net.sock.peer.port"].iter().find_map(
                |key| wire.attributes.iter().find(|a| a.key == key.as_bytes())?.value.as_ref()?.int_value,
            );
        Some(port.map_or_else(|| address.to_owned(), |port| format!("{address}:{port}")))
    })
}

/// The host of a URL.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit('@').next().filter(|host| !host.is_empty())
}

/// What a host's name says of the service: inside a cluster its first label is the name. Addresses say nothing, and neither does
/// the own machine, where a proxy stands for anybody.
fn service_of_host(host: &str) -> Option<String> {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok() || name.contains(':');
    if is_address || name.is_empty() || name.eq_ignore_ascii_case("localhost") {
        return None;
    }
    let inside = name.split_once(".svc").filter(|(_, rest)| rest.is_empty() || rest.starts_with('.'));
    Some(inside.map_or(name, |(name, _)| name.split('.').next().unwrap_or(name)).to_owned())
}

/// As log lines write it: hexadecimal in small letters, so that a line's trace id has the same hash.
fn hash(bytes: &[u8]) -> u64 {
    let mut text = [0; 32];
    let digits = b"0123456789abcdef";
    for (i, byte) in bytes.iter().take(16).enumerate() {
        text[2 * i] = digits[usize::from(byte >> 4)];
        text[2 * i + 1] = digits[usize::from(byte & 15)];
    }
    id_hash(&text[..2 * bytes.len().min(16)])
}

/// The name without the identifiers that some put into it, for an operation that happens once teaches nothing: `GET /orders/17`
/// is `GET /orders/*`.
fn shape(name: &str) -> String {
    let is_id = |part: &str| {
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        let all_hex = part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        digits > 0 && (digits == part.len() || (all_hex && part.len() >= 8))
    };
    let word =
        |word: &str| word.split('/').map(|p| if is_id(p) { "*" } else { p }).collect::<Vec<_>>().join("/");
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn bounded(name: &str) -> String {
    super::alert::printable(name[..name.floor_char_boundary(MAX_NAME)].to_owned())
}

/// In JSON, null is how some write what is not there (the JSON mapping of protobuf demands that it is taken).
fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    maybe(from).map(String::into_bytes)
}

fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::deserialize(from).map(|text: Option<String>| text.map(String::into_bytes))
}

fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text: std::borrow::Cow<'de, str> = maybe(from)?;
    let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(|| D::Error::custom("an id is hexadecimal"));
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(D::Error::custom("an id has an even number of digits"));
    }
    pairs.map(|pair| Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

fn nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Option::deserialize(from)?.unwrap_or(Number::Number(0)) {
        Number::Number(n) => Ok(n),
        Number::Text(text) => text.parse().map_err(|_| D::Error::custom("a time is nanoseconds since 1970")),
    }
}

/// 64-bit numbers are texts in JSON.
fn maybe_integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Integer {
        Number(i64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Integer::deserialize(from)? {
        Integer::Number(n) => Some(n),
        Integer::Text(text) => text.parse().ok(),
        Integer::Other(_) => None,
    })
}

/// By number, as the specification has it; some write the name.
fn kind<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    match Option::deserialize(from)?.unwrap_or(Number::Number(0)) {
        Number::Number(n) => Ok(i32::try_from(n).unwrap_or(0)),
        Number::Text(name) => Ok(match name.as_str() {
            "SPAN_KIND_CLIENT" => CLIENT,
            "SPAN_KIND_PRODUCER" => PRODUCER,
            _ => 0,
        }),
    }
}

/// By number, as the specification has it; some write the name.
fn code<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    match Option::deserialize(from)?.unwrap_or(Number::Number(0)) {
        Number::Number(n) => Ok(i32::try_from(n).unwrap_or(0)),
        Number::Text(name) => Ok(if name == "STATUS_CODE_ERROR" { ERROR } else { 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Detect;

    const NOW: u64 = 1_795_255_200_000_000_000;

    fn limits() -> Limits {
        Limits::new(&Detect::default(), clock::from_micros((NOW / 1000) as i64))
    }

    fn wire() -> Wire {
        Wire {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            parent_span_id: vec![2; 8],
            name: "GET /orders/17".into(),
            start_time_unix_nano: NOW,
            end_time_unix_nano: NOW + 1_500_000,
            status: Some(Status { code: ERROR }),
            kind: CLIENT,
            attributes: vec![attribute("peer.service", "bank"), attribute("server.address", "10.0.0.7")],
        }
    }

    fn attribute(key: &str, text: &str) -> KeyValue {
        let value = Some(AnyValue { string_value: Some(text.into()), int_value: None });
        KeyValue { key: key.into(), value }
    }

    fn request(spans: Vec<Wire>) -> Request {
        let attributes = vec![attribute("service.name", "orders")];
        let scope_spans = vec![ScopeSpans { spans }];
        Request {
            resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }],
        }
    }

    fn json(span: &str) -> String {
        format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"orders"}}}},
            {{"key":"process.pid","value":{{"intValue":"7"}}}}]}},"scopeSpans":[{{"scope":{{"name":"x"}},"spans":[{span}]}}]}}]}}"#
        )
    }

    #[test]
    fn protobuf_and_json_say_the_same() {
        let bytes = request(vec![wire()]).encode_to_vec();
        let one = parse(&bytes, "application/x-protobuf", &limits()).expect("protobuf");
        let text = json(
            r#"{"traceId":"ABababababababababababababababab","spanId":"0101010101010101","parentSpanId":"0202020202020202",
            "name":"GET /orders/17","kind":3,"startTimeUnixNano":"1795255200000000000","endTimeUnixNano":1795255200001500000,
            "attributes":[{"key":"peer.service","value":{"stringValue":"bank"}},{"key":"x","value":{"boolValue":true}},
            {"key":"server.address","value":{"stringValue":"10.0.0.7"}}],"status":{"code":2}}"#,
        );
        let two = parse(text.as_bytes(), "application/json; charset=utf-8", &limits()).expect("JSON");
        assert_eq!(one, two);
        let span = &one.records[0];
        assert_eq!((span.service.as_str(), span.operation.as_str()), ("orders", "GET /orders/*"));
        assert_eq!((span.duration_us, span.error, span.peer.as_deref()), (1500, true, Some("bank")));
        assert_eq!(span.trace, id_hash(b"abababababababababababababababab"), "as a log line writes it");
    }

    #[test]
    fn a_batch_is_not_lost_for_a_text_that_is_cut_amid_a_letter() {
        let cut = |text: &str| text.as_bytes()[..text.len() - 1].to_vec();
        let query = AnyValue { string_value: Some(cut("SELECT 'é")), int_value: None };
        let attributes = vec![
            KeyValue { key: "db.query.text".into(), value: Some(query) },
            attribute("peer.service", "bank"),
        ];
        let spans = vec![Wire { name: cut("GET /é"), attributes, ..wire() }, wire()];
        let parsed =
            parse(&request(spans).encode_to_vec(), "application/x-protobuf", &limits()).expect("protobuf");
        let told: Vec<_> = parsed.records.iter().map(|s| (s.operation.as_str(), s.peer.as_deref())).collect();
        assert_eq!(told, [("GET /\u{fffd}", Some("bank")), ("GET /orders/*", Some("bank"))]);
        let json = json(
            r#"{"traceId":"abababababababababababababababab","spanId":"0101010101010101","name":"GET /?",
            "startTimeUnixNano":"1795255200000000000","endTimeUnixNano":"1795255200001500000"}"#,
        );
        let bytes: Vec<u8> = json.bytes().map(|b| if b == b'?' { 0xc3 } else { b }).collect();
        let parsed = parse(&bytes, "application/json", &limits()).expect("JSON");
        assert_eq!(parsed.records[0].operation, told[0].0);
    }

    #[test]
    fn null_is_what_is_not_there() {
        let text = json(
            r#"{"traceId":"abababababababababababababababab","spanId":"0101010101010101","parentSpanId":null,"name":null,
            "kind":null,"startTimeUnixNano":"1795255200000000000","endTimeUnixNano":"1795255200001500000",
            "attributes":null,"status":{"code":null}}"#,
        );
        let parsed = parse(text.as_bytes(), "application/json", &limits()).expect("JSON");
        let span = &parsed.records[0];
        assert_eq!((span.parent, span.operation.as_str(), span.error), (0, "", false));
        for nothing in [
            r#"{"resourceSpans":null}"#,
            r#"{"resourceSpans":[{"resource":null,"scopeSpans":null}]}"#,
            r#"{"resourceSpans":[{"resource":{"attributes":null},"scopeSpans":[{"spans":null}]}]}"#,
        ] {
            let parsed = parse(nothing.as_bytes(), "application/json", &limits()).expect("JSON");
            assert_eq!((parsed.records.len(), parsed.rejected), (0, 0), "{nothing}");
        }
    }

    #[test]
    fn bad_spans_are_refused_one_by_one_and_named() {
        let spans = [
            wire(),
            Wire { trace_id: vec![0; 16], ..wire() },
            Wire { end_time_unix_nano: NOW - 1, ..wire() },
            Wire { start_time_unix_nano: 1, end_time_unix_nano: 2, ..wire() },
        ];
        let bytes = request(spans.into()).encode_to_vec();
        let parsed = parse(&bytes, "application/x-protobuf", &limits()).expect("readable");
        assert_eq!((parsed.records.len(), parsed.rejected), (1, 3));
        assert_eq!(parsed.errors[0].reason, "its trace_id is not 16 bytes");
        let nameless = Request {
            resource_spans: vec![ResourceSpans {
                resource: None,
                scope_spans: vec![ScopeSpans { spans: vec![wire()] }],
            }],
        };
        let parsed = parse(&nameless.encode_to_vec(), "application/x-protobuf", &limits()).expect("readable");
        assert_eq!(parsed.errors[0].reason, "its resource has no service.name");
    }

    #[test]
    fn the_answer_says_what_was_refused() {
        let counts = |rejected| Counts {
            accepted: 1,
            rejected,
            errors: vec![super::super::telemetry::Rejected { index: 3, reason: "why".into() }],
            sampled_out: 0,
            dropped: 0,
            replaced: 0,
            cut: 0,
        };
        assert_eq!(answer(&counts(0), true), b"");
        assert_eq!(answer(&counts(0), false), b"{}");
        let partial = Response::decode(&answer(&counts(2), true)[..]).expect("protobuf").partial_success;
        assert_eq!(partial.map(|p| p.rejected_spans), Some(2));
        let text = String::from_utf8(answer(&counts(2), false)).expect("text");
        assert!(text.contains(r#""rejectedSpans":"2""#) && text.contains("span 3: why"), "{text}");
    }

    #[test]
    fn a_clients_span_says_whom_it_waits_for() {
        let of = |kind, attributes: &[(&str, &str)]| {
            let attributes = attributes.iter().map(|(key, text)| attribute(key, text)).collect();
            peer(&Wire { kind, attributes, ..wire() })
        };
        let client = |attributes: &[(&str, &str)]| of(CLIENT, attributes).expect("somebody");
        assert_eq!(client(&[("server.address", "payments.shop.svc.cluster.local")]), "payments");
        assert_eq!(client(&[("http.url", "https://user@api.example.com:8443/v1?x")]), "api.example.com");
        assert_eq!(client(&[("server.address", "10.0.0.7"), ("db.system", "postgresql")]), "postgresql");
        assert_eq!(of(PRODUCER, &[("messaging.system", "kafka")]).as_deref(), Some("kafka"));
        let port = KeyValue {
            key: "server.port".into(),
            value: Some(AnyValue { string_value: None, int_value: Some(5432) }),
        };
        let attributes = vec![attribute("server.address", "127.0.0.1"), port];
        assert_eq!(peer(&Wire { attributes, ..wire() }).as_deref(), Some("127.0.0.1:5432"));
        assert_eq!(client(&[("server.address", "::1")]), "::1");
        assert_eq!(of(2, &[("peer.service", "front")]), None, "a server waits for nobody");
        assert_eq!(of(CLIENT, &[]), None);
    }

    #[test]
    fn identifiers_are_no_part_of_an_operation() {
        assert_eq!(shape("POST /api/v1/users/8f14e45f-ceea/cart"), "POST /api/v1/users/*/cart");
        assert_eq!(shape("SELECT shop.orders"), "SELECT shop.orders");
    }

    proptest::proptest! {
        #[test]
        fn junk_is_refused_and_harmless(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            for kind in ["application/x-protobuf", "application/json"] {
                let _ = parse(&body, kind, &limits());
            }
        }
    }
}
