//! Sends batches to Redis: a bounded buffer for each partition and one task that empties it. While Redis is away the buffer
//! fills; then producers are refused.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use redis::{RedisResult, Script};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Asker, FULL_WAIT, SOURCE, Shared, codec, lock};
use crate::{
    bus::Record,
    clock,
    config::BusSettings,
    ids, metrics,
    model::{Gap, Phrase},
};

/// Bytes of one entry at most, unless one record alone is larger.
const MAX_ENTRY: usize = 256 << 10;
/// How long what is buffered may take to be sent when the program stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// What was refused in so much time is told as one gap.
const ONE_GAP: Duration = Duration::from_secs(5);

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish.lua")));

/// What waits to be sent.
pub(super) struct Outgoing {
    queues: Mutex<Vec<Queue>>,
    ready: Vec<Notify>,
    /// Something was sent, or Redis has no memory for it.
    moved: Notify,
    /// Bounds of one partition.
    max_records: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// The batch that is being sent included.
    records: usize,
    bytes: usize,
    /// Records that were ever taken, and how many of them are on the stream.
    taken: u64,
    sent: u64,
    /// The last answer was that Redis has no memory.
    out_of_memory: bool,
    /// Records that found no room and are not on the stream as a gap yet, and since when.
    refused: Option<(Timestamp, u64)>,
}

/// Encoded records, by partition.
pub(super) struct Batches(Vec<Vec<Batch>>);

/// Encoded records of one partition.
#[derive(Default)]
struct Batch {
    payload: Vec<u8>,
    records: usize,
}

impl Outgoing {
    pub fn new(settings: &BusSettings) -> Self {
        let partitions = settings.partitions.max(1);
        Self {
            queues: Mutex::new((0..partitions).map(|_| Queue::default()).collect()),
            ready: (0..partitions).map(|_| Notify::new()).collect(),
            moved: Notify::new(),
            max_records: (settings.max_records / partitions).max(1),
            max_bytes: (settings.max_bytes / partitions).max(1),
        }
    }

    pub fn records(&self) -> usize {
        lock(&self.queues).iter().map(|queue| queue.records).sum()
    }

    /// Takes all or nothing.
    pub fn push(&self, batches: Batches) -> Result<(), Batches> {
        let mut queues = lock(&self.queues);
        let fits = batches.0.iter().zip(queues.iter()).all(|(batches, queue)| {
            let (records, bytes) = size(batches);
            batches.is_empty()
                || queue.records == 0
                || (queue.records + records <= self.max_records && queue.bytes + bytes <= self.max_bytes)
        });
        if !fits {
            return Err(batches);
        }
        let batches = batches.0;
        for ((batches, queue), ready) in batches.into_iter().zip(queues.iter_mut()).zip(&self.ready) {
            if batches.is_empty() {
                continue;
            }
            let (records, bytes) = size(&batches);
            queue.records += records;
            queue.bytes += bytes;
            queue.taken += records as u64;
            queue.batches.extend(batches);
            ready.notify_one();
        }
        Ok(())
    }

    /// Remembers what found no room, to say so to whoever reads the partitions.
    pub fn refuse(&self, batches: &Batches) {
        let mut queues = lock(&self.queues);
        for (batches, queue) in batches.0.iter().zip(queues.iter_mut()).filter(|(b, _)| !b.is_empty()) {
            let (_, refused) = queue.refused.get_or_insert_with(|| (clock::now(), 0));
            *refused += size(batches).0 as u64;
        }
    }

    /// What was refused, once it has been long enough or `at_once`.
    fn take_refused(&self, partition: usize, at_once: bool) -> Option<(Timestamp, u64)> {
        let refused = &mut lock(&self.queues)[partition].refused;
        refused.take_if(|(since, _)| at_once || clock::between(*since, clock::now()) >= ONE_GAP)
    }

    /// Waits until all that was taken before is on its stream, or Redis has no memory for it.
    pub async fn flushed(&self) {
        let until: Vec<u64> = lock(&self.queues).iter().map(|queue| queue.taken).collect();
        loop {
            let moved = self.moved.notified();
            let there = |(queue, until): (&Queue, &u64)| queue.sent >= *until || queue.out_of_memory;
            if lock(&self.queues).iter().zip(&until).all(there) {
                return;
            }
            moved.await;
        }
    }

    /// What waits, put together as far as it goes into one entry.
    fn next(&self, partition: usize) -> Option<Batch> {
        let mut queues = lock(&self.queues);
        let waiting = &mut queues[partition].batches;
        let mut batch = waiting.pop_front()?;
        while let Some(more) = waiting.front()
            && batch.payload.len() + more.payload.len() <= MAX_ENTRY
            && let Some(more) = waiting.pop_front()
        {
            batch.payload.extend_from_slice(&more.payload);
            batch.records += more.records;
        }
        Some(batch)
    }

