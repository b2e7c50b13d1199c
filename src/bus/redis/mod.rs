//! The bus over Redis Streams, for several processes.
//!
//! Each partition is a stream that only its one reader trims: what is on it has not been saved yet. Producers append by a
//! script that refuses what would not fit, numbers the records, and takes a batch that is sent again for what it is. The
//! numbers tell the reader exactly whether anything is missing, whatever became of Redis. docs/streams.md is the contract.

mod check;
mod codec;
mod ingest;
mod link;
mod reader;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
pub use check::{Reached, reach};
pub use ingest::{Ingest, Raw};
use jiff::Timestamp;
use redis::{RedisError, RedisResult};
use tokio_util::sync::CancellationToken;

use super::{Bus, Consumer, Kind, PartitionStatus, Published, Record, Start, Status, filled};
use crate::{
    clock,
    config::{self, BusSettings},
    ids, metrics,
};
use link::Link;

/// The consumer group of aiops.
const GROUP: &str = "aiops";
/// What gaps are named after.
const SOURCE: &str = "Redis";
/// How long to wait where there is no room.
const FULL_WAIT: Duration = Duration::from_millis(50);
/// Entries of the dead-letter stream, about.
const MAX_DEAD: usize = 10_000;
/// Bytes of a dead entry that are kept.
const MAX_DEAD_BYTES: usize = 64 << 10;

/// Cheap to clone; all clones share connections and buffers.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    /// For small questions with quick answers, and for batches that are sent.
    link: Link,
    /// For reading.
    reading: Link,
    keys: Keys,
    partitions: usize,
    /// Of one partition.
    max_records: usize,
    max_bytes: usize,
    outgoing: writer::Outgoing,
    /// This process, among all that write.
    producer: String,
    gaps: Vec<AtomicU64>,
    closed: AtomicBool,
    health: Mutex<Health>,
    status: Mutex<Status>,
}

/// Whether Redis does what it is asked: who was refused, since when, and why.
type Health = BTreeMap<Asker, (Timestamp, String)>;

/// Who asks Redis; with the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Reader(usize),
    Sampler,
    Writer(usize),
}

/// The names of keys. What belongs to a partition shares a Cluster's slot by what is in braces.
#[derive(Clone)]
struct Keys {
    prefix: String,
}

impl Keys {
    fn stream(&self, partition: usize) -> String {
        format!("{}:{{{partition}}}:telemetry", self.prefix)
    }
    fn state(&self, partition: usize) -> String {
        format!("{}:{{{partition}}}:state", self.prefix)
    }
    fn producer(&self, partition: usize, producer: &str) -> String {
        format!("{}:{{{partition}}}:from:{producer}", self.prefix)
    }
    fn ingest(&self) -> String {
        format!("{}:ingest", self.prefix)
    }
    fn dead(&self) -> String {
        format!("{}:dead", self.prefix)
    }
}

