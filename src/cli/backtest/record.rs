//! `aiops backtest record`: makes a recording of what the service knows, for `aiops backtest replay`; telemetry comes from those
//! who keep it: Prometheus, Elasticsearch, files.

mod bounds;
mod lines;
mod prometheus;
mod search;

use std::{path::PathBuf, time::Duration};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use self::{
    bounds::Bounds,
    lines::{Copying, LeftOut},
};
use super::super::{Context, Failure, exit::Exit, output};
use crate::{
    clock,
    config::{self, Settings},
    redact,
    replay::{self, Counts, Files, Kind, time},
    store::backup,
};

const HELP: &str = "\
Examples:
  aiops backtest record --output history
  aiops backtest record --from 2026-10-01 --to 2026-11-01 --prometheus --output october
  aiops backtest record --from 2026-10-01 --prometheus http://thanos:9090 --elasticsearch --output october
  aiops backtest record --logs app.jsonl --metrics pushed.jsonl --output october
  aiops backtest replay october --against changed.yaml

It reads the store that the settings name (data_dir or store.url), while the service runs, and changes nothing. Alerts come with the
times at which they arrived and ended, whatever road they came by; repeats are left out. The service keeps no samples of metrics and
few log lines; of what is not recorded, the anomalies are that were found then:
  --prometheus      asks detect.watches of the settings as ranges: the samples that the watches had, or would have had
  --elasticsearch   takes the log lines from where elasticsearch.logs has them, in the place of those that the service keeps
  --logs FILE       takes log lines, one JSON object a line as POST /api/v1/logs takes them, in the place of those that it keeps
  --metrics FILE    takes samples, as POST /api/v1/metrics takes them
Values that look like secrets are masked in log lines; labels and annotations are as they came.";

/// Record what the service knows of a time, for `aiops backtest replay`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// From when on: a day (2026-10-01, UTC) or a time (2026-10-01T08:00:00Z); without it, all that is known
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Timestamp>,
    /// Until when; without it, until now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// The directory to write to; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Ask Prometheus for the samples of detect.watches: the one of the settings, or another
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    prometheus: Option<String>,
    /// Take the log lines from the Elasticsearch of the settings
    #[arg(long, conflicts_with = "logs")]
    elasticsearch: bool,
    /// Take the log lines from this file; may be given several times
    #[arg(long, value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// Take samples from this file; may be given several times
    #[arg(long, value_name = "FILE")]
    metrics: Vec<PathBuf>,
    /// So many samples and log lines may be taken of others; with more, nothing is recorded
    #[arg(long, value_name = "N", default_value_t = 20_000_000)]
    most: u64,
    /// So long may Prometheus, Elasticsearch and files take; after it, nothing is recorded
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10m")]
    within: Duration,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let day = |text: &str| text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
    match (text.parse(), day(text)) {
        (Ok(at), _) => Ok(at),
        (_, Some(day)) => Ok(day.timestamp()),
        _ => Err("neither a day such as 2026-10-01 nor a time such as 2026-10-01T08:00:00Z".into()),
    }
}

pub async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?.settings;
    redact::set_extra(settings.diagnose.mask_patterns());
    let range = (args.from.unwrap_or(Timestamp::UNIX_EPOCH), args.to.unwrap_or_else(clock::now));
    if range.0 >= range.1 {
        return Err(usage(format!("--from {} is not before --to {}", time(range.0), time(range.1))));
    }
    let server = args.server(&settings)?;
    let mut files = Files::new(&args.output)?;
    let mut counts = from_store(args, &settings, range, &mut files).await?;
    let (mut bounds, mut notes) = (Bounds::new(args.most, args.within), Vec::new());
    if let Some(server) = &server {
        let recorded = prometheus::record(&settings, server, range, &mut files, &mut bounds).await?;
        counts.samples += recorded.samples;
        let none = recorded.empty.iter().map(|name| format!("Prometheus has nothing for the watch {name}"));
        notes.extend(none);
        if recorded.left_out > 0 {
            let values = output::count(recorded.left_out, "value is", "values are");
            notes.push(format!("{values} left out: no finite number, or of no service"));
        }
    } else if !settings.detect.watches.is_empty() {
        notes.push("the samples of detect.watches are not in it: --prometheus asks for them".into());
    }
    if args.elasticsearch {
        let mut file = files.add(Kind::Logs)?;
        let gaps = search::record(&settings, range, &mut file, &mut bounds).await?;
        counts.log_lines += file.end()?;
        notes.extend(gaps.into_iter().map(|gap| format!("the log lines are not complete: {gap}")));
    } else if settings.elasticsearch.is_on() && args.logs.is_empty() {
        notes.push("log lines that are in Elasticsearch are not in it: --elasticsearch takes them".into());
    }
    let left_out = LeftOut::default();
    let mut copying = Copying { settings: &settings, range, bounds: &mut bounds, left_out };
    for path in &args.logs {
        let mut file = files.add(Kind::Logs)?;
        copying.logs(path, &mut file)?;
        counts.log_lines += file.end()?;
    }
    for path in &args.metrics {
        let mut file = files.add(Kind::Metrics)?;
        copying.metrics(path, &mut file)?;
        counts.samples += file.end()?;
    }
    files.finish()?;
    for note in notes.into_iter().chain(copying.left_out.notes()) {
        eprintln!("aiops: {}", output::line(&note));
    }
    output::print(&format!("{}: {}", args.output.display(), recorded(&counts)))
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

