//! The telemetry bus: takes batches of log records, metric samples and spans from intake and hands them, partition by partition,
//! to the detectors. Bounded; what does not fit is refused and counted, never dropped in silence.
//!
//! Two implementations: queues in memory ([`Embedded`]), and Redis Streams ([`Redis`]), which several processes share.

mod embedded;
mod redis;

use std::sync::Arc;

use async_trait::async_trait;
pub use embedded::Embedded;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::redis::{Ingest, Raw, Reached, Redis, reach};
use crate::{
    config::Settings,
    model::{Gap, LogRecord, Sample, TraceSpan},
};

crate::model::words!(
    /// Which implementation it is.
    Kind {
        Embedded = "embedded",
        Redis = "redis",
    }
);

/// Where telemetry waits for the detectors.
#[async_trait]
pub trait Bus: Send + Sync {
    fn kind(&self) -> Kind;

    fn partitions(&self) -> usize;

    /// Takes the whole batch, or none of it if a partition that it touches is full; then the producer is told to come again.
    /// A batch for an empty partition is always taken, so one that is larger than the bound does not come back for ever.
    async fn publish(&self, records: Vec<Record>) -> Published;

    /// Reads a partition, of which there must be one reader at a time.
    fn consumer(&self, start: Start) -> Box<dyn Consumer>;

    /// Does what has to be done beside publishing and reading, until `stop`; then hands on what it holds, as far as it can.
    async fn run(&self, stop: CancellationToken);

    /// Refuses what comes from now on; consumers drain what is there, then end.
    fn close(&self);

    /// Records that wait or are being worked on.
    fn depth(&self) -> usize;

    /// The fullest bound of the fullest partition, as a share of it.
    fn fill(&self) -> f64;

    fn status(&self) -> Status;
}

/// The bus that the settings name; and Redis again, if it is that, for what only Redis can.
pub fn open(settings: &Settings) -> anyhow::Result<(Arc<dyn Bus>, Option<Redis>)> {
    let bus = &settings.detect.bus;
    if !settings.redis.is_on() {
        return Ok((Arc::new(Embedded::new(bus)), None));
    }
    let redis = Redis::new(&settings.redis, bus)?;
    Ok((Arc::new(redis.clone()), Some(redis)))
}

/// Where a consumer begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    pub partition: usize,
    /// Up to where the state that goes on was saved; none: from the first record that is there.
    pub mark: Option<Mark>,
    /// Who reads, for the eyes of people.
    pub owner: String,
    /// The number of the lease: who has a lower one of the same era is kept from reading.
    pub fence: i64,
    /// The database that numbers leases.
    pub era: String,
}

impl Start {
    /// The beginning of a partition that only this process reads.
    pub fn of(partition: usize) -> Self {
        Self { partition, ..Self::default() }
    }
}

/// A place in a partition: everything up to and including it is in the state that was saved with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Changes when the partition was emptied and begun anew.
    pub epoch: String,
    pub id: String,
    /// Records and bytes of the epoch up to here.
    pub records: u64,
    pub bytes: u64,
    /// When what is there arrived.
    pub at: Timestamp,
}

/// Reads one partition in order.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next batch; none once the bus is closed and drained, or another reader has taken over. Dropping the
    /// future loses nothing.
    async fn next(&mut self) -> Option<Delivery>;

    /// The batch is in the detectors' state; makes room in memory.
    fn judged(&mut self, delivery: Delivery);

    /// The state up to `mark` is durable: nothing up to there comes again.
    async fn saved(&mut self, mark: &Mark);

    /// So much is unsaved that no more comes until [`Consumer::saved`] is called.
    fn waits_for_save(&self) -> bool {
        false
    }

    /// What arrived until now has not all been handed out: time has not come as far as the wall clock.
    fn is_behind(&self) -> bool {
        false
    }
}

