//! Reads one partition from Redis: what was handed out and not saved comes first, then what is new; says what is missing.
//!
//! A task reads ahead a little; [`Reader`] is its far end. Every fault ends in opening the stream anew, from the place that
//! was reached.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use redis::{RedisError, RedisResult, Script, Value};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::Instant,
};

use super::{Asker, GROUP, SOURCE, Shared, brief, codec, lock};
use crate::{
    bus::{Consumer, Delivery, Mark, Record, Start},
    clock, ids, metrics,
    model::{Gap, Phrase, Said},
};

static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("open.lua")));
static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("read.lua")));

/// Entries that are read at a time.
const AT_ONCE: usize = 32;
/// Pending entries that are looked at in one question.
const PAGE: usize = 500;
/// How often a partition without news is asked, from the first time on.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// An entry that was handed out more often kills its readers: it goes to the dead letters.
const MAX_DELIVERIES: u64 = 5;
/// From so many on, entries are tried one by one, and the one on trial is written down, so that none is taken for another.
const CAREFUL: u64 = 3;
/// Redis away for longer is a gap as long as it lasts.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// The far end of the reading task; dropping it ends the task.
pub(super) struct Reader {
    deliveries: mpsc::Receiver<Delivery>,
    place: Arc<Place>,
    task: AbortHandle,
}

/// What both ends know.
struct Place {
    shared: Arc<Shared>,
    start: Start,
    /// Entries that were handed out and are not saved: id, records, bytes.
    unsaved: Mutex<VecDeque<(Id, u64, u64)>>,
    unsaved_records: AtomicU64,
    unsaved_bytes: AtomicU64,
    handed_out: AtomicU64,
    judged: AtomicU64,
    /// There is room again, or everything was judged.
    moved: Notify,
    behind: AtomicBool,
}

