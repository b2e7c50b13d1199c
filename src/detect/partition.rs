//! All services of one partition: routes records to their log source or metric series, keeps memory bounded, and answers what
//! is known. Pure: time comes in with every call.

use std::collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    metric::Allowed,
    requests::{Requests, TracedLine},
    sample::Whole,
    series::{self, Series},
    source::Source,
};
use crate::{
    bus::Record,
    clock,
    config::Detect,
    metrics,
    model::{
        AnomalyEvent, Coverage, Gap, LogRecord, Phrase, RecentTelemetry, Said, Sample, SeriesCount,
        TraceSpan,
        case::{Case, Sym, id_hash},
    },
};

crate::model::words!(
    /// Why a record was not judged; a metric label.
    Unjudged {
        /// Its window had closed; it counts as evidence.
        Late = "late",
        /// Not newer than the last sample of its series.
        Stale = "stale",
        /// `detect.max_services` are watched already, none of them idle.
        Services = "services",
        /// `detect.max_series` of its service, or `detect.max_all_series`, are watched already, none of them idle.
        Series = "series",
    }
);

/// The state of one partition.
#[derive(Serialize, Deserialize)]
pub struct Partition {
    #[serde(skip)]
    settings: Detect,
    /// How many there are.
    #[serde(skip)]
    partitions: usize,
    /// Its share of `detect.max_services`.
    #[serde(skip)]
    max_services: usize,
    /// Its share of `detect.max_all_series`.
    #[serde(skip)]
    max_all_series: usize,
    services: HashMap<String, Service>,
    /// Series of all services.
    #[serde(skip)]
    series: usize,
    /// When all services were last looked through for series that make room.
    #[serde(skip)]
    searched: Option<Timestamp>,
    /// Requests of the last hour.
    pub requests: Requests,
    /// Its share of `detect.max_spans`.
    #[serde(skip)]
    max_spans: usize,
    /// Gaps that concern every service, by source.
    gaps: BTreeMap<String, Gap>,
    /// The last times that telemetry was lost on its way here.
    lost: VecDeque<Gap>,
    #[serde(skip)]
    unjudged: [u64; Unjudged::ALL.len()],
    #[serde(skip)]
    judged: u64,
    /// When the last record arrived, and in how many minutes there was one.
    heard: Option<Timestamp>,
    minutes: u32,
}

#[derive(Serialize, Deserialize)]
struct Service {
    logs: Option<Source>,
    /// Boxed, for a map has room for twice as many.
    series: HashMap<u64, Box<Series>>,
    gaps: BTreeMap<String, Gap>,
    last_arrival: Timestamp,
    /// When a series was last refused for want of room, and how many samples were so far.
    crowded: Option<(Timestamp, u64)>,
    /// When it was last looked for series that make room.
    #[serde(skip)]
    searched: Option<Timestamp>,
}

/// A service that is silent for so long may make room for another; one that was crowded says so for so long.
const IDLE: std::time::Duration = std::time::Duration::from_secs(600);
/// How often a crowded service is looked through for a series that makes room.
const SEARCH_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Why an anomaly of something that makes room ends.
const NO_ROOM: &str = "it was silent and made room for others; nobody knows whether it is over";
const MAX_SERIES_SHOWN: usize = 50;
/// A record that was heard so much later than now was heard before the clock was set back.
pub(super) const SET_BACK: std::time::Duration = std::time::Duration::from_secs(60);
const MAX_LOST: usize = 16;
/// Changes with what is saved and what it means; a state of another format is not used.
const FORMAT: u32 = 6;

impl Partition {
    pub fn new(settings: &Detect, partitions: usize) -> Self {
        Self {
            settings: settings.clone(),
            partitions,
            max_services: settings.max_services.div_ceil(partitions.max(1)),
            max_all_series: settings.max_all_series.div_ceil(partitions.max(1)),
            services: HashMap::new(),
            series: 0,
            searched: None,
            requests: Requests::default(),
            max_spans: settings.max_spans.div_ceil(partitions.max(1)),
            gaps: BTreeMap::new(),
            lost: VecDeque::new(),
            unjudged: [0; Unjudged::ALL.len()],
            judged: 0,
            heard: None,
            minutes: 0,
        }
    }

