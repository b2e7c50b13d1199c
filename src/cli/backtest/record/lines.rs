//! Log lines and samples for a recording from files of what the API takes: read by the same code, those of other times left out,
//! secrets in messages masked.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use super::bounds::Bounds;
use crate::{
    config::Settings,
    intake::{
        logs, metrics,
        telemetry::{BadBody, Limits, Parsed},
    },
    model::{LogRecord, Sample},
    redact,
    replay::Lines,
    search::Line,
};

/// A line may be one object, or an array of them.
const JSON: &str = "application/json";

/// What was not written, and why.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Of another time than was asked for.
    pub elsewhen: u64,
    pub refused: u64,
    /// The first that was refused: which line of which file, and why.
    pub first: Option<String>,
    /// Written, and older than one before: a replay has it arrive with that one.
    pub late: u64,
}

/// What all files of a recording have in common.
pub struct Copying<'a> {
    pub settings: &'a Settings,
    pub range: (Timestamp, Timestamp),
    pub bounds: &'a mut Bounds,
    pub left_out: LeftOut,
}

impl Copying<'_> {
    pub fn logs(&mut self, path: &Path, file: &mut Lines) -> anyhow::Result<()> {
        let parse = |body: &[u8], limits: &Limits| logs::parse(body, JSON, limits);
        self.each(
            path,
            parse,
            |r: &LogRecord| r.at,
            |r| {
                file.log(&Line {
                    at: r.at,
                    message: redact::mask(&r.message),
                    service: r.service,
                    host: r.host,
                    level: Some(r.level),
                    trace_id: r.trace_id,
                })
            },
        )
    }

    pub fn metrics(&mut self, path: &Path, file: &mut Lines) -> anyhow::Result<()> {
        let parse = |body: &[u8], limits: &Limits| metrics::parse(body, JSON, limits);
        self.each(
            path,
            parse,
            |s: &Sample| s.at,
            |s| {
                file.add(&serde_json::json!({
                    "name": s.name, "service": s.service, "labels": s.labels, "value": s.value, "timestamp": s.at,
                }))
            },
        )
    }

    /// Reads a file line by line; hands on each record of the time that is wanted.
    fn each<T>(
        &mut self,
        path: &Path,
        parse: impl Fn(&[u8], &Limits) -> Result<Parsed<T>, BadBody>,
        made: impl Fn(&T) -> Timestamp,
        mut write: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (from, to) = self.range;
        let name = path.display();
        let longest = self.settings.http.max_intake_body as u64;
        let mut input = BufReader::new(File::open(path).with_context(|| format!("{name}: cannot be read"))?);
        let (mut body, mut last) = (Vec::new(), None);
        for number in 1_u64.. {
            body.clear();
            let at = || format!("{name}:{number}");
            let read = input.by_ref().take(longest + 1).read_until(b'\n', &mut body).with_context(at)?;
            if read == 0 {
                break;
            }
            if read as u64 > longest {
                bail!("{name}:{number}: the line is longer than {longest} bytes (http.max_intake_body)");
            }
            if body.trim_ascii().is_empty() {
                continue;
            }
            // A record without a time is of the time of the one before it; without one before it, of none.
            let now = last.unwrap_or(Timestamp::UNIX_EPOCH);
            let limits = Limits {
                now,
                max_future: Duration::MAX,
                max_past: Duration::MAX,
                max_message: self.settings.detect.max_message,
            };
            let parsed = match parse(&body, &limits) {
                Ok(parsed) => parsed,
                Err(why) => {
                    self.left_out.refuse(1, || format!("{name}:{number}: {why}"));
                    continue;
                }
            };
            if let Some(error) = parsed.errors.first() {
                self.left_out.refuse(parsed.rejected as u64, || format!("{name}:{number}: {}", error.reason));
            }
            for record in parsed.records {
                let at = made(&record);
                if at <= Timestamp::UNIX_EPOCH {
                    self.left_out
                        .refuse(1, || format!("{name}:{number}: it has no time, and nothing before it has"));
                    continue;
                }
                let is_late = last.is_some_and(|last| at < last);
                last = last.max(Some(at));
                if at < from || at > to {
                    self.left_out.elsewhen += 1;
                    continue;
                }
                self.left_out.late += u64::from(is_late);
                self.bounds.take(1)?;
                write(record)?;
            }
        }
        Ok(())
    }
}

impl LeftOut {
    fn refuse(&mut self, count: u64, why: impl FnOnce() -> String) {
        self.refused += count;
        self.first.get_or_insert_with(why);
    }
}