/// Of an entry: milliseconds and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64);

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (ms, n) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, n.parse().ok()?))
    }
    /// When Redis took the entry.
    fn time(self) -> Timestamp {
        let at = i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.unwrap_or(Timestamp::UNIX_EPOCH).min(clock::now())
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Reader {
    pub fn start(shared: Arc<Shared>, start: Start) -> Self {
        let (sender, deliveries) = mpsc::channel(4);
        let place = Arc::new(Place {
            shared,
            start,
            unsaved: Mutex::default(),
            unsaved_records: AtomicU64::new(0),
            unsaved_bytes: AtomicU64::new(0),
            handed_out: AtomicU64::new(0),
            judged: AtomicU64::new(0),
            moved: Notify::new(),
            behind: AtomicBool::new(true),
        });
        let ahead = Ahead {
            at: place.start.mark.clone(),
            consumer: format!("{}-{}", place.start.owner, place.start.fence),
            place: place.clone(),
            out: sender,
            away: None,
            careful: false,
            all_read: None,
            given_up: 0,
        };
        let task = tokio::spawn(ahead.run()).abort_handle();
        Self { deliveries, place, task }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    fn judged(&mut self, _delivery: Delivery) {
        self.place.judged.fetch_add(1, Relaxed);
        self.place.moved.notify_one();
    }

    async fn saved(&mut self, mark: &Mark) {
        if let Err(e) = self.place.acknowledge(mark).await {
            // They are acknowledged with the next ones.
            self.place.shared.failed(Asker::Reader(self.place.start.partition), &e);
        }
    }

    fn waits_for_save(&self) -> bool {
        self.place.unsaved_is_over(4)
    }

    fn is_behind(&self) -> bool {
        self.place.behind.load(Relaxed)
    }
}

impl Place {
    fn stream(&self) -> String {
        self.shared.keys.stream(self.start.partition)
    }

    /// True if what is unsaved takes more than so much of the partition's room.
    fn unsaved_is_over(&self, part: usize) -> bool {
        self.unsaved_records.load(Relaxed) >= (self.shared.max_records / part) as u64
            || self.unsaved_bytes.load(Relaxed) >= (self.shared.max_bytes / part) as u64
    }

    /// Takes off the stream what is saved.
    async fn acknowledge(&self, mark: &Mark) -> RedisResult<()> {
        let Some(last) = Id::parse(&mark.id) else { return Ok(()) };
        let done: Vec<(Id, u64, u64)> =
            lock(&self.unsaved).iter().take_while(|(id, ..)| *id <= last).copied().collect();
        let (stream, link) = (self.stream(), &self.shared.reading);
        for chunk in done.chunks(1000) {
            let ids: Vec<String> = chunk.iter().map(|(id, ..)| id.to_string()).collect();
            link.run::<Value>(redis::cmd("XACK").arg(&stream).arg(GROUP).arg(ids)).await?;
        }
        let after = Id(last.0, last.1.saturating_add(1)).to_string();
        link.run::<Value>(redis::cmd("XTRIM").arg(&stream).arg("MINID").arg("=").arg(after)).await?;
        let (records, bytes) = done.iter().fold((0, 0), |(r, b), (_, n, size)| (r + n, b + size));
        lock(&self.unsaved).drain(..done.len());
        self.unsaved_records.fetch_sub(records, Relaxed);
        self.unsaved_bytes.fetch_sub(bytes, Relaxed);
        self.moved.notify_one();
        let mut count = redis::cmd("HSET");
        count.arg(self.shared.keys.state(self.start.partition));
        count.arg("done_records").arg(mark.records).arg("done_bytes").arg(mark.bytes);
        match link.run::<Value>(&count).await {
            // What was taken off makes room; the next count is right again.
            Err(e) if e.code() == Some("OOM") => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Why reading stopped.
enum Stopped {
    /// Open again and go on.
    Again(Option<RedisError>),
    /// Another reader has taken over, or nobody listens any more.
    Over,
}

impl From<RedisError> for Stopped {
    fn from(e: RedisError) -> Self {
        match e.code() {
            Some("FENCED") => Self::Over,
            // The stream was emptied: opening it anew says so.
            Some("NOGROUP") => Self::Again(None),
            _ => Self::Again(Some(e)),
        }
    }
}

/// The reading task.
struct Ahead {
    place: Arc<Place>,
    out: mpsc::Sender<Delivery>,
    consumer: String,
    /// What was handed out last.
    at: Option<Mark>,
    away: Option<Away>,
    careful: bool,
    /// When there was nothing on the stream that had not been read.
    all_read: Option<Timestamp>,
    /// Records that were given up and not yet missed.
    given_up: u64,
}

/// Redis does not answer.
struct Away {
    since: Instant,
    at: Timestamp,
    told: bool,
}

impl Ahead {
    async fn run(mut self) {
        let mut wait = RETRY.0;
        let mut first = true;
        loop {
            let stopped = match self.open(first).await {
                Ok(()) => {
                    (first, wait) = (false, RETRY.0);
                    self.read().await
                }
                Err(stopped) => stopped,
            };
            match stopped {
                Stopped::Over => return,
                Stopped::Again(None) => {}
                Stopped::Again(Some(e)) => {
                    if self.went_away(&e).await.is_err() {
                        return;
                    }
                    wait = (wait * 2).min(RETRY.1);
                    tokio::time::sleep(wait.mul_f64(0.5 + ids::fraction() / 2.0)).await;
                }
            }
        }
    }

    /// Lets this reader in, makes the group, and takes over what others left pending. The first time, `at` is what is saved.
    async fn open(&mut self, first: bool) -> Result<(), Stopped> {
        let (place, start) = (self.place.clone(), &self.place.start);
        let (shared, stream) = (&place.shared, place.stream());
        let mut call = OPEN.prepare_invoke();
        call.key(&stream)
            .key(shared.keys.state(start.partition))
            .arg(start.fence)
            .arg(&start.owner)
            .arg(GROUP)
            .arg(&start.era);
        let (made, epoch, trying): (i64, String, String) = shared.reading.script(&call).await?;
        self.is_back().await?;
        let emptied = made == 1 || self.at.as_ref().is_some_and(|at| at.epoch != epoch);
        if emptied && let Some(since) = self.known_until() {
            self.at = None;
            // What was handed out is not there any more to be acknowledged.
            lock(&place.unsaved).clear();
            place.unsaved_records.store(0, Relaxed);
            place.unsaved_bytes.store(0, Relaxed);
            self.gap(since, Phrase::StreamEmptied { source: SOURCE.into() }.into()).await?;
        }
        self.all_read.get_or_insert_with(clock::now);
        let saved = self.at.as_ref().filter(|_| first).and_then(|at| Id::parse(&at.id));
        self.take_over(&stream, first, saved, Id::parse(&trying)).await?;
        Ok(())
    }

    async fn take_over(
        &mut self,
        stream: &str,
        first: bool,
        saved: Option<Id>,
        trying: Option<Id>,
    ) -> Result<(), Stopped> {
        let (place, link) = (self.place.clone(), &self.place.shared.reading.clone());
        let mut from = "-".to_owned();
        let mut most = 0;
        loop {
            let mut ask = redis::cmd("XPENDING");
            ask.arg(stream).arg(GROUP).arg(&from).arg("+").arg(PAGE);
            let page: Vec<(String, String, u64, u64)> = link.run(&ask).await?;
            let Some(last) = page.last() else { break };
            from = format!("({}", last.0);
            let mut claims: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
            for (id, consumer, _, deliveries) in &page {
                let Some(parsed) = Id::parse(id) else { continue };
                if saved.is_some_and(|saved| parsed <= saved) {
                    link.run::<Value>(redis::cmd("XACK").arg(stream).arg(GROUP).arg(id)).await?;
                    continue;
                }
                most = most.max(deliveries + 1);
                if first && *deliveries > MAX_DELIVERIES && trying == Some(parsed) {
                    self.give_up(stream, id, *deliveries).await?;
                } else if *consumer != self.consumer {
                    claims.entry(*deliveries).or_default().push(id);
                }
            }
            for (deliveries, ids) in claims {
                let mut claim = redis::cmd("XCLAIM");
                claim.arg(stream).arg(GROUP).arg(&self.consumer).arg(0).arg(ids);
                // Counted when it is read.
                claim.arg("RETRYCOUNT").arg(deliveries).arg("JUSTID");
                link.run::<Value>(&claim).await?;
            }
        }
        self.careful |= most >= CAREFUL;
        forget_consumers(link, stream, &self.consumer).await?;
        if trying.is_some() && !self.careful {
            let state = place.shared.keys.state(place.start.partition);
            link.run::<Value>(redis::cmd("HDEL").arg(state).arg("trying")).await?;
        }
        Ok(())
    }

    /// An entry that nobody survives.
    async fn give_up(&mut self, stream: &str, id: &str, deliveries: u64) -> Result<(), Stopped> {
        let place = self.place.clone();
        let link = &place.shared.reading;
        let found: Vec<Entry> = entries(link.run(redis::cmd("XRANGE").arg(stream).arg(id).arg(id)).await?);
        let reason = format!("handed out {deliveries} times without an end");
        let records = found.first().map_or(0, |entry| entry.number("n"));
        let data = found.first().map_or(&b""[..], |entry| entry.bytes("d"));
        place.shared.bury(link, stream, id, data, &reason).await?;
        self.given_up += records;
        let at = Id::parse(id).unwrap_or_default().time();
        self.gap(at, Phrase::EntryUnreadable { records: records.to_string() }.into()).await
    }

    async fn read(&mut self) -> Stopped {
        match self.read_on().await {
            Ok(()) => Stopped::Over,
            Err(stopped) => stopped,
        }
    }

    async fn read_on(&mut self) -> Result<(), Stopped> {
        // What is pending and was not handed out: claimed from others, or read when the answer got lost.
        let mut from = self.at.as_ref().map_or_else(|| "0-0".to_owned(), |at| at.id.clone());
        let mut poll = POLL.0;
        loop {
            self.wait_for_room().await;
            let old = from != ">";
            let found = self.ask(&from).await?;
            self.place.behind.store(old || found.len() == AT_ONCE, Relaxed);
            match found.last() {
                Some(last) if old => from = last.id.clone(),
                Some(_) => poll = POLL.0,
                None if old => {
                    from = ">".to_owned();
                    if std::mem::take(&mut self.careful) {
                        let state = self.place.shared.keys.state(self.place.start.partition);
                        let forget = redis::cmd("HDEL").arg(state).arg("trying").to_owned();
                        self.place.shared.reading.run::<Value>(&forget).await?;
                    }
                }
                None => {
                    self.all_read = Some(clock::now());
                    tokio::time::sleep(poll).await;
                    poll = (poll * 2).min(POLL.1);
                }
            }
            for entry in found {
                self.take(entry).await?;
            }
        }
    }

    /// Whatever came until then was handed out.
    fn known_until(&self) -> Option<Timestamp> {
        self.at.as_ref().map(|at| at.at).max(self.all_read)
    }

    async fn ask(&self, from: &str) -> RedisResult<Vec<Entry>> {
        let (shared, start) = (&self.place.shared, &self.place.start);
        let mut call = READ.prepare_invoke();
        call.key(self.place.stream())
            .key(shared.keys.state(start.partition))
            .arg(start.fence)
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(AT_ONCE)
            .arg(from)
            .arg(&start.era);
        // Nil, or one stream with its entries.
        let answer: Option<Vec<(String, Value)>> = shared.reading.script(&call).await?;
        Ok(answer.into_iter().flatten().flat_map(|(_, found)| entries(found)).collect())
    }

    /// The pending list stays within bounds: nothing is read while too much is unsaved.
    async fn wait_for_room(&self) {
        let place = &self.place;
        let all_judged = || place.judged.load(Relaxed) == place.handed_out.load(Relaxed);
        while place.unsaved_is_over(2) || (self.careful && !all_judged()) {
            place.moved.notified().await;
        }
    }

    /// Checks one entry against what came before it, and hands it on.
    async fn take(&mut self, entry: Entry) -> Result<(), Stopped> {
        let stream = self.place.stream();
        let link = self.place.shared.reading.clone();
        let Some(id) = Id::parse(&entry.id) else { return Ok(()) };
        if entry.fields.is_empty() {
            // It was pending and is deleted. The numbers of the next one tell what is missing.
            link.run::<Value>(redis::cmd("XACK").arg(&stream).arg(GROUP).arg(&entry.id)).await?;
            return Ok(());
        }
        let (mark, records) = match understand(&entry, id) {
            Ok(understood) => understood,
            Err(reason) => {
                self.place.shared.bury(&link, &stream, &entry.id, entry.bytes("d"), &reason).await?;
                let lost = Phrase::EntryUnreadable { records: entry.number("n").to_string() };
                if let Some(at) = &mut self.at
                    && at.epoch.as_bytes() == entry.bytes("e")
                {
                    // What it held is accounted for.
                    at.records += entry.number("n");
                }
                return self.gap(id.time(), lost.into()).await;
            }
        };
        // Those included whose kinds only a newer version knows.
        let count = entry.number("n");
        if let Some(at) = self.at.clone() {
            let known = Id::parse(&at.id).unwrap_or_default();
            if at.epoch == mark.epoch && id <= known {
                link.run::<Value>(redis::cmd("XACK").arg(&stream).arg(GROUP).arg(&entry.id)).await?;
                return Ok(());
            }
            let since = self.known_until().unwrap_or(at.at);
            match mark.records.checked_sub(at.records + count) {
                Some(0) if at.epoch == mark.epoch => {}
                Some(missing) if at.epoch == mark.epoch => {
                    let lost = missing.saturating_sub(std::mem::take(&mut self.given_up));
                    if lost > 0 {
                        self.gap(
                            since,
                            Phrase::RecordsLost { source: SOURCE.into(), records: lost.to_string() }.into(),
                        )
                        .await?;
                    }
                }
                _ => self.gap(since, Phrase::StreamEmptied { source: SOURCE.into() }.into()).await?,
            }
        }
        if self.careful {
            self.wait_for_room().await;
            let state = self.place.shared.keys.state(self.place.start.partition);
            let note = redis::cmd("HSET").arg(state).arg("trying").arg(&entry.id).to_owned();
            match link.run::<Value>(&note).await {
                // It is not set aside then; but reading goes on, or nothing would ever be freed.
                Err(e) if e.code() == Some("OOM") => {}
                other => drop(other?),
            }
        }
        metrics::BUS_SKIPPED.inc_by(count - records.len() as u64);
        let size = entry.bytes("d").len() as u64;
        lock(&self.place.unsaved).push_back((id, count, size));
        self.place.unsaved_records.fetch_add(count, Relaxed);
        self.place.unsaved_bytes.fetch_add(size, Relaxed);
        self.at = Some(mark.clone());
        self.hand_out(records, Some(id.time()), Some(mark)).await
    }

    async fn hand_out(
        &self,
        records: Vec<Record>,
        arrived: Option<Timestamp>,
        mark: Option<Mark>,
    ) -> Result<(), Stopped> {
        self.place.handed_out.fetch_add(1, Relaxed);
        let lost = |r: &Record| matches!(r, Record::Gap(gap) if gap.until.is_some());
        let gaps = records.iter().filter(|r| lost(r)).count() as u64;
        self.place.shared.gaps[self.place.start.partition].fetch_add(gaps, Relaxed);
        metrics::BUS_GAPS.inc_by(gaps);
        let delivery = Delivery { records: Arc::new(records), arrived, mark };
        self.out.send(delivery).await.map_err(|_| Stopped::Over)
    }

    /// Says that telemetry from `from` until now is incomplete.
    async fn gap(&self, from: Timestamp, reason: Said) -> Result<(), Stopped> {
        let now = clock::now();
        tracing::warn!(partition = self.place.start.partition, since = %from, "telemetry is incomplete: {reason}");
        let gap =
            Gap { at: from, until: Some(now), service: None, source: SOURCE.into(), reason: Some(reason) };
        self.hand_out(vec![Record::Gap(gap)], None, None).await
    }

    async fn went_away(&mut self, e: &RedisError) -> Result<(), Stopped> {
        self.place.behind.store(true, Relaxed);
        self.place.shared.failed(Asker::Reader(self.place.start.partition), e);
        let away =
            self.away.get_or_insert_with(|| Away { since: Instant::now(), at: clock::now(), told: false });
        if away.told || away.since.elapsed() < TOLD_AFTER {
            return Ok(());
        }
        away.told = true;
        let at = away.at;
        self.tell(at, Some(brief(e).into())).await
    }

    async fn is_back(&mut self) -> Result<(), Stopped> {
        self.place.shared.succeeded(Asker::Reader(self.place.start.partition));
        let Some(away) = self.away.take() else { return Ok(()) };
        if away.told { self.tell(clock::now(), None).await } else { Ok(()) }
    }

    /// An open gap: Redis does not answer, or (no reason) answers again.
    async fn tell(&self, at: Timestamp, reason: Option<Said>) -> Result<(), Stopped> {
        let gap = Gap { at, until: None, service: None, source: SOURCE.into(), reason };
        self.hand_out(vec![Record::Gap(gap)], None, None).await
    }
}

/// Consumers of former readers, once they hold nothing: what a consumer holds would be lost with it.
async fn forget_consumers(link: &super::Link, stream: &str, me: &str) -> RedisResult<()> {
    let all: redis::streams::StreamInfoConsumersReply =
        link.run(redis::cmd("XINFO").arg("CONSUMERS").arg(stream).arg(GROUP)).await?;
    for old in all.consumers.iter().filter(|c| c.name != me && c.pending == 0) {
        let mut forget = redis::cmd("XGROUP");
        forget.arg("DELCONSUMER").arg(stream).arg(GROUP).arg(&old.name);
        link.run::<Value>(&forget).await?;
    }
    Ok(())
}

/// A stream entry; without fields if it was deleted.
pub(super) struct Entry {
    pub id: String,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub fn bytes(&self, field: &str) -> &[u8] {
        let found = self.fields.iter().find(|(name, _)| name == field.as_bytes());
        found.map_or(&[], |(_, value)| value)
    }
    fn number(&self, field: &str) -> u64 {
        std::str::from_utf8(self.bytes(field)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The entries of `XRANGE` and of one stream of `XREADGROUP`.
pub(super) fn entries(value: Value) -> Vec<Entry> {
    let found: Vec<(String, Value)> = redis::from_redis_value(value).unwrap_or_default();
    let entry = |(id, fields)| Entry { id, fields: redis::from_redis_value(fields).unwrap_or_default() };
    found.into_iter().map(entry).collect()
}

/// What an entry holds, or why nobody can tell.
fn understand(entry: &Entry, id: Id) -> Result<(Mark, Vec<Record>), String> {
    let missing = ["v", "e", "n", "r", "b", "d"].into_iter().find(|field| entry.bytes(field).is_empty());
    if let Some(field) = missing {
        return Err(format!("field {field} is missing; other producers write to the ingest stream"));
    }
    let version = String::from_utf8_lossy(entry.bytes("v"));
    if version != codec::VERSION {
        return Err(format!("it has format {version}, this version reads {}", codec::VERSION));
    }
    let count = usize::try_from(entry.number("n")).unwrap_or(usize::MAX);
    let records = codec::decode(entry.bytes("d"), count)?;
    let mark = Mark {
        epoch: String::from_utf8_lossy(entry.bytes("e")).into_owned(),
        id: entry.id.clone(),
        records: entry.number("r"),
        bytes: entry.number("b"),
        at: id.time(),
    };
    Ok((mark, records))
}