    /// It is on the stream, or given up.
    fn gone(&self, partition: usize, batch: &Batch, sent: bool) {
        let queue = &mut lock(&self.queues)[partition];
        queue.records -= batch.records;
        queue.bytes -= batch.payload.len();
        if sent {
            queue.sent += batch.records as u64;
            self.moved.notify_waiters();
        }
    }

    fn out_of_memory(&self, partition: usize, is: bool) {
        lock(&self.queues)[partition].out_of_memory = is;
        if is {
            self.moved.notify_waiters();
        }
    }
}

fn size(batches: &[Batch]) -> (usize, usize) {
    batches.iter().fold((0, 0), |(records, bytes), b| (records + b.records, bytes + b.payload.len()))
}

pub(super) fn encode(records: &[Record], partitions: usize) -> Batches {
    let mut out: Vec<Vec<Batch>> = (0..partitions).map(|_| Vec::new()).collect();
    let mut before: Vec<Option<&Record>> = vec![None; partitions];
    for record in records {
        for partition in record.place(partitions) {
            let (batches, before) = (&mut out[partition], &mut before[partition]);
            if batches.last().is_none_or(|batch| batch.payload.len() >= MAX_ENTRY) {
                batches.push(Batch::default());
                *before = None;
            }
            let batch = batches.last_mut().expect("there is one now");
            codec::encode(&mut batch.payload, record, *before);
            batch.records += 1;
            *before = Some(record);
        }
    }
    Batches(out)
}

/// Sends until `stop`, then what is left, within a few seconds.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for partition in 0..shared.partitions {
        let sender = Sender { shared: shared.clone(), stop: stop.clone(), partition, number: 0, until: None };
        tasks.spawn(sender.run());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!(error = %e, "a sender to Redis panicked; its partition is not fed any more");
            stop.cancelled().await;
        }
    }
}

struct Sender {
    shared: Arc<Shared>,
    stop: CancellationToken,
    partition: usize,
    /// Of the last batch.
    number: u64,
    /// When to give up, once the program stops.
    until: Option<Instant>,
}

impl Sender {
    async fn run(mut self) {
        loop {
            while let Some(batch) = self.shared.outgoing.next(self.partition) {
                let sent = self.send(&batch).await;
                self.shared.outgoing.gone(self.partition, &batch, sent);
                if sent {
                    self.tell_refused().await;
                } else {
                    metrics::BUS_LOST.inc_by(batch.records as u64);
                    tracing::error!(
                        records = batch.records,
                        "telemetry could not be sent to Redis before the end of the program, and is lost"
                    );
                }
            }
            self.tell_refused().await;
            if self.stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.shared.outgoing.ready[self.partition].notified() => {}
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(ONE_GAP) => {}
            }
        }
    }

    /// Says on the stream what found no room before it: the reader may be another process.
    async fn tell_refused(&mut self) {
        let (outgoing, partition) = (&self.shared.outgoing, self.partition);
        let Some((at, refused)) = outgoing.take_refused(partition, self.stop.is_cancelled()) else { return };
        let reason = Phrase::RecordsRefused { source: SOURCE.into(), records: refused.to_string() }.into();
        let until = Some(clock::now());
        let gap = Record::Gap(Gap { at, until, service: None, source: SOURCE.into(), reason: Some(reason) });
        let mut batch = Batch { payload: Vec::new(), records: 1 };
        codec::encode(&mut batch.payload, &gap, None);
        self.send(&batch).await;
    }

    /// Tries until it is there; false if the program ends before.
    async fn send(&mut self, batch: &Batch) -> bool {
        self.number += 1;
        let mut wait = FULL_WAIT;
        loop {
            let pause = match self.try_send(batch).await {
                Ok(true) => return true,
                Ok(false) => FULL_WAIT,
                Err(e) => {
                    self.shared.outgoing.out_of_memory(self.partition, e.code() == Some("OOM"));
                    self.shared.failed(Asker::Writer(self.partition), &e);
                    wait = (wait * 2).min(LONGEST_WAIT);
                    wait.mul_f64(0.5 + ids::fraction() / 2.0)
                }
            };
            if self.stop.is_cancelled()
                && Instant::now() >= *self.until.get_or_insert(Instant::now() + FLUSH_WITHIN)
            {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_send(&self, batch: &Batch) -> RedisResult<bool> {
        let shared = &self.shared;
        let mut call = PUBLISH.prepare_invoke();
        call.key(shared.keys.stream(self.partition))
            .key(shared.keys.state(self.partition))
            .key(shared.keys.producer(self.partition, &shared.producer))
            .arg(&batch.payload)
            .arg(batch.records)
            .arg(batch.payload.len())
            .arg(shared.max_records)
            .arg(shared.max_bytes)
            .arg(ids::opaque())
            .arg(self.number)
            .arg(codec::VERSION);
        let taken = shared.link.script::<i64>(&call).await? == 1;
        shared.outgoing.out_of_memory(self.partition, false);
        shared.succeeded(Asker::Writer(self.partition));
        Ok(taken)
    }
}
