//! A recording: files of lines of JSON, each kind in the form in which the API takes it, merged by the time of arrival.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    bus::Record,
    config::{Mapping, Settings, Watch},
    intake::{
        alertmanager, changes, generic, logs, metrics, prometheus,
        telemetry::{Limits, Parsed},
        traces,
    },
    model::{AlertEvent, AlertState, AnomalyEvent, AnomalyKind, Change, Matchers, Sample},
};

crate::model::words!(
    /// What a file holds; its name begins with the word. Of what arrives in the same microsecond, the first of these comes first.
    Kind {
        Silences = "silences",
        Changes = "changes",
        Traces = "traces",
        Metrics = "metrics",
        /// What Prometheus answers to one watch, which stands in the first line.
        Watches = "watches",
        Logs = "logs",
        Anomalies = "anomalies",
        Alerts = "alerts",
    }
);

/// What arrived at one moment.
pub enum Arrival {
    Alerts(Vec<AlertEvent>),
    Anomaly(Box<AnomalyEvent>),
    Record(Record),
    Change(Change),
    Silence(Silence),
}

/// Somebody asked not to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Silence {
    /// When it was made.
    #[serde(alias = "created_at")]
    pub at: Timestamp,
    pub until: Timestamp,
    pub matches: Matchers,
    #[serde(default)]
    pub reason: String,
}

/// How much there was of each kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub alerts: u64,
    pub anomalies: u64,
    pub log_lines: u64,
    pub samples: u64,
    pub spans: u64,
    pub changes: u64,
    pub silences: u64,
}

impl Counts {
    pub fn add(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Alerts(alerts) => self.alerts += alerts.len() as u64,
            Arrival::Anomaly(_) => self.anomalies += 1,
            Arrival::Record(Record::Log(_)) => self.log_lines += 1,
            Arrival::Record(Record::Sample(_)) => self.samples += 1,
            Arrival::Record(Record::Span(_)) => self.spans += 1,
            Arrival::Record(Record::Gap(_)) => {}
            Arrival::Change(_) => self.changes += 1,
            Arrival::Silence(_) => self.silences += 1,
        }
    }
}

/// The files of a recording.
#[derive(Clone, Debug)]
pub struct Recording {
    files: Vec<(Kind, PathBuf)>,
    /// Whose answers the files of watches hold.
    watches: BTreeMap<PathBuf, Watch>,
    /// What the metrics in those are called.
    watched: BTreeSet<String>,
}

const EXTENSIONS: [&str; 2] = ["jsonl", "ndjson"];
/// Bytes of a first line that names a watch.
const LONGEST_WATCH: u64 = 1 << 20;

impl Recording {
    /// A directory with files of lines, or one such file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let reading = || format!("{}: cannot be read", path.display());
        let is_dir = std::fs::metadata(path).with_context(reading)?.is_dir();
        let mut paths = vec![path.to_owned()];
        if is_dir {
            let entries: std::io::Result<Vec<_>> = std::fs::read_dir(path).with_context(reading)?.collect();
            paths = entries.with_context(reading)?.into_iter().map(|e| e.path()).collect();
            // Whatever else is in the directory (notes of people) is none of ours.
            paths.retain(|p| p.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)));
        }
        paths.sort();
        let mut files = Vec::with_capacity(paths.len());
        let (mut watches, mut watched) = (BTreeMap::new(), BTreeSet::new());
        for path in paths {
            let kind = kind_of(&path)?;
            if kind == Kind::Watches {
                let watch = watch_of(&path)?;
                match watch.name_label.as_str() {
                    "" => drop(watched.insert(watch.name.clone())),
                    _ => names_in(&path, &mut watched)?,
                }
                watches.insert(path.clone(), watch);
            }
            files.push((kind, path));
        }
        if files.is_empty() {
            bail!("{}: holds no file that ends in .jsonl", path.display());
        }
        files.sort();
        Ok(Self { files, watches, watched })
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.files.iter().any(|(k, _)| *k == kind)
    }

    /// The watches of these settings whose answers it does not hold, or holds of another question under the same name.
    pub fn lacks(&self, settings: &Settings) -> Vec<String> {
        let held: Vec<&Watch> = self.watches.values().collect();
        let lacking = settings.detect.watches.iter().filter(|watch| !held.contains(watch));
        lacking.map(|watch| watch.name.clone()).collect()
    }

    /// Reads it from the beginning. The settings bound messages and say when silence ends an alert.
    pub fn arrivals(&self, settings: &Settings) -> anyhow::Result<Arrivals> {
        let mut sources = Vec::with_capacity(self.files.len());
        for (kind, path) in &self.files {
            if self.watches.get(path).is_some_and(|watch| !settings.detect.watches.contains(watch)) {
                continue;
            }
            let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            sources.push(Source {
                kind: *kind,
                name: path.display().to_string(),
                input: BufReader::with_capacity(1 << 18, file),
                line: String::new(),
                number: 0,
                last: None,
                waiting: BTreeMap::new(),
                order: 0,
                ended: false,
            });
        }
        let found_anew = FoundAnew {
            logs: self.has(Kind::Logs),
            metrics: self.has(Kind::Metrics),
            watched: self.watched.clone(),
        };
        let limits = Limits {
            now: Timestamp::UNIX_EPOCH,
            max_future: Duration::MAX,
            max_past: Duration::MAX,
            max_message: settings.detect.max_message,
        };
        let mapped =
            |(name, source): (&String, &crate::config::Source)| Some((name.clone(), source.mapping.clone()?));
        let mappings = settings.intake.sources.iter().filter_map(mapped).collect();
        let resolve_timeout = settings.intake.resolve_timeout;
        Ok(Arrivals { sources, form: Form { limits, resolve_timeout, mappings, found_anew } })
    }
}

