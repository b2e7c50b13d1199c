//! `aiops bench start`: how soon it is ready, and what it holds in memory when idle and in a storm.

use std::time::Duration;

use serde::Serialize;

use super::{
    alert_bodies::{Alerts, Stream},
    load::{self, Requests, round},
    machine::Machine,
    process,
    report::Report,
    scrape::Scraper,
    server::Plan,
    target::Target,
};
use crate::cli::{Failure, output};

/// How soon it is ready, and its memory when idle and in a storm of alerts
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Starts with an empty directory; the median is reported
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u8).range(1..=101))]
    runs: u8,
    /// Seconds after which an idle server's memory is looked at
    #[arg(long, default_value_t = 10)]
    idle: u32,
    /// Distinct alerts of the storm, sent in five seconds
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    storm: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the server's private directory is made: on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir(), value_name = "DIR")]
    dir: std::path::PathBuf,
}

#[derive(Serialize)]
struct Found {
    what: &'static str,
    machine: Machine,
    /// From the start of the process to the line that says that it listens.
    cold_start_ms: f64,
    cold_starts_ms: Vec<f64>,
    idle_mb: f64,
    /// The highest until all of it was correlated.
    storm_mb: f64,
    storm: load::Outcome,
}

const STORM: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn run(args: Args) -> Result<(), Failure> {
    let found = measure(&args).await?;
    if args.json {
        output::print_json(&found)?
    } else {
        output::print(&found.text(&args))?
    }
    match found.storm.sent == found.storm.accepted {
        true => Ok(()),
        false => Err(Failure::failed("not every alert of the storm was accepted")),
    }
}

async fn measure(args: &Args) -> anyhow::Result<Found> {
    let machine = Machine::look(&args.dir);
    let mut starts = Vec::new();
    for _ in 0..args.runs {
        let dir = super::private_dir(&args.dir)?;
        let server = Plan::new(dir.path(), serde_json::Value::Null).start().await?;
        starts.push(round(server.started_in.as_secs_f64() * 1000.0));
        server.stop().await?;
    }
    let mut sorted = starts.clone();
    sorted.sort_by(f64::total_cmp);

    let dir = super::private_dir(&args.dir)?;
    let server = Plan::new(dir.path(), serde_json::Value::Null).start().await?;
    tokio::time::sleep(Duration::from_secs(args.idle.into())).await;
    let idle = process::memory(server.pid).unwrap_or_default();

    let (target, pid) = (Target::own(&server.url)?, server.pid);
    let plan = load::Plan {
        target: target.clone(),
        connections: CONNECTIONS,
        rate: Some(f64::from(args.storm) / STORM.as_secs_f64()),
        warm_up: Duration::ZERO,
        lasts: STORM,
        pid: Some(pid),
    };
    let make = move |i| -> Box<dyn Requests> {
        Box::new(Alerts::new(&target, "storm0", 1, Stream::Distinct { services: 50 }, i, CONNECTIONS))
    };
    let storm = load::run(plan, Box::new(make)).await?;
    let drained = |values: &super::scrape::Values| values.get("aiops_inbox_depth") == 0.0;
    Scraper::new(&server.url).until(Duration::from_millis(250), PATIENCE, drained).await?;
    let storm_mb = process::memory(pid).unwrap_or_default().peak_mb;
    server.stop().await?;
    Ok(Found {
        what: "start",
        machine,
        cold_start_ms: sorted[sorted.len() / 2],
        cold_starts_ms: starts,
        idle_mb: idle.now_mb,
        storm_mb,
        storm,
    })
}

impl Found {
    fn text(&self, args: &Args) -> String {
        let mut report = Report::new(["aiops".to_owned()]);
        let all: Vec<String> = self.cold_starts_ms.iter().map(f64::to_string).collect();
        report.row("cold start, ms (median)", [Some(self.cold_start_ms.to_string())]);
        report
            .row(&format!("resident after {} idle seconds, MB", args.idle), [Some(self.idle_mb.to_string())]);
        report.row(
            &format!("most resident in a storm of {} alerts, MB", args.storm),
            [Some(self.storm_mb.to_string())],
        );
        report.row("cold starts, ms", [Some(all.join(" "))]);
        format!("{}\n\n{}", self.machine.line(), report.text())
    }
}
