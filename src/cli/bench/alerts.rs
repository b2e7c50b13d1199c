//! `aiops bench alerts`: how many alerts a second are accepted durably, at what cost, and whether the rest of the house keeps up.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    Common,
    alert_bodies::{Alerts, Stream},
    load::{self, Outcome, round},
    machine::Machine,
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
  aiops bench alerts                                   one alert a POST, 64 connections, SQLite
  aiops bench alerts --batch 1000 --connections 8
  aiops bench alerts --store postgres://aiops:secret@127.0.0.1/postgres
  aiops bench alerts --sustained --seconds 300         through correlation, at 10,000 a second
  aiops bench alerts --against http://127.0.0.1:9093 --against-pid 4711 --disposable loopback --rounds 3

Accepted means: answered with 2xx, which aiops does only after fsync.";

/// How many alerts a second are accepted durably, and what each costs
///
/// Every alert is a distinct one of realistic size (seven labels, two annotations, 430 bytes), sent as Prometheus sends it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Alerts in one POST
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4000))]
    connections: u16,
    /// Alerts a second, sent when they are due however slow the answers are; without it each connection sends as soon as it has
    /// its answer
    #[arg(long, value_parser = super::positive)]
    rate: Option<f64>,
    /// 2,000 alerts of 50 services again and again, some resolving, at 10,000 a second unless --rate says otherwise; then waits
    /// until all of it is correlated
    #[arg(long)]
    sustained: bool,
    /// The PostgreSQL server to keep state in instead of SQLite; a database of its own is made there and dropped
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Load this server instead of one of our own
    #[arg(long, value_name = "URL", conflicts_with_all = ["store", "sustained"])]
    url: Option<String>,
    /// The process behind --url, if its cost is to be measured
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Load this Alertmanager too, in turns with ours, and compare
    #[arg(long, value_name = "URL", conflicts_with = "sustained")]
    against: Option<String>,
    /// The process behind --against, if its cost is to be measured
    #[arg(long, requires = "against")]
    against_pid: Option<u32>,
    /// Measure so often; the round with the median rate is reported
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// Servers that nobody needs: `loopback` for those on this machine, HOST:PORT for another. What they are sent opens incidents
    /// and pages people
    #[arg(long, value_name = "WHICH")]
    disposable: Vec<String>,
}

/// Everything that was found.
#[derive(Serialize)]
struct Found {
    what: &'static str,
    machine: Machine,
    batch: u16,
    connections: u16,
    rate: Option<f64>,
    alert_bytes: usize,
    store: &'static str,
    ours: Measured,
    against: Option<Measured>,
    /// Our rate by theirs.
    ratio: Option<f64>,
}

/// The round with the median rate, and the rates of all.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    median: Round,
    rounds: Vec<f64>,
}

#[derive(Serialize)]
struct Round {
    #[serde(flatten)]
    load: Outcome,
    /// Of the server's processor time what accepting took; the rest is what followed from alerts that had been accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepting_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_up: Option<KeptUp>,
}

/// How correlation followed.
#[derive(Serialize)]
struct KeptUp {
    correlated_per_second: f64,
    most_inbox_age_ms: f64,
    /// After the last request.
    caught_up_after_s: Option<f64>,
    incidents: f64,
    most_memory_mb: f64,
    looks: Vec<Look>,
}

/// The threads that do what a sender waits for: HTTP, the group commit, the inbox's file.
const ACCEPTING: [&str; 3] = ["actix-server wo", "commit", "sync-inbox"];

impl Round {
    fn of(load: Outcome) -> Self {
        Self { load, accepting_us: None, kept_up: None }
    }
}