    /// All that was learned, as bytes.
    pub fn save(&self) -> anyhow::Result<Vec<u8>> {
        let packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        // A number at a time would cost the packer more than packing.
        let mut text = std::io::BufWriter::with_capacity(1 << 16, packed);
        rmp_serde::encode::write_named(&mut text, &(FORMAT, self.fingerprint(), self))?;
        Ok(text.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?)
    }

    /// What [`Partition::save`] made. Fails if another version made it, or with other settings: then learning begins anew.
    pub fn restore(bytes: &[u8], settings: &Detect, partitions: usize) -> anyhow::Result<Self> {
        let mut unpacked = flate2::bufread::DeflateDecoder::new(bytes);
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut unpacked, &mut text).context("unpacking it")?;
        let (format, print): (u32, String) = {
            let mut head = rmp_serde::Deserializer::from_read_ref(&text);
            let (format, print, _): (u32, String, serde::de::IgnoredAny) =
                Deserialize::deserialize(&mut head)?;
            (format, print)
        };
        anyhow::ensure!(format == FORMAT, "it has format {format}, this version writes {FORMAT}");
        let fresh = Self::new(settings, partitions);
        anyhow::ensure!(print == fresh.fingerprint(), "the settings under detect have changed");
        let (_, _, restored): (u32, String, Self) = rmp_serde::from_slice(&text)?;
        Ok(Self {
            series: restored.services.values().map(|service| service.series.len()).sum(),
            services: restored.services,
            gaps: restored.gaps,
            lost: restored.lost,
            requests: restored.requests,
            heard: restored.heard,
            minutes: restored.minutes,
            ..fresh
        })
    }

    /// The settings that shape what is kept, and how many partitions share the services.
    fn fingerprint(&self) -> String {
        let Detect { window, lateness, max_templates, .. } = &self.settings;
        format!("{window:?} {lateness:?} {max_templates} {}", self.partitions)
    }

    /// Goes on at `now` from what was saved `since`: what came in between, if anything did, is not known.
    pub fn resume(&mut self, since: Timestamp, now: Timestamp) {
        // Whoever waits for an answer says so anew.
        self.gaps.clear();
        self.services.values_mut().for_each(|service| service.gaps.clear());
        let (source, reason) = ("restart".to_owned(), Some(Phrase::Restarted {}.into()));
        self.gap(&Gap { at: since, until: Some(now), service: None, source, reason }, now);
        self.heard = self.heard.map(|_| now);
    }

    /// The keys of anomalies that go on.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.services.values().flat_map(|service| {
            let logs = service.logs.iter().flat_map(Source::open);
            logs.chain(service.series.values().filter_map(|series| series.open()))
        })
    }

    /// Takes one record that arrived at `now`; anomalies that began or ended are added to `out`.
    pub fn record(&mut self, record: &Record, now: Timestamp, out: &mut Vec<AnomalyEvent>) {
        let unjudged = match record {
            Record::Log(record) => self.log(record, now, out),
            Record::Sample(sample) => self.sample(sample, now, out),
            Record::Span(span) => self.span(span, now),
            Record::Gap(gap) => return self.gap(gap, now),
        };
        let minute = |at: Timestamp| at.as_second().div_euclid(60);
        if self.heard.is_none_or(|last| minute(last) != minute(now)) {
            self.minutes = self.minutes.saturating_add(1);
        }
        self.heard = self.heard.max(Some(now));
        match unjudged {
            Some(why) => self.unjudged[why as usize] += 1,
            None => self.judged += 1,
        }
    }

    fn log(&mut self, record: &LogRecord, now: Timestamp, out: &mut Vec<AnomalyEvent>) -> Option<Unjudged> {
        let Some(service) =
            room(&mut self.services, &mut self.series, self.max_services, &record.service, now, out)
        else {
            return Some(Unjudged::Services);
        };
        let at = record.at.min(now);
        let source = service.logs.get_or_insert_with(|| Source::new(&record.service, at, &self.settings));
        if source.heard_after(clock::after(now, SET_BACK)) {
            // By its clock all that comes would be late, for as long as the clock was wrong.
            source.end_all("the clock was set back; what is usual is learned anew", now, out);
            *source = Source::new(&record.service, at, &self.settings);
        }
        let (in_time, template) = source.record(record, now, &self.settings, out);
        if let Some(trace) = &record.trace_id {
            let trace = id_hash(trace.to_ascii_lowercase().as_bytes());
            let line = TracedLine {
                trace,
                at: at.as_microsecond(),
                service: 0,
                template,
                gravity: record.level.into(),
            };
            self.requests.line(&record.service, line, self.max_spans);
        }
        (!in_time).then_some(Unjudged::Late)
    }

    fn span(&mut self, span: &TraceSpan, now: Timestamp) -> Option<Unjudged> {
        self.requests.end_at(clock::after(clock::after(now, self.settings.max_future), SET_BACK));
        (!self.requests.span(span, self.max_spans)).then_some(Unjudged::Late)
    }

    fn sample(&mut self, sample: &Sample, now: Timestamp, out: &mut Vec<AnomalyEvent>) -> Option<Unjudged> {
        let Some(mut service) =
            room(&mut self.services, &mut self.series, self.max_services, &sample.service, now, out)
        else {
            return Some(Unjudged::Services);
        };
        let key = series::key(sample);
        let allowed = Allowed::new(&self.settings, service.series.len());
        if let Some(series) = service.series.get_mut(&key) {
            return (!series.sample(sample, now, &allowed, out)).then_some(Unjudged::Stale);
        }
        if service.series.len() >= self.settings.max_series || self.series >= self.max_all_series {
            let own = service.series.len() >= self.settings.max_series;
            if service.forget_idle(now, self.settings.adapt_after, out) {
                self.series -= 1;
            } else if own || !self.forget_idle(now, out) {
                service = self.services.get_mut(&sample.service)?;
                let so_far = service.crowded.map_or(0, |(_, n)| n);
                service.crowded = Some((now, so_far + 1));
                return Some(Unjudged::Series);
            }
        }
        service = self.services.get_mut(&sample.service)?;
        self.series += 1;
        let series = service.series.entry(key).or_insert_with(|| Box::new(Series::new(sample)));
        series.sample(sample, now, &allowed, out);
        None
    }

    /// Lets series of whatever service that have been silent for long make room: a service that is gone asks for none itself.
    fn forget_idle(&mut self, now: Timestamp, out: &mut Vec<AnomalyEvent>) -> bool {
        if self.searched.is_some_and(|at| clock::between(at, now) < SEARCH_EVERY) {
            return false;
        }
        self.searched = Some(now);
        let idle = self.settings.adapt_after;
        let before = self.series;
        for service in self.services.values_mut() {
            service.series.retain(|_, series| {
                let gone = series.silent_for(now).is_some_and(|silent| silent > idle);
                if gone {
                    series.forgotten(NO_ROOM, now, out);
                }
                !gone
            });
        }
        self.series = self.services.values().map(|service| service.series.len()).sum();
        metrics::DETECT_FORGOTTEN_SERIES.inc_by((before - self.series) as u64);
        self.series < before
    }

    fn gap(&mut self, gap: &Gap, now: Timestamp) {
        if gap.until.is_some() {
            self.services.values_mut().for_each(Service::interrupted);
            if self.lost.len() == MAX_LOST {
                self.lost.pop_front();
            }
            return self.lost.push_back(gap.clone());
        }
        let gaps = match &gap.service {
            None => &mut self.gaps,
            Some(name) => {
                let is_room = self.services.len() < self.max_services;
                match self.services.entry(name.clone()) {
                    Entry::Occupied(known) => &mut known.into_mut().gaps,
                    // Nothing has arrived: nobody makes room for it.
                    Entry::Vacant(place) if is_room => &mut place.insert(Service::new(now)).gaps,
                    Entry::Vacant(_) => return self.unjudged[Unjudged::Services as usize] += 1,
                }
            }
        };
        match gap.reason {
            Some(_) => drop(gaps.entry(gap.source.clone()).or_insert_with(|| gap.clone())),
            None => drop(gaps.remove(&gap.source)),
        }
    }

    /// Lets time pass where nothing arrives. Call it about twice a second.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<AnomalyEvent>) {
        for service in self.services.values_mut() {
            if let Some(source) = &mut service.logs {
                source.tick(now, &self.settings, out);
            }
            let adapt_after = self.settings.adapt_after;
            service.series.values_mut().for_each(|series| series.tick(now, adapt_after, out));
        }
    }

    /// When the last record arrived, and in how many minutes there was one.
    pub fn heard(&self) -> (Option<Timestamp>, u32) {
        (self.heard, self.minutes)
    }

    /// Adds what was counted since the last call to the metrics.
    pub fn flush_counts(&mut self) {
        metrics::DETECT_RECORDS.inc_by(std::mem::take(&mut self.judged));
        for (why, count) in Unjudged::ALL.iter().zip(&mut self.unjudged) {
            metrics::DETECT_UNJUDGED.with_label_values(&[why.as_str()]).inc_by(std::mem::take(count));
        }
    }

    /// Services, templates, series, and services of which nothing is known at the moment.
    pub fn sizes(&self, now: Timestamp) -> [i64; 4] {
        let templates =
            self.services.values().filter_map(|s| s.logs.as_ref()).map(Source::templates).sum::<usize>();
        let unknown = self.services.values().filter(|s| s.is_unknown(now, &self.settings)).count();
        [self.services.len(), templates, self.series, unknown].map(|n| i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// The last loss of telemetry that a window touches.
    fn lost_between(&self, service: &str, from: Timestamp, to: Timestamp) -> Option<Said> {
        let concerns = |gap: &&Gap| {
            gap.at < to
                && gap.until.is_some_and(|until| until >= from)
                && gap.service.as_deref().is_none_or(|name| name == service)
        };
        self.lost.iter().rev().find(concerns).map(told)
    }

    /// Adds to a case what is kept since `from`, of requests those of traces that were kept whole.
    pub fn recall(&self, case: &mut Case, from: Timestamp, whole: &Whole) {
        let from = from.as_microsecond();
        self.requests.recall(case, from, whole);
        let mut told: HashMap<(Sym, u64), u32> = HashMap::new();
        for line in self.requests.lines.of(whole).filter(|line| line.at >= from) {
            let name = self.requests.name(line.service);
            let Some(logs) = self.services.get(name).and_then(|s| s.logs.as_ref()) else { continue };
            logs.recall_traced(case, name, line, &mut told);
        }
        for (name, service) in &self.services {
            let sym = case.names.sym(name);
            case.series.extend(service.series.values().filter_map(|series| series.recall(sym, from)));
            if let Some(logs) = &service.logs {
                logs.recall(case, name, from, &mut told);
            }
        }
    }

    /// See [`crate::model::Telemetry`].
    pub fn recent(&self, name: &str, from: Timestamp, to: Timestamp, now: Timestamp) -> RecentTelemetry {
        let Some(service) = self.services.get(name) else {
            let nothing = || Phrase::NothingArrived { service: name.to_owned() }.into();
            let reason = self.lost_between(name, from, to).unwrap_or_else(nothing);
            return RecentTelemetry {
                coverage: Coverage::Unknown { reason },
                templates: vec![],
                errors: vec![],
                series: vec![],
            };
        };
        let to = to.min(clock::after(now, std::time::Duration::from_secs(1)));
        let unknown = self
            .lost_between(name, from, to)
            .or_else(|| self.gaps.values().next().map(told))
            .or_else(|| service.unknown(from, to, now, &self.settings));
        let mut series: Vec<_> = service.series.values().filter_map(|s| s.summary(from, to)).collect();
        series.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        series.truncate(MAX_SERIES_SHOWN);
        RecentTelemetry {
            coverage: unknown.map_or(Coverage::Known, |reason| Coverage::Unknown { reason }),
            templates: service.logs.as_ref().map(|logs| logs.activity(from, to)).unwrap_or_default(),
            errors: service.logs.as_ref().map(|logs| logs.errors(from, to)).unwrap_or_default(),
            series,
        }
    }
}

/// The state of a service; none if it is new and there is no room.
fn room<'a>(
    services: &'a mut HashMap<String, Service>,
    series: &mut usize,
    max: usize,
    name: &str,
    now: Timestamp,
    out: &mut Vec<AnomalyEvent>,
) -> Option<&'a mut Service> {
    if !services.contains_key(name) {
        if services.len() >= max {
            let idlest = services.iter().min_by_key(|(_, service)| service.last_arrival)?;
            if clock::between(idlest.1.last_arrival, now) < IDLE {
                return None;
            }
            let idlest = idlest.0.clone();
            if let Some(mut gone) = services.remove(&idlest) {
                *series -= gone.series.len();
                gone.end_all(now, out);
            }
        }
        services.insert(name.to_owned(), Service::new(now));
    }
    let service = services.get_mut(name)?;
    service.last_arrival = service.last_arrival.max(now);
    Some(service)
}