/// The watch in the first line of a file of answers.
fn watch_of(path: &Path) -> anyhow::Result<Watch> {
    let reading = || format!("{}: cannot be read", path.display());
    let mut line = String::new();
    BufReader::new(File::open(path).with_context(reading)?.take(LONGEST_WATCH))
        .read_line(&mut line)
        .with_context(reading)?;
    let watch = serde_json::from_str(&line);
    watch.with_context(|| format!("{}:1: it must be the watch whose answers follow", path.display()))
}

/// What the samples of a file of answers are called, behind its first line. What is wrong with a line is told when it is replayed.
fn names_in(path: &Path, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    let reading = || format!("{}: cannot be read", path.display());
    let mut lines = BufReader::with_capacity(1 << 18, File::open(path).with_context(reading)?);
    let mut line = String::new();
    lines.skip_until(b'\n').with_context(reading)?;
    while lines.read_line(&mut line).with_context(reading)? > 0 {
        if let Ok(Named { name }) = serde_json::from_str(&line)
            && !names.contains(&*name)
        {
            names.insert(name.into_owned());
        }
        line.clear();
    }
    Ok(())
}

fn kind_of(path: &Path) -> anyhow::Result<Kind> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let word: String = name.chars().take_while(char::is_ascii_lowercase).collect();
    word.parse().map_err(|_| {
        let known: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
        anyhow::anyhow!(
            "{}: its name must say what it holds, and begin with one of {}",
            path.display(),
            known.join(", ")
        )
    })
}

/// A recording as it is read: in the order of arrival.
pub struct Arrivals {
    sources: Vec<Source>,
    form: Form,
}

/// How lines are read.
struct Form {
    limits: Limits,
    resolve_timeout: Duration,
    /// Of webhooks of one's own, by name.
    mappings: BTreeMap<String, Mapping>,
    found_anew: FoundAnew,
}

/// Anomalies that the detectors find anew, so that they are not taken from the record.
struct FoundAnew {
    logs: bool,
    metrics: bool,
    /// Those of metrics with these names, which watches ask for.
    watched: BTreeSet<String>,
}

impl FoundAnew {
    fn has(&self, event: &AnomalyEvent) -> bool {
        match event.kind {
            AnomalyKind::Metric => {
                let name = event.detail["name"].as_str();
                self.metrics || name.is_some_and(|name| self.watched.contains(name))
            }
            _ => self.logs,
        }
    }
}

struct Source {
    kind: Kind,
    name: String,
    input: BufReader<File>,
    line: String,
    number: u64,
    /// When the last line arrived.
    last: Option<Timestamp>,
    /// By arrival, then in the order of reading: an anomaly's end comes later than its line.
    waiting: BTreeMap<(Timestamp, u64), Arrival>,
    order: u64,
    ended: bool,
}