impl Args {
    /// The Prometheus to ask, if one is to be asked.
    fn server(&self, settings: &Settings) -> Result<Option<config::Prometheus>, Failure> {
        if self.from.is_none() && (self.prometheus.is_some() || self.elasticsearch) {
            return Err(usage("--prometheus and --elasticsearch need --from: they may know much".into()));
        }
        if self.elasticsearch && !settings.elasticsearch.is_on() {
            return Err(usage("--elasticsearch: the settings name none (elasticsearch.urls)".into()));
        }
        let Some(url) = &self.prometheus else { return Ok(None) };
        if settings.detect.watches.is_empty() {
            return Err(usage("--prometheus: detect.watches of the settings names no query".into()));
        }
        let ours = &settings.prometheus;
        match url.as_str() {
            "" if ours.url.is_empty() => {
                Err(usage("--prometheus: the settings name none (prometheus.url); give its URL".into()))
            }
            url if url.is_empty() || url.trim_end_matches('/') == ours.url.trim_end_matches('/') => {
                Ok(Some(ours.clone()))
            }
            // Another one does not get the credentials of the one that the settings name.
            url => match url.parse::<reqwest::Url>() {
                Ok(parsed) if ["http", "https"].contains(&parsed.scheme()) => {
                    Ok(Some(config::Prometheus { url: url.to_owned(), ..Default::default() }))
                }
                _ => Err(usage("--prometheus: this is no URL such as http://127.0.0.1:9090".into())),
            },
        }
    }
}

/// What the store knows, and the log lines that the service keeps unless they come from elsewhere.
async fn from_store(
    args: &Args,
    settings: &Settings,
    range: (Timestamp, Timestamp),
    files: &mut Files,
) -> Result<Counts, Failure> {
    let dir = &settings.data_dir;
    let (url, copies) = (settings.store.url.expose(), tempfile::tempdir().map_err(anyhow::Error::from)?);
    let store = match url {
        "" => {
            if let Some(missing) = backup::FILES.iter().map(|f| dir.join(f)).find(|path| !path.is_file()) {
                let path = missing.display();
                return Err(Failure::failed(format!(
                    "{path} is not there: data_dir must name the directory of `aiops serve`"
                )));
            }
            // A copy: nothing that runs waits for us, and all of it is of one moment.
            backup::snapshot(dir, copies.path()).await?;
            backup::open_copies(copies.path()).await?
        }
        url => backup::open_postgres(url).await?,
    };
    let are_elsewhere = args.elasticsearch || !args.logs.is_empty();
    let kept_logs = (url.is_empty() && !are_elsewhere).then_some(dir.as_path());
    let counts = replay::record(&store, kept_logs, range, files).await;
    store.close().await;
    Ok(counts?)
}

fn recorded(c: &Counts) -> String {
    [
        (c.alerts, "beginning or end of an alert", "beginnings and ends of alerts"),
        (c.anomalies, "anomaly", "anomalies"),
        (c.changes, "change", "changes"),
        (c.silences, "silence", "silences"),
        (c.log_lines, "log line", "log lines"),
        (c.samples, "sample", "samples"),
    ]
    .map(|(n, one, many)| output::count(n, one, many))
    .join(", ")
}

impl LeftOut {
    /// What people should know of it.
    fn notes(self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = self.first {
            notes.push(format!(
                "{} refused: {first}",
                output::count(self.refused, "record is", "records are")
            ));
        }
        if self.elsewhen > 0 {
            notes.push(format!(
                "{} of another time",
                output::count(self.elsewhen, "record is", "records are")
            ));
        }
        if self.late > 0 {
            let records = output::count(self.late, "record is", "records are");
            notes.push(format!("{records} older than one before, and will arrive with that one"));
        }
        notes
    }
}
