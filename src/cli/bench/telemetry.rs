//! `aiops bench logs` and `aiops bench metrics`: how many lines and samples a second the detectors judge, from HTTP over the bus.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Common,
    load::{self, Cost, Meter, Outcome, round},
    machine::Machine,
    report::{Report, count},
    scrape::{Scraper, Values},
    server::Plan,
    target::Target,
    telemetry_bodies::{Kind, Share, TEMPLATES, Telemetry},
    through::Through,
};
use crate::cli::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  aiops bench logs
  aiops bench logs --gzip --connections 2
  aiops bench logs --redis redis://127.0.0.1:6379
  aiops bench metrics --series 20000

Judged means: a detector has counted it. What is refused (503, the bus being full) is told to come again, and counted.";

/// How many log lines a second the detectors judge
///
/// Lines as shippers send them: ECS names, times, ids, 200 statements in 50 services; bodies of a thousand lines each.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Logs {
    #[command(flatten)]
    shape: Shape,
}

/// How many metric samples a second the detectors judge
///
/// Samples of so many series of 50 services, one JSON object each; bodies of a thousand samples.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Metrics {
    #[command(flatten)]
    shape: Shape,
    /// Series over all services
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    series: u32,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    #[command(flatten)]
    pub common: Common,
    /// Records in one body
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=50_000))]
    batch: u16,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=99_999))]
    services: u32,
    /// Compress the bodies
    #[arg(long)]
    gzip: bool,
    /// Records a second, sent when they are due; without it each connection sends as soon as it has its answer
    #[arg(long, value_parser = super::positive)]
    rate: Option<f64>,
    /// The Redis that telemetry goes through; keys with a prefix of their own are made there and deleted
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

#[derive(Serialize)]
struct Found {
    what: &'static str,
    bus: &'static str,
    machine: Machine,
    batch: u16,
    connections: u16,
    services: u32,
    series: Option<u32>,
    gzip: bool,
    body_bytes: usize,
    /// Of sending alone; its costs are of the measured time.
    load: Outcome,
    /// Processor time of Redis.
    redis_us: Option<f64>,
    #[serde(flatten)]
    judged: Judged,
}

/// Everything from the first request until nothing waited any more.
#[derive(Serialize)]
pub struct Judged {
    pub judged: f64,
    /// Counted as evidence, but too late, stale, or without room; or sampled out before, under overload.
    pub unjudged: f64,
    /// Records that were told to come again.
    refused: f64,
    whole_seconds: f64,
    pub judged_per_second: f64,
    pub whole_cost: Cost,
}

/// What was accepted and is not judged by then never will be.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn logs(args: Logs) -> Result<(), Failure> {
    measure(&args.shape, "logs", Kind::Logs, None).await
}

pub async fn metrics(args: Metrics) -> Result<(), Failure> {
    let kind = Kind::Metrics { series: args.series as usize };
    measure(&args.shape, "metrics", kind, Some(args.series)).await
}

async fn measure(shape: &Shape, what: &'static str, kind: Kind, series: Option<u32>) -> Result<(), Failure> {
    let shape = &Shape { batch: shape.even_batch(series), ..shape.clone() };
    let machine = Machine::look(&shape.common.dir);
    let dir = shape.common.private_dir()?;
    let plan = Plan::new(dir.path(), settings(shape, kind));
    let (load, judged, redis_us) = match &shape.redis {
        None => {
            let (load, judged) = shape.on(&plan, kind).await?;
            (load, judged, None)
        }
        Some(url) => {
            let mut redis = Through::open(url).await?;
            let before = redis.cpu_seconds().await?;
            let measured = shape.on(&plan.with(redis.settings()), kind).await;
            let used = redis.cpu_seconds().await? - before;
            redis.clear().await?;
            let (load, judged) = measured?;
            let us = round(used * 1e6 / judged.judged.max(1.0));
            (load, judged, Some(us))
        }
    };
    let found = Found {
        what,
        bus: if shape.redis.is_some() { "redis" } else { "embedded" },
        machine,
        batch: shape.batch,
        connections: shape.connections,
        services: shape.services,
        series,
        gzip: shape.gzip,
        body_bytes: shape.body_bytes(kind)?,
        load,
        redis_us,
        judged,
    };
    if shape.common.json {
        output::print_json(&found)?
    } else {
        output::print(&found.text(shape))?
    }
    if judged_all(&found) { Ok(()) } else { Err(Failure::failed("not all that was accepted was judged")) }
}

/// Room for what is sent: a partition may have more than its even share of the services.
pub fn settings(shape: &Shape, kind: Kind) -> serde_json::Value {
    let series = match kind {
        Kind::Logs => 0,
        Kind::Metrics { series } => series.div_ceil(shape.services as usize),
    };
    serde_json::json!({ "detect": {
        "max_services": (shape.services * 2).clamp(500, 100_000),
        "max_series": series.clamp(500, 100_000),
        // Services are spread unevenly over the partitions, which share this bound.
        "max_all_series": (series * shape.services as usize * 2).clamp(100_000, 10_000_000),
    } })
}

fn judged_all(found: &Found) -> bool {
    found.judged.judged + found.judged.unjudged >= found.load.accepted as f64
}

impl Shape {
    /// Of one service count, as fast as it goes.
    pub fn new(seconds: u32, services: u32, dir: &Path) -> Self {
        Self {
            common: Common { seconds, warm_up: 0, json: false, dir: dir.to_owned() },
            batch: 1000,
            connections: 4,
            services,
            gzip: false,
            rate: None,
            redis: None,
        }
    }

