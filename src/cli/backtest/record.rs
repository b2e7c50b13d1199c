//! `aiops backtest record`: makes a recording of what the service knows, for `aiops backtest replay`.

use std::path::PathBuf;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::super::{Context, Failure, exit::Exit, output};
use crate::{
    clock,
    replay::{self, time},
    store::backup,
};

const HELP: &str = "\
Examples:
  aiops backtest record --output history
  aiops backtest record --from 2026-10-01 --to 2026-11-01 --output october
  aiops backtest replay october --against changed.yaml

It reads the store that the settings name (data_dir or store.url), while the service runs, and changes nothing. Alerts come with the
times at which they arrived and ended; repeats are left out. Samples of metrics are not kept by the service: of them the anomalies
are recorded that were found then. Of logs the lines are taken that are kept still (logs.keep). Values that look like secrets are
masked in log lines; labels and annotations are as they came. Put metrics*.jsonl, or more of your logs, beside it as you like.";

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
    let (from, to) = (args.from.unwrap_or(Timestamp::UNIX_EPOCH), args.to.unwrap_or_else(clock::now));
    if from >= to {
        return Err(Failure::new(
            Exit::Usage,
            format!("--from {} is not before --to {}", time(from), time(to)),
        ));
    }
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
    let kept_logs = url.is_empty().then_some(dir.as_path());
    let counts = replay::record(&store, kept_logs, (from, to), &args.output).await;
    store.close().await;
    let c = counts?;
    output::print(&format!(
        "{}: {} beginnings and ends of alerts, {} anomalies, {} changes, {} silences, {} log lines",
        args.output.display(),
        c.alerts,
        c.anomalies,
        c.changes,
        c.silences,
        c.log_lines
    ))
}
