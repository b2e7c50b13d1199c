//! Reads whole bodies: bounded in size each, bounded in size together, and by a deadline (actix has none of the last two).

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::{
    State,
    problem::{Problem, Result},
};

/// Limits for bodies, shared by all workers.
#[derive(Clone)]
pub struct Bodies {
    held: Arc<AtomicUsize>,
    most: usize,
    deadline: Duration,
}

/// A whole body. What it holds of the budget is given back when it is dropped, so keep it until the request is answered.
pub struct Body {
    bytes: Bytes,
    _share: Share,
}

impl Body {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// 400 unless it is UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes).map_err(|e| {
            Problem::bad_request(format!("the body is not UTF-8: byte {} does not fit", e.valid_up_to()))
        })
    }
}

/// A part of the budget.
struct Share {
    held: Arc<AtomicUsize>,
    size: usize,
}

impl Share {
    fn grow(&mut self, by: usize, most: usize) -> Result<()> {
        self.size += by;
        if self.held.fetch_add(by, Ordering::Relaxed) + by > most {
            return Err(Problem::unavailable("too many bodies are under way; send it again").closing());
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Bodies {
    pub fn new(most: usize, deadline: Duration) -> Self {
        Self { held: Arc::default(), most, deadline }
    }

    /// The same budget, but a quarter of it is left for others: telemetry must not shut out alerts.
    pub fn leaving_room(&self) -> Self {
        Self { most: self.most / 4 * 3, ..self.clone() }
    }

    /// Reads a body of at most `limit` bytes. 413, 408, 415 for an encoding, 503 when all bodies together are too much.
    pub async fn read(&self, request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<Body> {
        match Encoding::of(request)? {
            Encoding::Identity => self.within_deadline(request, payload, limit).await,
            Encoding::Gzip => Err(not_taken("identity")),
        }
    }

    /// As [`Bodies::read`], but takes gzip too, as log shippers send it: `limit` holds before and after unpacking.
    pub async fn read_packed(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        limit: usize,
    ) -> Result<Body> {
        let encoding = Encoding::of(request)?;
        let body = self.within_deadline(request, payload, limit).await?;
        match encoding {
            Encoding::Identity => Ok(body),
            Encoding::Gzip => self.unpack(&body, limit).await,
        }
    }

    async fn within_deadline(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        limit: usize,
    ) -> Result<Body> {
        let announced = announced(request)?;
        if announced.is_some_and(|n| n > limit as u64) {
            return Err(too_large(limit));
        }
        let expected = announced.unwrap_or(0) as usize;
        match tokio::time::timeout(self.deadline, self.collect(payload, expected, limit)).await {
            Ok(body) => body,
            Err(_) => {
                let detail =
                    format!("the body did not arrive within {}", humantime::format_duration(self.deadline));
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail).closing())
            }
        }
    }

    /// Unpacks piece by piece: what a small body swells to is counted before it is held, and other requests get their turn.
    async fn unpack(&self, packed: &Body, limit: usize) -> Result<Body> {
        let mut share = Share { held: self.held.clone(), size: 0 };
        let mut decoder = MultiGzDecoder::new(packed.bytes());
        let mut bytes = BytesMut::new();
        let mut piece = vec![0; PIECE];
        loop {
            let read = decoder
                .read(&mut piece)
                .map_err(|e| Problem::bad_request(format!("the body is not valid gzip: {e}")))?;
            if read == 0 {
                return Ok(Body { bytes: bytes.freeze(), _share: share });
            }
            if bytes.len() + read > limit {
                let detail = format!("the body, unpacked, is larger than {limit} bytes");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            share.grow(read, self.most)?;
            bytes.extend_from_slice(&piece[..read]);
            tokio::task::yield_now().await;
        }
    }

    async fn collect(&self, mut payload: web::Payload, expected: usize, limit: usize) -> Result<Body> {
        let mut share = Share { held: self.held.clone(), size: 0 };
        // One chunk that is the whole body, as nearly all alerts are, is not copied.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk =
                chunk.map_err(|e| Problem::bad_request(format!("the body broke off: {e}")).closing())?;
            if share.size + chunk.len() > limit {
                return Err(too_large(limit));
            }
            share.grow(chunk.len(), self.most)?;
            if first.is_empty() && rest.is_empty() {
                first = chunk;
                continue;
            }
            if rest.is_empty() {
                // What is announced need not come: reserve no more than came already, and grow.
                rest.reserve(expected.min(first.len() * 2 + chunk.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&chunk);
        }
        let bytes = if rest.is_empty() { first } else { rest.freeze() };
        Ok(Body { bytes, _share: share })
    }
}

fn announced(request: &HttpRequest) -> Result<Option<u64>> {
    let Some(value) = request.headers().get(header::CONTENT_LENGTH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|v| v.parse().ok());
    number.map(Some).ok_or_else(|| Problem::bad_request("Content-Length is not a number"))
}

fn too_large(limit: usize) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).closing()
}

/// Unpacked at a time, before other requests get their turn.
const PIECE: usize = 64 << 10;

/// How a body is packed.
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// 415 for one that nothing here unpacks.
    fn of(request: &HttpRequest) -> Result<Self> {
        match request.headers().get(header::CONTENT_ENCODING).map(|v| v.as_bytes().to_ascii_lowercase()) {
            None => Ok(Self::Identity),
            Some(name) => match name.trim_ascii() {
                b"identity" => Ok(Self::Identity),
                b"gzip" | b"x-gzip" => Ok(Self::Gzip),
                _ => Err(not_taken("gzip, identity")),
            },
        }
    }
}

fn not_taken(taken: &'static str) -> Problem {
    let detail = format!("a body with this Content-Encoding is not taken; taken are: {taken}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static(taken))
        .closing()
}

/// 415 unless the request says that its body is JSON.
pub fn json(request: &HttpRequest) -> Result<()> {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = value.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json") {
        return Ok(());
    }
    let given = if value.is_empty() { "no type".to_owned() } else { format!("{value:?}") };
    let detail = format!("the body must be JSON: send Content-Type: application/json, not {given}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).closing())
}

/// A small JSON body.
pub async fn required<T: DeserializeOwned>(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T> {
    json(request)?;
    let body = state.bodies.read(request, payload, state.settings.http.max_body).await?;
    typed(body.text()?)
}

/// A small JSON body, or none.
pub async fn optional<T: DeserializeOwned + Default>(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T> {
    let body = state.bodies.read(request, payload, state.settings.http.max_body).await?;
    if body.bytes().is_empty() {
        return Ok(T::default());
    }
    json(request)?;
    typed(body.text()?)
}

fn typed<T: DeserializeOwned>(text: &str) -> Result<T> {
    // Derived code would read an array as a struct, field by field.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Problem::bad_request("the body must be a JSON object"));
    }
    // PostgreSQL keeps no NUL, and nothing that people say or name has one.
    if text.contains("\\u0000") {
        return Err(Problem::bad_request("the body must not hold NUL (\\u0000)"));
    }
    serde_json::from_str(text).map_err(|e| Problem::bad_request(format!("the body: {e}")))
}
