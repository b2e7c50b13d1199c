//! The live stream: every line of every timeline as it is written, resumable, as server-sent events.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, get,
    http::header::{self, HeaderValue},
    web,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    clock,
    http::{
        State,
        auth::{As, Viewer},
        problem::{Problem, ProblemDocument, Result},
        query,
    },
    metrics,
    model::TimelineEntry,
    store::{self, timeline},
};

/// A comment goes out after so much silence, so that proxies and clients know that the line is up.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Another replica's commits ring no bell here: look this often.
const LOOK: Duration = Duration::from_secs(2);
const BATCH: i64 = 200;
/// On PostgreSQL a transaction may commit after one with higher numbers; so far back is looked for such latecomers.
const LATE: Duration = Duration::from_secs(5);

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Begin {
    /// Begin after this `seq` (the header `Last-Event-ID` wins); absent: what comes from now on.
    after: Option<i64>,
    /// Only of this incident.
    incident_id: Option<String>,
}

/// Timeline entries as they are written: `id` is the entry's `seq`, `event` is `timeline`, `data` the entry as JSON. A client
/// that comes back with `Last-Event-ID` misses nothing.
#[utoipa::path(tag = "events", params(Begin, ("Last-Event-ID" = Option<i64>, Header)), security(("token" = ["viewer"])),
    responses((status = 200, body = TimelineEntry, content_type = "text/event-stream"), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/events")]
pub async fn stream(
    state: web::Data<State>,
    _caller: As<Viewer>,
    request: HttpRequest,
) -> Result<HttpResponse> {
    let from: Begin = query::parse(&request)?;
    let last = match request.headers().get("last-event-id") {
        Some(value) => Some(number(value)?),
        None => from.after,
    };
    let place = state.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::unavailable("too many clients follow the stream; http.max_streams bounds them")
    })?;
    let mut tx = state.deps.store.read().await?;
    let incident_id = match from.incident_id {
        Some(text) => Some(super::incidents::find(&mut tx, &text).await?.id),
        None => None,
    };
    let position = match last {
        Some(seq) => seq,
        None => timeline::newest(&mut tx).await?,
    };
    drop(tx);
    let follower = Follower {
        state,
        settled: position,
        told: BTreeSet::new(),
        incident_id,
        ready: VecDeque::new(),
        greeted: false,
        _place: Place::new(place),
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(unfold(follower, Follower::next)))
}

fn number(value: &HeaderValue) -> Result<i64> {
    let number = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    number.ok_or_else(|| Problem::bad_request("Last-Event-ID is not an id of this stream"))
}

/// A client's seat; counted while it is taken.
struct Place(#[allow(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::STREAM_CLIENTS.inc();
        Self(permit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::STREAM_CLIENTS.dec();
    }
}

/// One client. Reads as fast as the client takes, so a slow one costs no memory.
struct Follower {
    state: web::Data<State>,
    /// Everything up to here was told, and nothing can come before it any more.
    settled: i64,
    /// What was told after that.
    told: BTreeSet<i64>,
    incident_id: Option<String>,
    ready: VecDeque<TimelineEntry>,
    greeted: bool,
    _place: Place,
}

type Chunk = std::result::Result<Bytes, actix_web::Error>;

impl Follower {
    async fn next(mut self) -> Option<(Chunk, Self)> {
        if !self.greeted {
            self.greeted = true;
            let greeting = format!("retry: 2000\n: from {}\n\n", self.settled);
            return Some((Ok(greeting.into()), self));
        }
        let silent_until = Instant::now() + HEARTBEAT;
        let stop = self.state.deps.stop.clone();
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some((Ok(event(&entry)), self));
            }
            // Registered before the look, so that what is written meanwhile is not slept over.
            let bells = self.state.deps.store.bells.clone();
            let bell = bells.timeline.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the live stream cannot read the store");
            }
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(silent_until) => return Some((Ok(Bytes::from_static(b": still here\n\n")), self)),
                () = bell => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self) -> store::Result<()> {
        let mut tx = self.state.deps.store.read().await?;
        let limit = BATCH + i64::try_from(self.told.len()).unwrap_or(BATCH);
        let entries = timeline::since(&mut tx, self.settled, limit).await?;
        let old = clock::before(clock::now(), LATE);
        let settled = entries.iter().take_while(|e| e.at < old).last().map(|e| e.seq);
        let wanted = self.incident_id.as_deref();
        for entry in entries {
            let new = self.told.insert(entry.seq);
            if new && wanted.is_none_or(|id| id == entry.incident_id) {
                self.ready.push_back(entry);
            }
        }
        if let Some(seq) = settled {
            self.settled = seq;
            self.told = self.told.split_off(&(seq + 1));
        }
        Ok(())
    }
}

fn event(entry: &TimelineEntry) -> Bytes {
    let data = serde_json::to_string(entry).expect("an entry serialises");
    format!("id: {}\nevent: timeline\ndata: {data}\n\n", entry.seq).into()
}
