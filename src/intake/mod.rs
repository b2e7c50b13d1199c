//! Intake: one file per source; parses at the edge and hands typed events on.

pub mod alert;
pub mod alertmanager;
pub mod changes;
mod chat;
pub mod commit;
pub mod expire;
mod flatten;
pub mod generic;
pub mod logs;
pub mod metrics;
pub mod prometheus;
pub mod reconcile;
pub mod slack;
pub mod stream;
pub mod telegram;
pub mod telemetry;
mod timestamps;
pub mod traces;
pub mod watches;
