//! Sends batches to Redis: a bounded buffer for each partition and one task that empties it. While Redis is away the buffer
//! fills; then producers are refused.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use redis::{RedisResult, Script};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Asker, Shared, codec, lock};
use crate::{bus::Record, config::BusSettings, ids, metrics};

/// Bytes of one entry at most, unless one record alone is larger.
const MAX_ENTRY: usize = 256 << 10;
/// How long what is buffered may take to be sent when the program stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
const FULL_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish.lua")));

/// What waits to be sent.
pub(super) struct Outgoing {
    queues: Mutex<Vec<Queue>>,
    ready: Vec<Notify>,
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
}

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
            max_records: (settings.max_records / partitions).max(1),
            max_bytes: (settings.max_bytes / partitions).max(1),
        }
    }

    pub fn records(&self) -> usize {
        lock(&self.queues).iter().map(|queue| queue.records).sum()
    }

    /// Takes all or nothing.
    pub fn push(&self, records: &[Record], partitions: usize) -> bool {
        let batches = encode(records, partitions);
        let mut queues = lock(&self.queues);
        let fits = batches.iter().zip(queues.iter()).all(|(batches, queue)| {
            let (records, bytes) = size(batches);
            queue.records == 0
                || (queue.records + records <= self.max_records && queue.bytes + bytes <= self.max_bytes)
        });
        if !fits {
            return false;
        }
        for ((batches, queue), ready) in batches.into_iter().zip(queues.iter_mut()).zip(&self.ready) {
            if batches.is_empty() {
                continue;
            }
            let (records, bytes) = size(&batches);
            queue.records += records;
            queue.bytes += bytes;
            queue.batches.extend(batches);
            ready.notify_one();
        }
        true
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

    fn gone(&self, partition: usize, batch: &Batch) {
        let queue = &mut lock(&self.queues)[partition];
        queue.records -= batch.records;
        queue.bytes -= batch.payload.len();
    }
}

fn size(batches: &[Batch]) -> (usize, usize) {
    batches.iter().fold((0, 0), |(records, bytes), b| (records + b.records, bytes + b.payload.len()))
}

/// The batches of each partition.
fn encode(records: &[Record], partitions: usize) -> Vec<Vec<Batch>> {
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
    out
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
                self.shared.outgoing.gone(self.partition, &batch);
                if !sent {
                    metrics::BUS_LOST.inc_by(batch.records as u64);
                    tracing::error!(
                        records = batch.records,
                        "telemetry could not be sent to Redis before the end of the program, and is lost"
                    );
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.shared.outgoing.ready[self.partition].notified() => {}
                () = self.stop.cancelled() => {}
            }
        }
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
        shared.succeeded(Asker::Writer(self.partition));
        Ok(taken)
    }
}
