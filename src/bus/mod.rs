//! The telemetry bus: takes batches of log records and metric samples from intake and hands them, partition by partition,
//! to the detectors. Bounded; what does not fit is refused and counted, never dropped in silence.

mod embedded;

pub use embedded::{Bus, Consumer, Delivery};

use crate::model::{Gap, LogRecord, Sample};

/// One thing on the bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Log(LogRecord),
    Sample(Sample),
    Gap(Gap),
}

impl Record {
    /// The service that decides the partition; none goes to all of them.
    fn service(&self) -> Option<&str> {
        match self {
            Self::Log(record) => Some(&record.service),
            Self::Sample(sample) => Some(&sample.service),
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
            Self::Gap(g) => g.source.len() + g.reason.as_ref().map_or(0, String::len),
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