impl Service {
    fn new(now: Timestamp) -> Self {
        Self {
            logs: None,
            series: HashMap::new(),
            gaps: BTreeMap::new(),
            last_arrival: now,
            crowded: None,
            searched: None,
        }
    }

    /// What came for it was lost for a while: no gap in what arrives means anything about that time.
    fn interrupted(&mut self) {
        self.logs.iter_mut().for_each(Source::interrupted);
        self.series.values_mut().for_each(|series| series.interrupted());
    }

    /// Ends what goes on, for nobody else would: it makes room for another.
    fn end_all(&mut self, now: Timestamp, out: &mut Vec<AnomalyEvent>) {
        self.logs.iter_mut().for_each(|logs| logs.end_all(NO_ROOM, now, out));
        self.series.values_mut().for_each(|series| series.forgotten(NO_ROOM, now, out));
    }

    /// Lets the series that has been silent the longest make room, if that is longer than `idle`: pods come and go.
    fn forget_idle(
        &mut self,
        now: Timestamp,
        idle: std::time::Duration,
        out: &mut Vec<AnomalyEvent>,
    ) -> bool {
        if self.searched.is_some_and(|at| clock::between(at, now) < SEARCH_EVERY) {
            return false;
        }
        let silent = |series: &Series| series.silent_for(now).filter(|silent| *silent > idle);
        let candidates = self.series.iter().filter_map(|(key, series)| Some((silent(series)?, *key)));
        let Some((_, key)) = candidates.max() else {
            self.searched = Some(now);
            return false;
        };
        metrics::DETECT_FORGOTTEN_SERIES.inc();
        let gone = self.series.remove(&key);
        gone.map(|mut series| series.forgotten(NO_ROOM, now, out)).is_some()
    }