impl Arrivals {
    /// What arrives next, and when.
    pub fn next(&mut self) -> anyhow::Result<Option<(Timestamp, Arrival)>> {
        let mut first: Option<(Timestamp, usize)> = None;
        for (i, source) in self.sources.iter_mut().enumerate() {
            let Some(at) = source.head(&self.form)? else { continue };
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, i));
            }
        }
        let taken = first.and_then(|(_, i)| self.sources[i].waiting.pop_first());
        Ok(taken.map(|((at, _), arrival)| (at, arrival)))
    }
}

impl Source {
    /// When the first that waits arrives; reads on until nothing on later lines can come before it.
    fn head(&mut self, form: &Form) -> anyhow::Result<Option<Timestamp>> {
        loop {
            let first = self.waiting.first_key_value().map(|((at, _), _)| *at);
            if self.ended || first.is_some_and(|at| self.last.is_some_and(|last| at <= last)) {
                return Ok(first);
            }
            self.read_line(form)?;
        }
    }

    fn read_line(&mut self, form: &Form) -> anyhow::Result<()> {
        self.line.clear();
        self.number += 1;
        let read = self.input.read_line(&mut self.line);
        if read.with_context(|| format!("{}:{}", self.name, self.number))? == 0 {
            self.ended = true;
            return Ok(());
        }
        let text = self.line.trim();
        let is_watch = self.kind == Kind::Watches && self.number == 1;
        if text.is_empty() || is_watch {
            return Ok(());
        }
        let arrived = match parse(self.kind, text, self.last, form) {
            Ok(arrived) => arrived,
            Err(why) => bail!("{}:{}: {why}", self.name, self.number),
        };
        for (at, arrival) in arrived {
            // The ends of anomalies lie ahead; the next line does not wait for them.
            if !matches!(&arrival, Arrival::Anomaly(a) if a.ended_at.is_some()) {
                self.last = self.last.max(Some(at));
            }
            self.waiting.insert((at, self.order), arrival);
            self.order += 1;
        }
        Ok(())
    }
}

type Arrived = Vec<(Timestamp, Arrival)>;

fn parse(kind: Kind, text: &str, last: Option<Timestamp>, form: &Form) -> Result<Arrived, String> {
    match kind {
        Kind::Alerts => alerts(text, last, form),
        Kind::Anomalies => anomaly(text, last, &form.found_anew),
        Kind::Changes => {
            let changes = changes::parse(text, Timestamp::UNIX_EPOCH).map_err(|e| e.to_string())?;
            changes.into_iter().map(|c| Ok((dated(c.at, last)?, Arrival::Change(c)))).collect()
        }
        Kind::Silences => {
            let silence: Silence = serde_json::from_str(text).map_err(|e| e.to_string())?;
            Ok(vec![(in_order(silence.at, last)?, Arrival::Silence(silence))])
        }
        Kind::Logs => {
            records(logs::parse(text.as_bytes(), JSON, &form.at(last)), last, |l| (l.at, Record::Log(l)))
        }
        Kind::Metrics => records(metrics::parse(text.as_bytes(), JSON, &form.at(last)), last, |s| {
            (s.at, Record::Sample(s))
        }),
        Kind::Watches => {
            let sample: Sample = serde_json::from_str(text).map_err(|e| e.to_string())?;
            Ok(vec![(in_order(sample.at, last)?, Arrival::Record(Record::Sample(sample)))])
        }
        Kind::Traces => {
            records(traces::parse(text.as_bytes(), JSON, &form.at(last)), last, |s| (s.at, Record::Span(s)))
        }
    }
}

const JSON: &str = "application/json";

impl Form {
    /// A record without a time arrived with the one before it.
    fn at(&self, last: Option<Timestamp>) -> Limits {
        Limits { now: last.unwrap_or(self.limits.now), ..self.limits }
    }
}

/// Telemetry arrives when it says that it was made; what says less than the line before it comes late, with that line.
fn records<T>(
    parsed: Result<Parsed<T>, impl std::fmt::Display>,
    last: Option<Timestamp>,
    place: impl Fn(T) -> (Timestamp, Record),
) -> Result<Arrived, String> {
    let parsed = parsed.map_err(|e| e.to_string())?;
    if let Some(refused) = parsed.errors.first() {
        return Err(refused.reason.clone());
    }
    let mut at = last;
    let mut out = Vec::with_capacity(parsed.records.len());
    for record in parsed.records {
        let (made, record) = place(record);
        let arrived = dated(made, at)?;
        at = Some(arrived);
        out.push((arrived, Arrival::Record(record)));
    }
    Ok(out)
}

