//! `aiops bench growth`: what work costs when there is much of it: stored incidents, services, series.

mod multiply;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use self::multiply::Files;
use super::{
    alert_bodies::{Alerts, Stream},
    load::{Requests, round},
    machine::Machine,
    process,
    report::count,
    server::{Plan, Server},
    target::Target,
    telemetry::{self, Shape},
    telemetry_bodies::Kind,
};
use crate::cli::{Exit, Failure, client::Client, output, table::Table};

const EXAMPLES: &str = "\
Examples:
  aiops bench growth                                                       the long form: two or three minutes, 6 GB of disk
  aiops bench growth --incidents 1000,10000 --services 10,100 --series 100,1000 --seconds 2

Stored incidents are real ones: a few go the whole way and are resolved; their rows are then copied under new names.";

/// What accepting, correlating, listing and judging cost as the work grows
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Numbers of stored incidents, rising
    #[arg(long, value_delimiter = ',', default_values_t = [1000_u64, 10_000, 100_000, 1_000_000])]
    incidents: Vec<u64>,
    /// Numbers of services
    #[arg(long, value_delimiter = ',', default_values_t = [10_u32, 100, 1000, 10_000])]
    services: Vec<u32>,
    /// Numbers of metric series
    #[arg(long, value_delimiter = ',', default_values_t = [100_u32, 1000, 10_000, 100_000])]
    series: Vec<u32>,
    /// How long telemetry is sent for each number
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
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
    by_incidents: Vec<Stored>,
    by_services: Vec<Watched>,
    by_series: Vec<Watched>,
}

#[derive(Serialize)]
struct Stored {
    incidents: u64,
    disk_mb: f64,
    start_ms: f64,
    /// One POST of one alert, median.
    accept_ms: f64,
    /// A POST of 2,000 new alerts of 50 services, from its answer to the end of their correlation, median of three.
    correlate_2000_ms: f64,
    /// A page of 50, medians: the first one, and those that follow it.
    first_page_ms: f64,
    later_page_ms: f64,
    memory_mb: f64,
}

#[derive(Serialize)]
struct Watched {
    number: u32,
    judged_per_second: f64,
    server_us_per_record: f64,
    unjudged: f64,
    memory_mb: f64,
    /// 2,000 alerts over so many services; none for series.
    correlate_2000_ms: Option<f64>,
}

/// Alerts of one POST that is correlated at once.
const BATCH: usize = 2000;
const SERVICES: u64 = 50;
/// The real incidents that the stored ones are copies of.
const PATTERNS: u64 = 200;
const PAGES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(300);

pub async fn run(args: Args) -> Result<(), Failure> {
    let rising = args.incidents.is_sorted() && args.incidents.first().is_none_or(|n| *n >= PATTERNS);
    if !rising {
        let message = format!("--incidents must rise, from at least {PATTERNS}");
        return Err(Failure::new(Exit::Usage, message));
    }
    let limits = [("--services", &args.services, 99_999), ("--series", &args.series, 5_000_000)];
    for (flag, numbers, most) in limits {
        if let Some(wrong) = numbers.iter().find(|n| !(1..=most).contains(*n)) {
            return Err(Failure::new(Exit::Usage, format!("{flag} {wrong}: between 1 and {most}")));
        }
    }
    let found = Found {
        what: "growth",
        machine: Machine::look(&args.dir),
        by_incidents: by_incidents(&args).await?,
        by_services: by_services(&args).await?,
        by_series: by_series(&args).await?,
    };
    if args.json { output::print_json(&found) } else { output::print(&found.text()) }
}

async fn by_incidents(args: &Args) -> anyhow::Result<Vec<Stored>> {
    if args.incidents.is_empty() {
        return Ok(Vec::new());
    }
    let dir = super::private_dir(&args.dir)?;
    let plan = Plan::new(dir.path(), serde_json::Value::Null);
    let files = Files::new(dir.path());
    patterns(&plan, &files).await?;
    let mut rows = Vec::new();
    let mut there = PATTERNS;
    for (turn, incidents) in args.incidents.iter().enumerate() {
        files.multiply(there / PATTERNS, incidents.div_ceil(PATTERNS)).await?;
        there = incidents.div_ceil(PATTERNS) * PATTERNS;
        rows.push(
            stored(&plan, &files, there, turn as u64)
                .await
                .with_context(|| format!("at {there} incidents"))?,
        );
    }
    Ok(rows)
}