    /// A body has no series twice, and each connection its own series: as many to a body as make all bodies alike, so that a
    /// rate of records is a rate of bodies.
    fn even_batch(&self, series: Option<u32>) -> u16 {
        let own = series.map(|series| series.div_ceil(self.connections.into()).max(1));
        let even = own.map(|own| own.div_ceil(own.div_ceil(self.batch.into())));
        even.and_then(|even| u16::try_from(even).ok()).unwrap_or(self.batch)
    }

    /// Starts the server, loads it, and ends it.
    async fn on(&self, plan: &Plan, kind: Kind) -> anyhow::Result<(Outcome, Judged)> {
        let server = plan.start().await?;
        let measured = self.load(kind, &server.url, server.pid).await?;
        server.stop().await?;
        Ok(measured)
    }

    pub async fn load(&self, kind: Kind, url: &str, pid: u32) -> anyhow::Result<(Outcome, Judged)> {
        let target = Target::own(url)?;
        let scraper = Scraper::new(url);
        let plan = load::Plan {
            target: target.clone(),
            connections: self.connections.into(),
            rate: self.rate.map(|records| records / f64::from(self.batch)),
            warm_up: self.common.warm_up(),
            lasts: self.common.lasts(),
            pid: Some(pid),
        };
        let share = self.share();
        let make = move |connection| -> Box<dyn load::Requests> {
            Box::new(Telemetry::new(&target, kind, Share { connection, ..share }))
        };
        let (began, before) = (Instant::now(), Meter::read(Some(pid)));
        let load = load::run(plan, Box::new(make)).await?;
        let accepted = load.accepted as f64;
        let seen = |values: &Values| {
            let judged = values.get("aiops_detect_records_total");
            let sampled_out = values.sum("aiops_intake_sampled_out_total");
            (judged, values.sum("aiops_detect_unjudged_total") + sampled_out)
        };
        scraper
            .until(Duration::from_millis(50), PATIENCE, |values| {
                let (judged, unjudged) = seen(values);
                judged + unjudged >= accepted
            })
            .await?;
        let seconds = began.elapsed().as_secs_f64();
        let values = scraper.values().await?;
        let (judged, unjudged) = seen(&values);
        let judged = Judged {
            judged,
            unjudged,
            refused: values.sum("aiops_intake_shed_total"),
            whole_seconds: round(seconds),
            judged_per_second: round(judged / seconds),
            whole_cost: before.until(&Meter::read(Some(pid)), judged as u64),
        };
        Ok((load, judged))
    }

    fn share(&self) -> Share {
        Share {
            connection: 0,
            connections: self.connections.into(),
            batch: self.batch.into(),
            services: self.services as usize,
            gzip: self.gzip,
        }
    }

    fn body_bytes(&self, kind: Kind) -> anyhow::Result<usize> {
        let nowhere = Target::own("http://127.0.0.1:1")?;
        let mut one = Telemetry::new(&nowhere, kind, self.share());
        Ok(load::Requests::next(&mut one, Instant::now()).0.len())
    }
}

impl Found {
    fn text(&self, shape: &Shape) -> String {
        let loop_ = match shape.rate {
            None => "closed loop".to_owned(),
            Some(rate) => format!("open loop at {} records/s", count(rate)),
        };
        let of = match self.series {
            Some(series) => format!("{} series", count(series.into())),
            None => format!("{TEMPLATES} statements"),
        };
        let packed = if self.gzip { "gzip" } else { "plain" };
        let over = if self.redis_us.is_some() { ", through Redis" } else { "" };
        let head = format!(
            "{} records a POST of {} bytes ({packed}), {of} in {} services, {} connections, {loop_}, {} s{over}\n{}\n\n",
            self.batch,
            self.body_bytes,
            self.services,
            self.connections,
            self.load.seconds,
            self.machine.line()
        );
        let mut report = Report::new(["aiops".to_owned()]);
        let j = &self.judged;
        let mut row = |name: &str, value: Option<String>| report.row(name, [value]);
        row("judged/s, from the first request to the last judgement", Some(count(j.judged_per_second)));
        row("server CPU, µs per record", j.whole_cost.server_us.map(|us| us.to_string()));
        row("generator CPU, µs per record", Some(j.whole_cost.generator_us.to_string()));
        row("Redis CPU, µs per record", self.redis_us.map(|us| us.to_string()));
        row("judged", Some(count(j.judged)));
        row("too late, stale, without room or sampled out", Some(count(j.unjudged)));
        row("refused, to come again", Some(count(j.refused)));
        super::load_rows(&mut report, "record", &[&self.load]);
        head + &report.text() + &super::thread_lines("record", &[&self.load])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_samples_are_alike() {
        let shape = |batch, connections| Shape { batch, connections, ..Shape::new(1, 50, Path::new("/tmp")) };
        assert_eq!(shape(1000, 4).even_batch(Some(5000)), 625);
        assert_eq!(shape(1000, 4).even_batch(Some(4000)), 1000);
        assert_eq!(shape(1000, 4).even_batch(Some(2)), 1);
        assert_eq!(shape(1000, 4).even_batch(Some(10_000_000)), 1000);
        assert_eq!(shape(1000, 4).even_batch(None), 1000);
    }
}
