//! `aiops bench overload`: what is left of it when ten times as much comes in as it can handle, and how soon it is itself again.

use std::{path::Path, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Common,
    alert_bodies::{Alerts, Stream},
    load::{self, Outcome, round},
    machine::Machine,
    process,
    report::{Report, count},
    scrape::Scraper,
    scratch::Scratch,
    server::Plan,
    sink::Sink,
    target::Target,
    watch::{self, Look},
};
use crate::cli::{Exit, Failure, output};

const EXAMPLES: &str = "\
Examples:
  aiops bench overload --seconds 300                   ten times of what it can handle, for five minutes
  aiops bench overload --times 3 --batch 20
  aiops bench overload --store postgres://aiops:secret@127.0.0.1/postgres

First the most that goes through is found in the closed loop: the best of 1, 2, 4 … connections that each wait for their answer.
Then that many times over is offered, whatever the answers are. What goes through is what correlation has taken, with all that
follows from it; what is merely acknowledged does not count.";

/// What still goes through when far more comes in than it can handle
///
/// Alerts of realistic size, most of them repeats, through correlation, incidents and the outbox, and a few critical ones beside
/// them. The generator shares the cores with the server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// How many times the most that goes through is offered
    #[arg(long, default_value_t = 10.0, value_parser = super::positive)]
    times: f64,
    /// Seconds for each number of connections while the most is looked for
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3600))]
    find: u16,
    /// Alerts in one POST
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Connections that offer too much
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4000))]
    connections: u16,
    /// The PostgreSQL server to keep state in instead of SQLite; a database of its own is made there and dropped
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

#[derive(Serialize)]
struct Found {
    what: &'static str,
    machine: Machine,
    batch: u16,
    connections: u16,
    times: f64,
    store: &'static str,
    /// What went through in the closed loop, by the number of connections.
    closed: Vec<Closed>,
    most_per_second: f64,
    offered_per_second: f64,
    /// What went through under overload, and as a share of the most.
    through_per_second: f64,
    share: f64,
    /// The longest that an acknowledged alert had waited or would have to wait.
    longest_wait_ms: f64,
    highest_level: f64,
    peak_memory_mb: f64,
    /// From the last request until nothing waits and nothing is given up any more.
    normal_after_s: Option<f64>,
    load: Outcome,
    critical: Outcome,
    looks: Vec<Look>,
}

#[derive(Clone, Copy, Serialize)]
struct Closed {
    connections: usize,
    through_per_second: f64,
    accepted_per_second: f64,
}

const SERVICES: u64 = 50;
const ALERTS: u64 = 2000;
/// Single critical alerts a second, offered beside the flood.
const CRITICALS: f64 = 5.0;
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn run(args: Args) -> Result<(), Failure> {
    let machine = Machine::look(&args.common.dir);
    let dir = args.common.private_dir()?;
    let scratch = match &args.store {
        Some(server) => Some(Scratch::create(server).await?),
        None => None,
    };
    let store = scratch.as_ref().map_or("", |scratch| scratch.url.as_str());
    let found = args.with_store(dir.path(), store, machine).await;
    if let Some(scratch) = scratch {
        scratch.drop().await?;
    }
    let found = found?;
    if args.common.json {
        output::print_json(&found)?
    } else {
        output::print(&found.text())?
    }
    match found.normal_after_s {
        Some(_) => Ok(()),
        None => Err(Failure::new(Exit::Failed, "it did not come back to normal")),
    }
}

/// What one load brings.
struct Load {
    connections: usize,
    batch: usize,
    rate: Option<f64>,
    lasts: Duration,
    is_critical: bool,
}

impl Args {
    async fn with_store(&self, dir: &Path, store: &str, machine: Machine) -> anyhow::Result<Found> {
        let settings = serde_json::json!({ "store": { "url": store } });
        let server = Plan::new(dir, settings).with(Sink::start()?.settings("2s")).start().await?;
        let (scraper, target) = (Scraper::new(&server.url), Target::own(&server.url)?);

        let mut closed = Vec::new();
        for connections in [1, 2, 4, 8, 16].into_iter().filter(|n| *n <= usize::from(self.connections)) {
            let lasts = Duration::from_secs(self.find.into());
            let load = Load { connections, batch: self.batch.into(), rate: None, lasts, is_critical: false };
            let (outcome, through_per_second) = self.through(&scraper, &target, server.pid, load).await?;
            closed.push(Closed { connections, through_per_second, accepted_per_second: outcome.per_second });
            anyhow::ensure!(until_normal(&scraper).await?.is_some(), "it did not keep up in the closed loop");
        }
        let most = closed.iter().map(|c| c.through_per_second).fold(1.0, f64::max);

        let (rate, lasts) = (most * self.times, self.common.lasts());
        let flood = Load {
            connections: self.connections.into(),
            batch: self.batch.into(),
            rate: Some(rate),
            lasts,
            is_critical: false,
        };
        let critical = Load { connections: 4, batch: 1, rate: Some(CRITICALS), lasts, is_critical: true };
        let both = async {
            tokio::join!(
                self.through(&scraper, &target, server.pid, flood),
                self.load(&target, None, critical)
            )
        };
        let ((flood, critical), looks) = watch::during(&scraper, server.pid, both).await;
        let (load, through) = flood?;
        let normal_after_s = until_normal(&scraper).await?;
        let peak = process::memory(server.pid).unwrap_or_default().peak_mb;
        server.stop().await?;
        let most_of = |of: fn(&Look) -> f64| looks.iter().map(of).fold(0.0, f64::max);
        Ok(Found {
            what: "overload",
            machine,
            batch: self.batch,
            connections: self.connections,
            times: self.times,
            store: if store.is_empty() { "SQLite" } else { "PostgreSQL" },
            closed,
            most_per_second: most,
            offered_per_second: round(load.sent as f64 / (lasts + self.common.warm_up()).as_secs_f64()),
            through_per_second: through,
            share: round(through / most),
            longest_wait_ms: most_of(|look| look.inbox_age_ms.max(look.inbox_wait_ms)),
            highest_level: most_of(|look| look.level),
            peak_memory_mb: peak,
            normal_after_s,
            load,
            critical: critical?,
            looks,
        })
    }