    /// Whether [`Service::unknown`] has an answer at the moment. It is asked all the time, and the names of many missing series
    /// take long.
    fn is_unknown(&self, now: Timestamp, settings: &Detect) -> bool {
        !self.gaps.is_empty()
            || self.crowded_lately(now).is_some()
            || self.series.values().any(|series| series.missing(now))
            || self.logs.as_ref().is_some_and(|logs| logs.unknown(now, now, now, settings).is_some())
    }

    /// How many samples were refused for want of room, if that goes on.
    fn crowded_lately(&self, now: Timestamp) -> Option<u64> {
        self.crowded.filter(|(at, _)| clock::between(*at, now) < IDLE).map(|(_, n)| n)
    }

    /// Why silence about this service would not mean health, if so.
    fn unknown(&self, from: Timestamp, to: Timestamp, now: Timestamp, settings: &Detect) -> Option<Said> {
        let bound = match self.series.len() >= settings.max_series {
            true => "detect.max_series",
            false => "detect.max_all_series",
        };
        let crowded = self.crowded_lately(now).map(|n| dropped(n, bound));
        self.gaps
            .values()
            .next()
            .map(told)
            .or_else(|| self.logs.as_ref().and_then(|logs| logs.unknown(from, to, now, settings)))
            .or_else(|| self.missing_series(now))
            .or(crowded)
    }

    fn missing_series(&self, now: Timestamp) -> Option<Said> {
        let missing = || self.series.values().filter(|series| series.missing(now));
        let first = missing().min_by_key(|series| series.title())?;
        let series = match missing().count() {
            1 => first.title().into(),
            n => Phrase::MoreSeries { series: first.title(), more: SeriesCount(n as i64 - 1) }.into(),
        };
        let phrase = match first.last_at() {
            None => Phrase::SeriesMissing { series },
            Some(at) => Phrase::SeriesMissingSince { series, since: at.to_string() },
        };
        Some(phrase.into())
    }
}

fn told(gap: &Gap) -> Said {
    let why = gap.reason.clone().unwrap_or_else(|| Phrase::NoAnswer {}.into());
    match gap.until {
        Some(until) => Phrase::TelemetryLost { from: gap.at.to_string(), until: until.to_string(), why },
        None => Phrase::GapSince { source: gap.source.clone(), since: gap.at.to_string(), why },
    }
    .into()
}

fn dropped(count: impl ToString, setting: &str) -> Said {
    Phrase::SamplesDropped { count: count.to_string(), setting: setting.to_owned() }.into()
}