/// A batch that is being worked on; give it back to [`Consumer::judged`] when its effects are safe.
#[must_use = "a delivery that is not given back is delivered again"]
pub struct Delivery {
    pub records: Arc<Vec<Record>>,
    /// When it came to the bus, if the bus knows; else now.
    pub arrived: Option<Timestamp>,
    /// To be saved with the state, if there is to be anything saved.
    pub mark: Option<Mark>,
}

/// How the bus is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub kind: Kind,
    /// What is wrong with it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Records that wait in this process to be sent.
    pub buffered: u64,
    pub partitions: Vec<PartitionStatus>,
    /// Entries that nobody could read, in the dead-letter stream.
    pub dead_letters: u64,
    /// Entries of other producers that wait to be spread over the partitions.
    pub ingest: u64,
}

impl Status {
    fn new(kind: Kind) -> Self {
        Self { kind, error: None, buffered: 0, partitions: Vec::new(), dead_letters: 0, ingest: 0 }
    }
}

/// Of its bounds in records and bytes the one that is nearest, as a share of it.
fn filled(records: u64, bytes: u64, max_records: usize, max_bytes: usize) -> f64 {
    let share = |held: u64, most: usize| held as f64 / most.max(1) as f64;
    share(records, max_records).max(share(bytes, max_bytes))
}

/// How one partition is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartitionStatus {
    pub partition: usize,
    /// Records on the bus that are not in any saved state yet.
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// Entries that were handed to a reader and whose effects are not saved yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u64>,
    /// Entries that no reader has taken yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Times that records were lost since this process reads it.
    pub gaps: u64,
}

/// One thing on the bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Log(LogRecord),
    Sample(Sample),
    Span(TraceSpan),
    Gap(Gap),
}

impl Record {
    /// The partitions that it belongs to: one, or, being about no service, all.
    pub fn place(&self, partitions: usize) -> std::ops::Range<usize> {
        let at = match (self, self.service()) {
            // A trace is whole only where all its spans are.
            (Self::Span(span), _) => (span.trace % partitions as u64) as usize,
            (_, Some(service)) => partition(service, partitions),
            (_, None) => return 0..partitions,
        };
        at..at + 1
    }

    /// The service that it is about; what is about none goes to all partitions.
    fn service(&self) -> Option<&str> {
        match self {
            Self::Log(record) => Some(&record.service),
            Self::Sample(sample) => Some(&sample.service),
            Self::Span(span) => Some(&span.service),
            Self::Gap(gap) => gap.service.as_deref(),
        }
    }

    /// Roughly what it occupies in memory; the bus is bounded by it.
    fn bytes(&self) -> usize {
        let text = match self {
            Self::Log(r) => {
                r.service.len() + r.host.len() + r.message.len() + r.trace_id.as_ref().map_or(0, String::len)
            }
            Self::Sample(s) => {
                let labels: usize = s.labels.iter().map(|(k, v)| k.len() + v.len() + 64).sum();
                s.service.len() + s.name.len() + labels
            }
            Self::Span(s) => s.service.len() + s.operation.len(),
            Self::Gap(g) => g.source.len() + g.reason.as_ref().map_or(0, |r| r.len()),
        };
        size_of::<Self>() + text
    }
}

impl From<LogRecord> for Record {
    fn from(record: LogRecord) -> Self {
        Self::Log(record)
    }
}

impl From<Sample> for Record {
    fn from(sample: Sample) -> Self {
        Self::Sample(sample)
    }
}

impl From<TraceSpan> for Record {
    fn from(span: TraceSpan) -> Self {
        Self::Span(span)
    }
}

/// What became of a batch: all of it was taken, or (the bus being full) none, so that sending it again counts nothing twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub taken: usize,
    pub refused: usize,
}

/// The partition of a service: FNV-1a of 64 bits modulo `partitions`. The same on every host and after every restart.
pub fn partition(service: &str, partitions: usize) -> usize {
    let hash = service
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from(hash % partitions as u64).expect("a remainder fits the type of its divisor")
}
