//! Intake: one file per source; parses at the edge and hands typed events on.

mod flatten;
pub mod logs;
pub mod metrics;
pub mod telemetry;
mod timestamps;
pub mod watches;