/// Lets a few incidents go the whole way: open, diagnosed, resolved.
async fn patterns(plan: &Plan, files: &Files) -> anyhow::Result<()> {
    let server = plan.start().await?;
    let target = Target::own(&server.url)?;
    let mut alerts = Alerts::new(
        &target,
        "stored",
        PATTERNS as usize,
        Stream::Repeats { alerts: PATTERNS, services: 99_999 },
        0,
        1,
    );
    post(&server, alerts.next(Instant::now()).0).await?;
    files.correlated(PATIENCE).await?;
    files.diagnosed(PATTERNS, PATIENCE).await?;
    post(&server, alerts.resolving()).await?;
    files.correlated(PATIENCE).await?;
    server.stop().await?;
    files.remember_originals().await
}

async fn stored(plan: &Plan, files: &Files, incidents: u64, turn: u64) -> anyhow::Result<Stored> {
    let server = plan.start().await?;
    let start_ms = round(server.started_in.as_secs_f64() * 1000.0);
    // Names of this size's own alerts.
    let run = format!("g{:05x}", incidents & 0xf_ffff);
    let (first_page_ms, later_page_ms) = pages(&server).await?;
    let accept_ms = accept(&server, &run).await?;
    // Others at each size, lest what the last one left counts. They have had incidents: those that were copied.
    let services = Services { first: turn * SERVICES % PATTERNS, number: SERVICES };
    let correlate_2000_ms = correlate(&server, files, &run, services).await?;
    let memory_mb = process::memory(server.pid).unwrap_or_default().now_mb;
    server.stop().await?;
    let disk_mb = files.megabytes();
    Ok(Stored {
        incidents,
        disk_mb,
        start_ms,
        accept_ms,
        correlate_2000_ms,
        first_page_ms,
        later_page_ms,
        memory_mb,
    })
}

/// Milliseconds of the first page and of those that follow: medians, for the first connection and the first reading cost more.
async fn pages(server: &Server) -> anyhow::Result<(f64, f64)> {
    #[derive(serde::Deserialize)]
    struct Page {
        next: Option<String>,
    }
    let client = Client::at(server.url.clone(), server.token()?);
    let mut cursor = None::<String>;
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for turn in 0..3 * PAGES {
        if turn % PAGES == 0 {
            cursor = None;
        }
        let began = Instant::now();
        let mut query = vec![("limit", "50")];
        query.extend(cursor.iter().map(|c| ("cursor", c.as_str())));
        let page: Page = client.get("/incidents", &query).await.map_err(|e| anyhow::anyhow!(e.message))?;
        let times = if cursor.is_none() { &mut first } else { &mut later };
        times.push(ms(began));
        cursor = page.next;
    }
    Ok((median(first), median(later)))
}

async fn accept(server: &Server, run: &str) -> anyhow::Result<f64> {
    let mut one =
        Alerts::new(&Target::own(&server.url)?, run, 1, Stream::Distinct { services: SERVICES }, 0, 1);
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        post(server, one.next(began).0).await?;
        times.push(ms(began));
    }
    Ok(median(times))
}

#[derive(Clone, Copy)]
struct Services {
    first: u64,
    number: u64,
}

async fn correlate(server: &Server, files: &Files, run: &str, services: Services) -> anyhow::Result<f64> {
    let target = Target::own(&server.url)?;
    let mut times = Vec::new();
    for turn in 0..3 {
        files.correlated(PATIENCE).await?;
        let run = format!("{}{turn}", &run[1..]);
        let stream = Stream::Distinct { services: services.number };
        let mut batch = Alerts::new(&target, &run, BATCH, stream, 0, 1).of_services_from(services.first);
        let request = batch.next(Instant::now()).0;
        post(server, request).await?;
        let began = Instant::now();
        files.correlated(PATIENCE).await?;
        times.push(ms(began));
    }
    Ok(median(times))
}