const SUSTAINED_RATE: f64 = 10_000.0;
const SERVICES: u64 = 50;
const ALERTS: u64 = 2000;
/// Accepted alerts that are not correlated by then never will be.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn run(args: Args) -> Result<(), Failure> {
    let (url, against) = (args.foreign("--url", &args.url)?, args.foreign("--against", &args.against)?);
    let machine = Machine::look(&args.common.dir);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        ours.push(match &url {
            Some(target) => Round::of(args.load(target.clone(), args.pid).await?),
            None => args.own().await?,
        });
        if let Some(target) = &against {
            theirs.push(Round::of(args.load(target.clone(), args.against_pid).await?));
        }
    }
    let ours = Measured::of(ours);
    let against = (!theirs.is_empty()).then(|| Measured::of(theirs));
    let ratio =
        against.as_ref().map(|theirs| round(ours.median.load.per_second / theirs.median.load.per_second));
    let found = Found {
        what: "alerts",
        machine,
        batch: args.batch,
        connections: args.connections,
        rate: args.rate(),
        alert_bytes: Alerts::size(),
        store: if args.store.is_some() { "PostgreSQL" } else { "SQLite" },
        ours,
        against,
        ratio,
    };
    if args.common.json {
        output::print_json(&found)?
    } else {
        output::print(&found.text())?
    }
    found.verdict()
}

impl Args {
    fn foreign(&self, flag: &str, url: &Option<String>) -> Result<Option<Target>, Failure> {
        url.as_ref().map(|url| Target::foreign(flag, url, &self.disposable)).transpose()
    }

    fn rate(&self) -> Option<f64> {
        self.rate.or(self.sustained.then_some(SUSTAINED_RATE))
    }

    /// One round against a fresh server of our own.
    async fn own(&self) -> anyhow::Result<Round> {
        let dir = self.common.private_dir()?;
        let scratch = match &self.store {
            Some(server) => Some(Scratch::create(server).await?),
            None => None,
        };
        let store = scratch.as_ref().map_or("", |scratch| scratch.url.as_str());
        let measured = self.with_store(dir.path(), store).await;
        if let Some(scratch) = scratch {
            scratch.drop().await?;
        }
        measured
    }

    async fn with_store(&self, dir: &Path, store: &str) -> anyhow::Result<Round> {
        let mut plan = Plan::new(dir, serde_json::json!({ "store": { "url": store } }));
        plan = plan.with(match self.sustained {
            true => Sink::start()?.settings("2s"),
            // More is accepted than is correlated: what is measured here is accepting it, and it must not be refused for that.
            false => serde_json::json!({ "overload": { "max_age": "1h" } }),
        });
        let server = plan.start().await?;
        let target = Target::own(&server.url)?;
        let (scraper, pid) = (Scraper::new(&server.url), server.pid);
        let round = if self.sustained {
            let (load, looks) = watch::during(&scraper, pid, self.load(target, Some(pid))).await;
            let load = load?;
            let kept_up = self.kept_up(&scraper, looks).await?;
            Round { kept_up: Some(kept_up), ..Round::of(load) }
        } else {
            Round::of(self.load(target, Some(pid)).await?)
        };
        server.stop().await?;
        Ok(Round { accepting_us: Some(round.load.cost.of_threads(&ACCEPTING)), ..round })
    }

    async fn load(&self, target: Target, pid: Option<u32>) -> anyhow::Result<Outcome> {
        let (connections, batch) = (usize::from(self.connections), usize::from(self.batch));
        let stream = match self.sustained {
            true => Stream::Repeats { alerts: ALERTS, services: SERVICES },
            false => Stream::Distinct { services: SERVICES },
        };
        let run = crate::ids::opaque()[..6].to_owned();
        let plan = load::Plan {
            target: target.clone(),
            connections,
            rate: self.rate().map(|alerts| alerts / batch as f64),
            warm_up: self.common.warm_up(),
            lasts: self.common.lasts(),
            pid,
        };
        let make = move |i| -> Box<dyn load::Requests> {
            Box::new(Alerts::new(&target, &run, batch, stream, i, connections))
        };
        load::run(plan, Box::new(make)).await
    }

