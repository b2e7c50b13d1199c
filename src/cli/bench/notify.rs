//! `aiops bench notify`: how long from an alert to the channel's yes, at so many incidents a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Common,
    alert_bodies::{Alerts, Stream},
    histogram::{Histogram, Quantiles},
    load::{self, Outcome, Requests, round},
    machine::Machine,
    report::{Report, count},
    server::Plan,
    sink::Sink,
    target::Target,
};
use crate::cli::{Exit, Failure, output};

const EXAMPLES: &str = "\
Examples:
  aiops bench notify                           1,000 incidents a second for 10 s
  aiops bench notify --rate 100 --seconds 60
  aiops bench notify --first-delay 2s          as by default: a message waits so long for its diagnosis

The channel is PagerDuty, spoken to a sink on loopback: the one that knows no pause between two calls.";

/// How long it takes from an alert to the channel that was told of it
///
/// Open loop: each alert is due at its moment, and time counts from there, however busy the server is. Each is of a service of
/// its own and so an incident of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Incidents a second
    #[arg(long, default_value_t = 1000.0, value_parser = super::positive)]
    rate: f64,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// The server's notify.first_delay
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    first_delay: String,
}

#[derive(Serialize)]
struct Found {
    what: &'static str,
    machine: Machine,
    rate: f64,
    first_delay: String,
    load: Outcome,
    /// From the moment at which an alert was due to the sink's answer.
    to_channel: Quantiles,
    incidents: usize,
    told: usize,
    /// Incidents a second that were told of, from the first due moment to the last answer.
    told_per_second: f64,
    /// Calls of the sink, later changes of an incident included.
    calls: u64,
}

/// What nobody was told of by then is lost.
const PATIENCE: Duration = Duration::from_secs(300);
/// Service names have five digits.
const MOST: f64 = 99_999.0;

pub async fn run(args: Args) -> Result<(), Failure> {
    let incidents = args.rate * f64::from(args.common.seconds + args.common.warm_up);
    if incidents > MOST {
        let message =
            format!("--rate × seconds is {incidents}: at most {MOST} incidents have names of their own");
        return Err(Failure::new(Exit::Usage, message));
    }
    if let Err(e) = humantime::parse_duration(&args.first_delay) {
        let message = format!("--first-delay {}: {e}; write 500ms or 2s", args.first_delay);
        return Err(Failure::new(Exit::Usage, message));
    }
    let found = measure(&args).await?;
    if args.common.json {
        output::print_json(&found)?
    } else {
        output::print(&found.text())?
    }
    match found.told >= found.incidents {
        true => Ok(()),
        false => Err(Failure::failed("not every incident was told")),
    }
}

async fn measure(args: &Args) -> anyhow::Result<Found> {
    let machine = Machine::look(&args.common.dir);
    let dir = args.common.private_dir()?;
    let sink = Sink::start()?;
    let server = Plan::new(dir.path(), sink.settings(&args.first_delay)).start().await?;
    let (target, connections) = (Target::own(&server.url)?, usize::from(args.connections));
    let plan = load::Plan {
        target: target.clone(),
        connections,
        rate: Some(args.rate),
        warm_up: args.common.warm_up(),
        lasts: args.common.lasts(),
        pid: Some(server.pid),
    };
    let due: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
    let log = due.clone();
    let make = move |i| -> Box<dyn Requests> {
        let stream = Stream::Distinct { services: MOST as u64 + 1 };
        Box::new(Alerts::new(&target, "notify", 1, stream, i, connections).logging(log.clone()))
    };
    let began = Instant::now();
    let counts_from = began + args.common.warm_up();
    let load = load::run(plan, Box::new(make)).await?;
    let due = std::mem::take(&mut *due.lock().unwrap_or_else(PoisonError::into_inner));
    let end = Instant::now() + PATIENCE;
    while sink.look(|told| told.first.len()) < due.len() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = sink.look(|told| {
        let mut latency = Histogram::default();
        for (service, due) in due.iter().filter(|(_, due)| *due >= counts_from) {
            if let Some(at) = told.first.get(service) {
                latency.record(at.saturating_duration_since(*due));
            }
        }
        let last = told.first.values().max().copied().unwrap_or(began);
        let seconds = last.saturating_duration_since(began).as_secs_f64();
        Found {
            what: "notify",
            machine,
            rate: args.rate,
            first_delay: args.first_delay.clone(),
            load,
            to_channel: latency.quantiles(),
            incidents: due.len(),
            told: told.first.len(),
            told_per_second: round(told.first.len() as f64 / seconds.max(0.001)),
            calls: told.calls,
        }
    });
    server.stop().await?;
    Ok(found)
}

impl Found {
    fn text(&self) -> String {
        let head = format!(
            "{} incidents/s, open loop, {} s; notify.first_delay {}; SQLite\n{}\n\n",
            count(self.rate),
            self.load.seconds,
            self.first_delay,
            self.machine.line()
        );
        let mut report = Report::new(["aiops".to_owned()]);
        let mut row = |name: &str, value: String| report.row(name, [Some(value)]);
        row("alert to channel p50, ms", format!("{:.2}", self.to_channel.p50_ms));
        row("                 p99", format!("{:.2}", self.to_channel.p99_ms));
        row("                 p99.9", format!("{:.2}", self.to_channel.p999_ms));
        row("                 max", format!("{:.2}", self.to_channel.max_ms));
        row("incidents", count(self.incidents as f64));
        row("told of", count(self.told as f64));
        row("told of, per second", count(self.told_per_second));
        row("calls, later changes included", count(self.calls as f64));
        super::load_rows(&mut report, "alert", &[&self.load]);
        head + &report.text() + &super::thread_lines("alert", &[&self.load])
    }
}