/// One request over a connection of its own.
async fn post(server: &Server, request: &[u8]) -> anyhow::Result<()> {
    let status = super::load::once(&Target::own(&server.url)?, request).await?;
    anyhow::ensure!((200..300).contains(&status), "the server answered {status}");
    Ok(())
}

async fn by_services(args: &Args) -> anyhow::Result<Vec<Watched>> {
    let mut rows = Vec::new();
    for number in &args.services {
        let shape = Shape::new(args.seconds, *number, &args.dir);
        rows.push(
            watched(&shape, Kind::Logs, *number).await.with_context(|| format!("at {number} services"))?,
        );
    }
    Ok(rows)
}

async fn by_series(args: &Args) -> anyhow::Result<Vec<Watched>> {
    let mut rows = Vec::new();
    for number in &args.series {
        let shape = Shape::new(args.seconds, 50, &args.dir);
        let kind = Kind::Metrics { series: *number as usize };
        rows.push(watched(&shape, kind, *number).await.with_context(|| format!("at {number} series"))?);
    }
    Ok(rows)
}

async fn watched(shape: &Shape, kind: Kind, number: u32) -> anyhow::Result<Watched> {
    let dir = super::private_dir(&shape.common.dir)?;
    let server = Plan::new(dir.path(), telemetry::settings(shape, kind)).start().await?;
    let (_, judged) = shape.load(kind, &server.url, server.pid).await?;
    let memory_mb = process::memory(server.pid).unwrap_or_default().now_mb;
    let correlate_2000_ms = match kind {
        Kind::Logs => {
            let services = Services { first: 0, number: u64::from(number) };
            Some(correlate(&server, &Files::new(dir.path()), "gservi", services).await?)
        }
        Kind::Metrics { .. } => None,
    };
    server.stop().await?;
    Ok(Watched {
        number,
        judged_per_second: judged.judged_per_second,
        server_us_per_record: judged.whole_cost.server_us.unwrap_or(f64::NAN),
        unjudged: judged.unjudged,
        memory_mb,
        correlate_2000_ms,
    })
}

fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1000.0
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Found {
    fn text(&self) -> String {
        let mut tables = vec![self.machine.line()];
        if !self.by_incidents.is_empty() {
            let mut table = Table::new([
                "STORED INCIDENTS",
                "DISK MB",
                "START MS",
                "ACCEPT MS",
                "CORRELATE 2,000 MS",
                "FIRST PAGE MS",
                "LATER PAGE MS",
                "RESIDENT MB",
            ]);
            for row in &self.by_incidents {
                table.row([
                    count(row.incidents as f64),
                    count(row.disk_mb),
                    row.start_ms.to_string(),
                    row.accept_ms.to_string(),
                    row.correlate_2000_ms.to_string(),
                    row.first_page_ms.to_string(),
                    row.later_page_ms.to_string(),
                    row.memory_mb.to_string(),
                ]);
            }
            tables.push(table.for_stdout());
        }
        for (name, rows) in [("SERVICES", &self.by_services), ("SERIES", &self.by_series)] {
            if rows.is_empty() {
                continue;
            }
            let mut table = Table::new([
                name,
                "JUDGED/S",
                "SERVER µS EACH",
                "NOT JUDGED",
                "RESIDENT MB",
                "CORRELATE 2,000 MS",
            ]);
            for row in rows {
                table.row([
                    count(row.number.into()),
                    count(row.judged_per_second),
                    row.server_us_per_record.to_string(),
                    count(row.unjudged),
                    row.memory_mb.to_string(),
                    row.correlate_2000_ms.map_or_else(|| "–".into(), |ms| ms.to_string()),
                ]);
            }
            tables.push(table.for_stdout());
        }
        tables.join("\n\n")
    }
}