    /// A load, and how many alerts a second correlation took meanwhile.
    async fn through(
        &self,
        scraper: &Scraper,
        target: &Target,
        pid: u32,
        load: Load,
    ) -> anyhow::Result<(Outcome, f64)> {
        let lasts = load.lasts;
        let taken = async {
            tokio::time::sleep(self.common.warm_up()).await;
            let (began, before) = (Instant::now(), taken(scraper).await?);
            tokio::time::sleep(lasts).await;
            let after = taken(scraper).await?;
            anyhow::Ok((after - before) / began.elapsed().as_secs_f64())
        };
        let (outcome, through) = tokio::join!(self.load(target, Some(pid), load), taken);
        Ok((outcome?, round(through?)))
    }

    async fn load(&self, target: &Target, pid: Option<u32>, load: Load) -> anyhow::Result<Outcome> {
        let Load { connections, batch, rate, lasts, is_critical } = load;
        // The flood and what comes before it are of the same alerts, so that it is not the first to open incidents.
        let run = if is_critical { "critic" } else { "floods" };
        let plan = load::Plan {
            target: target.clone(),
            connections,
            rate: rate.map(|alerts| alerts / batch as f64),
            warm_up: self.common.warm_up(),
            lasts,
            pid,
        };
        let target = target.clone();
        let stream = Stream::Repeats { alerts: ALERTS, services: SERVICES };
        let make = move |i| -> Box<dyn load::Requests> {
            Box::new(match is_critical {
                true => Alerts::critical(&target, run, batch, stream, i, connections),
                false => Alerts::new(&target, run, batch, stream, i, connections),
            })
        };
        load::run(plan, Box::new(make)).await
    }
}

async fn taken(scraper: &Scraper) -> anyhow::Result<f64> {
    Ok(scraper.values().await?.get("aiops_inbox_taken_total"))
}

/// Waits until nothing waits and nothing is given up; the seconds that took.
async fn until_normal(scraper: &Scraper) -> anyhow::Result<Option<f64>> {
    let began = Instant::now();
    let is_normal = scraper
        .until(Duration::from_millis(250), PATIENCE, |values| {
            ["aiops_overload_level", "aiops_inbox_wait_milliseconds", "aiops_inbox_depth"]
                .iter()
                .all(|gauge| values.get(gauge) == 0.0)
        })
        .await?;
    Ok(is_normal.then(|| round(began.elapsed().as_secs_f64())))
}

impl Found {
    fn text(&self) -> String {
        let head = format!(
            "{} × of what it can handle, {} alerts a POST, {} connections, {}, {} s\n{}\n\n",
            self.times,
            self.batch,
            self.connections,
            self.store,
            self.load.seconds,
            self.machine.line()
        );
        let mut own = Report::new(["aiops".to_owned()]);
        let mut row = |name: &str, value: String| own.row(name, [Some(value)]);
        for c in &self.closed {
            let name = format!("closed loop, {} connections: through/s", c.connections);
            row(&name, count(c.through_per_second));
        }
        row("most through/s", count(self.most_per_second));
        row("offered/s", count(self.offered_per_second));
        row("through/s", count(self.through_per_second));
        row("share of the most", format!("{:.0} %", self.share * 100.0));
        row("longest wait for correlation, ms", count(self.longest_wait_ms));
        row("highest level", self.highest_level.to_string());
        row("peak memory, MB", count(self.peak_memory_mb));
        row("normal after, s", self.normal_after_s.map_or("never".into(), |s| s.to_string()));
        let mut report = Report::new(["the flood".to_owned(), "critical".to_owned()]);
        super::load_rows(&mut report, "alert", &[&self.load, &self.critical]);
        head + &own.text() + "\n\n" + &report.text() + &super::thread_lines("alert", &[&self.load])
    }
}