    async fn kept_up(&self, scraper: &Scraper, looks: Vec<Look>) -> anyhow::Result<KeptUp> {
        let began = tokio::time::Instant::now();
        let is_done = scraper
            .until(Duration::from_millis(250), PATIENCE, |values| values.get("aiops_inbox_depth") == 0.0)
            .await?;
        let caught_up_after_s = is_done.then(|| round(began.elapsed().as_secs_f64()));
        // The server counts its open incidents every two seconds.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let values = scraper.values().await?;
        let rate = match (looks.first(), looks.last()) {
            (Some(first), Some(last)) if last.at_s > first.at_s => {
                (last.taken - first.taken) / (last.at_s - first.at_s)
            }
            _ => 0.0,
        };
        let most = |of: fn(&Look) -> f64| looks.iter().map(of).fold(0.0, f64::max);
        Ok(KeptUp {
            correlated_per_second: round(rate),
            most_inbox_age_ms: most(|look| look.inbox_age_ms),
            caught_up_after_s,
            incidents: values.get("aiops_incidents_open"),
            most_memory_mb: most(|look| look.memory_mb),
            looks,
        })
    }
}

impl Measured {
    fn of(mut rounds: Vec<Round>) -> Self {
        let rates = rounds.iter().map(|round| round.load.per_second).collect();
        rounds.sort_by(|a, b| a.load.per_second.total_cmp(&b.load.per_second));
        let median = rounds.swap_remove(rounds.len() / 2);
        Self { median, rounds: rates }
    }
}

impl Found {
    fn text(&self) -> String {
        let loop_ = match self.rate {
            None => "closed loop".to_owned(),
            Some(rate) => format!("open loop at {} alerts/s", count(rate)),
        };
        let mut head = format!(
            "{} alert(s) a POST of {} bytes each, {} connections, {loop_}, {}, {} s\n{}\n",
            self.batch,
            self.alert_bytes,
            self.connections,
            self.store,
            self.ours.median.load.seconds,
            self.machine.line()
        );
        let columns: Vec<&Measured> = std::iter::once(&self.ours).chain(&self.against).collect();
        let mut report =
            Report::new(["aiops".to_owned(), "alertmanager".to_owned()].into_iter().take(columns.len()));
        super::load_rows(&mut report, "alert", &columns.iter().map(|m| &m.median.load).collect::<Vec<_>>());
        report.row(
            "server CPU for accepting alone, µs",
            columns.iter().map(|m| m.median.accepting_us.map(|us| us.to_string())),
        );
        report.row(
            "rounds, accepted/s",
            columns.iter().map(|m| {
                let all: Vec<String> = m.rounds.iter().map(|rate| count(*rate)).collect();
                (all.len() > 1).then(|| all.join(" "))
            }),
        );
        report.row("ratio", [self.ratio.map(|ratio| format!("{ratio} ×"))]);
        if let Some(kept_up) = &self.ours.median.kept_up {
            report.row("correlated/s", [Some(count(kept_up.correlated_per_second))]);
            report.row("longest queue age, ms", [Some(count(kept_up.most_inbox_age_ms))]);
            let after = kept_up.caught_up_after_s;
            report.row("caught up after, s", [Some(after.map_or("never".into(), |s| s.to_string()))]);
            report.row("open incidents", [Some(count(kept_up.incidents))]);
            report.row("most memory, MB", [Some(count(kept_up.most_memory_mb))]);
        }
        let loads: Vec<&Outcome> = columns.iter().map(|m| &m.median.load).collect();
        head.push('\n');
        head + &report.text() + &super::thread_lines("alert", &loads)
    }

    /// Speed is for the reader to judge; a load that was not carried is a failure.
    fn verdict(&self) -> Result<(), Failure> {
        let never = self.ours.median.kept_up.as_ref().is_some_and(|k| k.caught_up_after_s.is_none());
        if never {
            return Err(Failure::new(Exit::Failed, "correlation did not catch up with what was accepted"));
        }
        Ok(())
    }
}
