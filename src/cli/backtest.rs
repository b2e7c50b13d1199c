//! `aiops backtest`: runs detectors, the ranker, or everything up to the messages over recorded data, with the code of the live
//! service.

mod csv;
mod metrics;
mod rca;
mod record;
mod replay;
mod templates;
mod written;

use super::{Context, Failure};

/// Try detectors, the ranker, or a changed configuration on recorded data
///
/// The same code that runs live, with the same defaults; nothing is configured for a data set.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Metrics(metrics::Args),
    Rca(rca::Args),
    Record(record::Args),
    Replay(replay::Args),
    Templates(templates::Args),
}

pub async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Metrics(args) => metrics::run(args, context),
        Command::Rca(args) => rca::run(args),
        Command::Record(args) => record::run(args, context).await,
        Command::Replay(args) => replay::run(args, context).await,
        Command::Templates(args) => templates::run(args),
    }
}