impl Redis {
    /// Connects to nobody yet; fails if the settings cannot be used.
    pub fn new(settings: &config::Redis, bus: &BusSettings) -> anyhow::Result<Self> {
        let partitions = bus.partitions.max(1);
        let shared = Shared {
            link: Link::new(settings)?,
            reading: Link::new(settings)?,
            keys: Keys { prefix: settings.prefix.clone() },
            partitions,
            max_records: (settings.max_records / partitions).max(1),
            max_bytes: (settings.max_bytes / partitions).max(1),
            outgoing: writer::Outgoing::new(bus),
            producer: ids::opaque(),
            gaps: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            closed: AtomicBool::new(false),
            health: Mutex::default(),
            status: Mutex::new(Status::new(Kind::Redis)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Like [`Bus::publish`], for who keeps the batch until there is room: nobody is told that it was refused.
    pub fn offer(&self, records: &[Record]) -> bool {
        self.shared.outgoing.push(writer::encode(records, self.shared.partitions)).is_ok()
    }

    /// Waits until all that was taken before is on the streams, or Redis has no memory for it.
    pub async fn flushed(&self) {
        self.shared.outgoing.flushed().await;
    }

    /// What other producers have written for us. One reader at a time.
    pub fn ingest(&self, owner: &str) -> Ingest {
        Ingest::new(self.shared.clone(), owner)
    }
}

#[async_trait]
impl Bus for Redis {
    fn kind(&self) -> Kind {
        Kind::Redis
    }

    fn partitions(&self) -> usize {
        self.shared.partitions
    }

    /// Taken means: in this process's buffer, on its way. Nothing is taken once the buffer is full, because Redis is away,
    /// slow, or full itself.
    async fn publish(&self, records: Vec<Record>) -> Published {
        let count = records.len();
        if self.shared.closed.load(Ordering::Relaxed) {
            return Published { taken: 0, refused: count };
        }
        let batches = writer::encode(&records, self.shared.partitions);
        match self.shared.outgoing.push(batches) {
            Ok(()) => Published { taken: count, refused: 0 },
            Err(refused) => {
                self.shared.outgoing.refuse(&refused);
                Published { taken: 0, refused: count }
            }
        }
    }

    fn consumer(&self, start: Start) -> Box<dyn Consumer> {
        Box::new(reader::Reader::start(self.shared.clone(), start))
    }

    async fn run(&self, stop: CancellationToken) {
        let sending = writer::run(self.shared.clone(), stop.clone());
        tokio::join!(sending, self.shared.sample_until(stop));
    }

    fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }

    fn depth(&self) -> usize {
        let waiting: u64 = lock(&self.shared.status).partitions.iter().map(|p| p.waiting).sum();
        self.shared.outgoing.records() + usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    fn fill(&self) -> f64 {
        let Shared { max_records, max_bytes, .. } = *self.shared;
        let status = lock(&self.shared.status);
        let fill = |p: &PartitionStatus| filled(p.waiting, p.waiting_bytes, max_records, max_bytes);
        status.partitions.iter().map(fill).fold(0.0, f64::max)
    }

    fn status(&self) -> Status {
        let mut status = lock(&self.shared.status).clone();
        status.buffered = self.shared.outgoing.records() as u64;
        let first = lock(&self.shared.health).values().min().cloned();
        status.error =
            first.map(|(since, why)| format!("Redis does not do as it is asked since {since}: {why}"));
        for (partition, gaps) in status.partitions.iter_mut().zip(&self.shared.gaps) {
            partition.gaps = gaps.load(Ordering::Relaxed);
        }
        status
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error in a few words, without what may be secret.
fn brief(e: &RedisError) -> String {
    crate::redact::mask(&e.to_string())
}

impl Shared {
    /// Remembers and logs when Redis goes away.
    fn failed(&self, who: Asker, e: &RedisError) {
        let mut health = lock(&self.health);
        if health.is_empty() {
            let error = brief(e);
            tracing::warn!(error, ?who, "Redis does not do as it is asked; telemetry waits, within bounds");
        }
        health.entry(who).or_insert_with(|| (clock::now(), brief(e)));
        metrics::BUS_UP.set(0);
    }

    fn succeeded(&self, who: Asker) {
        let mut health = lock(&self.health);
        if let Some((since, _)) = health.remove(&who)
            && health.is_empty()
        {
            tracing::info!(%since, "Redis does as it is asked again");
        }
        metrics::BUS_UP.set(i64::from(health.is_empty()));
    }

    /// Sets an entry aside with the reason; counted, and bounded. Then it is acknowledged.
    async fn bury(&self, link: &Link, stream: &str, id: &str, data: &[u8], reason: &str) -> RedisResult<()> {
        tracing::warn!(stream, id, reason, "an entry cannot be used; it is in the dead-letter stream");
        let data = &data[..data.len().min(MAX_DEAD_BYTES)];
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.dead()).arg("MAXLEN").arg("~").arg(MAX_DEAD).arg("*");
        add.arg("reason").arg(reason).arg("stream").arg(stream).arg("id").arg(id).arg("data").arg(data);
        match link.run::<redis::Value>(&add).await {
            // It must not come again and again because there is no memory for what it was.
            Err(e) if e.code() == Some("OOM") => {}
            other => drop(other?),
        }
        metrics::BUS_DEAD.inc();
        link.run::<redis::Value>(redis::cmd("XACK").arg(stream).arg(GROUP).arg(id)).await?;
        link.run(redis::cmd("XDEL").arg(stream).arg(id)).await
    }

    /// Looks now and then at what waits, for people.
    async fn sample_until(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.sample().await {
                Ok(status) => {
                    self.succeeded(Asker::Sampler);
                    *lock(&self.status) = status;
                }
                Err(e) => self.failed(Asker::Sampler, &e),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn sample(&self) -> RedisResult<Status> {
        let mut status = Status::new(Kind::Redis);
        for partition in 0..self.partitions {
            status.partitions.push(self.sample_partition(partition).await?);
        }
        status.dead_letters = self.link.run(redis::cmd("XLEN").arg(self.keys.dead())).await?;
        status.ingest = self.link.run(redis::cmd("XLEN").arg(self.keys.ingest())).await?;
        Ok(status)
    }

    async fn sample_partition(&self, partition: usize) -> RedisResult<PartitionStatus> {
        let key = self.keys.state(partition);
        let ask =
            redis::cmd("HMGET").arg(&key).arg(&["records", "bytes", "done_records", "done_bytes"]).to_owned();
        let counted: Vec<Option<u64>> = self.link.run(&ask).await?;
        let owner = self.link.run(redis::cmd("HGET").arg(&key).arg("owner")).await?;
        let number = |at: usize| counted.get(at).copied().flatten().unwrap_or(0);
        // Done with more than there is: the stream was begun anew since.
        let left = |all: u64, done: u64| all.checked_sub(done).unwrap_or(all);
        let mut status = PartitionStatus {
            partition,
            waiting: left(number(0), number(2)),
            waiting_bytes: left(number(1), number(3)),
            owner,
            ..PartitionStatus::default()
        };
        let groups = redis::cmd("XINFO").arg("GROUPS").arg(self.keys.stream(partition)).to_owned();
        match self.link.run::<redis::streams::StreamInfoGroupsReply>(&groups).await {
            Ok(reply) => {
                let group = reply.groups.into_iter().find(|g| g.name == GROUP);
                status.pending = group.as_ref().map(|g| g.pending as u64);
                status.lag = group.and_then(|g| g.lag).map(|lag| lag as u64);
            }
            // There is no stream yet.
            Err(e) if e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError) => {}
            Err(e) => return Err(e),
        }
        Ok(status)
    }
}