/// By its own time, but not before what is there already.
fn dated(at: Timestamp, last: Option<Timestamp>) -> Result<Timestamp, String> {
    match last.max((at > Timestamp::UNIX_EPOCH).then_some(at)) {
        Some(at) => Ok(at),
        None => Err("it has no time, and nothing before it has".into()),
    }
}

/// A time of arrival that was written down.
fn in_order(at: Timestamp, last: Option<Timestamp>) -> Result<Timestamp, String> {
    match last.filter(|last| at < *last) {
        Some(last) => Err(format!(
            "it arrived at {at}, before the line above it ({last}); lines are in the order of arrival"
        )),
        None => Ok(at),
    }
}

/// What tells the forms of an alert line apart, and when it arrived.
#[derive(Deserialize)]
struct AlertLine<'a> {
    #[serde(default)]
    at: Option<Timestamp>,
    #[serde(borrow, default)]
    alerts: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    prometheus: Option<&'a serde_json::value::RawValue>,
    /// The name of a webhook with a mapping, and what it brought.
    #[serde(default)]
    webhook: Option<String>,
    #[serde(borrow, default)]
    body: Option<&'a serde_json::value::RawValue>,
    #[serde(default)]
    source: Option<String>,
}

fn alerts(text: &str, last: Option<Timestamp>, form: &Form) -> Result<Arrived, String> {
    let line: AlertLine<'_> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let at = line.at.map(|at| in_order(at, last)).transpose()?;
    let now = at.or(last).unwrap_or(Timestamp::UNIX_EPOCH);
    let arrived =
        |what: &str| at.ok_or_else(|| format!("what {what} sent needs the time of its arrival: \"at\""));
    let mut events = match (line.alerts, line.prometheus, &line.webhook) {
        (Some(_), ..) => alertmanager::parse(text, now),
        (None, Some(body), _) => prometheus::parse(body.get(), arrived("Prometheus")?, form.resolve_timeout),
        (None, None, Some(name)) => {
            let body = line.body.ok_or("what a webhook sent stands in \"body\"")?;
            let mapping = form.mappings.get(name);
            let mapping =
                mapping.ok_or_else(|| format!("the settings have no intake.sources.{name}.mapping"))?;
            generic::parse(body.get(), name, mapping, arrived(name)?)
        }
        (None, None, None) => alertmanager::parse(&format!("{{\"alerts\":[{text}]}}"), now),
    }
    .map_err(|e| e.to_string())?;
    if let Some(source) = line.source {
        events.iter_mut().for_each(|event| event.source.clone_from(&source));
    }
    // Without a time of arrival: when the latest of it began or ended.
    let told = |e: &AlertEvent| match e.state {
        AlertState::Firing => e.starts_at,
        AlertState::Resolved => e.ends_at.unwrap_or(e.starts_at),
    };
    let at = match at {
        Some(at) => at,
        None => dated(events.iter().map(told).max().unwrap_or(Timestamp::UNIX_EPOCH), last)?,
    };
    Ok(vec![(at, Arrival::Alerts(events))])
}

#[derive(Deserialize)]
struct AnomalyLine {
    #[serde(default)]
    at: Option<Timestamp>,
    #[serde(flatten)]
    event: AnomalyEvent,
}

/// Its onset and, if it is over, its end.
fn anomaly(text: &str, last: Option<Timestamp>, found_anew: &FoundAnew) -> Result<Arrived, String> {
    let AnomalyLine { at, event } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let at = match at {
        Some(at) => in_order(at, last)?,
        None => dated(event.started_at, last)?,
    };
    if found_anew.has(&event) {
        return Ok(Vec::new());
    }
    let onset = AnomalyEvent { ended_at: None, ..event.clone() };
    let mut out = vec![(at, Arrival::Anomaly(Box::new(onset)))];
    if let Some(ended) = event.ended_at {
        out.push((ended.max(at), Arrival::Anomaly(Box::new(event))));
    }
    Ok(out)
}
