//! `aiops backtest metrics`: one metric series from a CSV file, judged value by value.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{
    super::{Context, Failure, output},
    csv,
    written::Output,
};
use crate::{
    detect::{Allowed, Change, Metric},
    model::Per,
};

/// Judge a metric series as `serve` would, value by value
///
/// The input is `timestamp,value`: RFC 3339, or without a zone for UTC; an empty value or NaN is missing data. The output has
/// a row for each row, in the same order: `timestamp,value,score,anomaly`. The score is between 0 and 1, the anomaly 1 where
/// one begins. A row depends on the rows up to it alone. What begins is told on standard output, with the reason. The
/// settings under `detect` apply; without a file, the defaults.
///
///   aiops backtest metrics --input series.csv --output scores.csv
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A CSV file with the header `timestamp,value`
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The CSV file to write; - writes standard output, and what begins to standard error
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let allowed = Allowed::new(&context.settings()?.settings.detect, 1);
    let scores = Output::create(&args.output)?;
    let judged = judge(&args.input, &allowed).map_err(Failure::failed)?;
    scores.finish(|to| to.write_all(judged.scores.as_bytes()))?;
    let told = format!("{}{} values, {} anomalies", judged.told, judged.values, judged.anomalies);
    if Output::is_standard_output(&args.output) {
        eprintln!("{told}");
        return Ok(());
    }
    output::print(&told)
}

#[derive(Default)]
struct Judged {
    scores: String,
    /// A line for each anomaly that begins.
    told: String,
    values: usize,
    anomalies: usize,
}

fn judge(input: &Path, allowed: &Allowed) -> Result<Judged, String> {
    let mut judged = Judged { scores: "timestamp,value,score,anomaly\n".into(), ..Judged::default() };
    let mut metric = Metric::default();
    csv::read(input, ["timestamp", "value"], |[at, value]| {
        let (time, number) = (time(at)?, number(value)?);
        let verdict = metric.push(time.as_microsecond(), number, allowed);
        let mut anomaly = 0;
        if let Some(Change::Onset(onset)) = verdict.change {
            anomaly = 1;
            let why = onset.title("value".into(), Per::Nothing);
            let _ = writeln!(judged.told, "{time}  {:.3}  {why}", verdict.score);
        }
        let _ = writeln!(judged.scores, "{at},{value},{:.6},{anomaly}", verdict.score);
        judged.values += 1;
        judged.anomalies += anomaly;
        Ok(())
    })?;
    Ok(judged)
}

fn time(at: &str) -> Result<Timestamp, String> {
    let utc = || Ok(at.trim().parse::<DateTime>()?.to_zoned(TimeZone::UTC)?.timestamp());
    let time: Result<Timestamp, jiff::Error> = at.trim().parse().or_else(|_| utc());
    time.map_err(|_| format!("{at:?} is no time such as 2026-11-21T10:00:00Z"))
}

fn number(value: &str) -> Result<f64, String> {
    match value.trim() {
        "" => Ok(f64::NAN),
        text => text.parse().map_err(|_| format!("{value:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Detect;

    fn judged(text: &str) -> Result<Judged, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("in.csv");
        std::fs::write(&path, text).expect("written");
        let place = format!("{}:", path.display());
        judge(&path, &Allowed::new(&Detect::default(), 1)).map_err(|why| why.replace(&place, ""))
    }

    #[test]
    fn every_row_comes_back_and_a_bad_one_is_named() {
        let text = "\u{feff}timestamp,value\r\n2026-01-01T00:00:00Z,1.50\r\n2026-01-01 00:05:00,\n\
                    2026-01-01T00:05:00+00:00,NaN\n";
        let scores = judged(text).expect("they are good").scores;
        let rows = [
            "timestamp,value,score,anomaly",
            "2026-01-01T00:00:00Z,1.50,0.000000,0",
            "2026-01-01 00:05:00,,0.000000,0",
            "2026-01-01T00:05:00+00:00,NaN,0.000000,0",
        ];
        assert_eq!(scores.lines().collect::<Vec<_>>(), rows);
        let wrong = |rows: &str| judged(&format!("timestamp,value\n{rows}")).err();
        assert_eq!(
            wrong("2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,x\n").as_deref(),
            Some("3: \"x\" is no number")
        );
        assert_eq!(
            wrong("yesterday,1\n").as_deref(),
            Some("2: \"yesterday\" is no time such as 2026-11-21T10:00:00Z")
        );
    }
}
