//! `aiops bench`: how fast, how frugal and how big it is, measured here and now; each kind of load against a server of its own.

mod alert_bodies;
mod alerts;
mod growth;
mod histogram;
mod load;
mod machine;
mod notify;
mod overload;
mod process;
mod report;
mod scrape;
mod scratch;
pub mod server;
mod sink;
mod start;
mod target;
mod telemetry;
mod telemetry_bodies;
mod through;
mod wall;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use self::{
    load::Outcome,
    report::{Report, count},
};
use super::Failure;

/// Measure how fast it is on this machine
///
/// Each command starts a server of its own (this binary, an empty private directory, loopback) and loads it; the generator runs
/// beside it on the same cores, and says what it cost itself. Nothing outlives the command.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Alerts(alerts::Args),
    Logs(telemetry::Logs),
    Metrics(telemetry::Metrics),
    Notify(notify::Args),
    Overload(overload::Args),
    Start(start::Args),
    Growth(growth::Args),
}

/// What all kinds have in common.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How long is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Load before that, which does not count
    #[arg(long, default_value_t = 1)]
    warm_up: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the server's private directory is made: on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir(), value_name = "DIR")]
    dir: PathBuf,
}

impl Common {
    fn private_dir(&self) -> anyhow::Result<tempfile::TempDir> {
        private_dir(&self.dir)
    }
    fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
    fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up.into())
    }
}

fn private_dir(parent: &Path) -> anyhow::Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("aiops-bench-").tempdir_in(parent);
    made.with_context(|| format!("--dir {}: making a directory there", parent.display()))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".into()),
    }
}

/// The rows that every load has; `item` is what it consists of.
fn load_rows(report: &mut Report, item: &str, loads: &[&Outcome]) {
    let mut row =
        |name: &str, of: &dyn Fn(&Outcome) -> Option<String>| report.row(name, loads.iter().map(|l| of(l)));
    let ms = |ms: f64| Some(format!("{ms:.2}"));
    row("accepted/s", &|l| Some(count(l.per_second)));
    row("latency p50, ms", &|l| ms(l.latency.p50_ms));
    row("        p99", &|l| ms(l.latency.p99_ms));
    row("        p99.9", &|l| ms(l.latency.p999_ms));
    row("        max", &|l| ms(l.latency.max_ms));
    row(&format!("server CPU, µs per {item}"), &|l| l.cost.server_us.map(|us| us.to_string()));
    row(&format!("generator CPU, µs per {item}"), &|l| Some(l.cost.generator_us.to_string()));
    row("cores busy with other things", &|l| Some(l.cost.others_cores.to_string()));
    row("peak memory, MB", &|l| l.cost.memory.map(|m| m.peak_mb.to_string()));
    row("sent", &|l| Some(count(l.sent as f64)));
    row("accepted", &|l| Some(count(l.accepted as f64)));
    let errors = |l: &Outcome| {
        let bad = l.statuses.iter().filter(|(status, _)| !(200..300).contains(*status));
        let mut all: Vec<String> = bad.map(|(status, n)| format!("{n} × {status}")).collect();
        let kinds = [("broken", l.broken), ("unanswered", l.unanswered), ("unsent", l.unsent)];
        all.extend(kinds.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")));
        Some(if all.is_empty() { "none".to_owned() } else { all.join(", ") })
    };
    row("errors", &errors);
}

/// Where a server's time goes: a line for each load that knows.
fn thread_lines(item: &str, loads: &[&Outcome]) -> String {
    let line = |load: &&Outcome| {
        let mut all: Vec<_> = load.cost.server_threads_us.iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        let top: Vec<String> = all.iter().take(6).map(|(name, us)| format!("{name} {us}")).collect();
        (!top.is_empty()).then(|| format!("\nserver CPU by thread, µs per {item}: {}", top.join(", ")))
    };
    loads.iter().filter_map(line).collect()
}

pub async fn run(command: Command) -> Result<(), Failure> {
    // What a measured server did is in its own log; here only what the command has to say is wanted.
    crate::http_client::install_tls();
    tokio::select! {
        done = async { match command {
            Command::Alerts(args) => alerts::run(args).await,
            Command::Logs(args) => telemetry::logs(args).await,
            Command::Metrics(args) => telemetry::metrics(args).await,
            Command::Notify(args) => notify::run(args).await,
            Command::Overload(args) => overload::run(args).await,
            Command::Start(args) => start::run(args).await,
            Command::Growth(args) => growth::run(args).await,
        } } => done,
        () = interrupted() => Err(Failure::failed("interrupted")),
    }
}

/// A polite request to end; Ctrl-C too. The server ends with us: its handle is dropped.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
