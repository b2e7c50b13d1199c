//! One service's log stream: mines templates, closes seconds in event time, asks the template detectors, hands on onsets and
//! ends.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    TemplateWatch,
    clock::SourceClock,
    counts::{Baseline, Ring},
    history::{About, History, sample},
    log_errors::LogErrors,
    requests::TracedLine,
    template_detector::{Closed, Line, PLACES, Verdict, View},
    templates::{Change, Found, KeyMap, Miner, TemplateId, number},
    told::Told,
};
use crate::{
    config::Detect,
    metrics,
    model::{
        AnomalyEvent, AnomalyKind, LogLevel, LogRecord, Phrase, Said, Seconds, TemplateActivity,
        case::{Case, CaseLine, Sym},
    },
};

#[derive(Serialize, Deserialize)]
struct Tracked {
    history: History,
    slots: Vec<Slot>,
}

/// A detector with the anomaly that it has reported and not ended.
#[derive(Serialize, Deserialize)]
struct Slot {
    detector: TemplateWatch,
    told: Told,
}

/// The logs of one service.
#[derive(Serialize, Deserialize)]
pub struct Source {
    about: About,
    miner: Miner,
    templates: KeyMap<Tracked>,
    pub clock: SourceClock,
    errors: VecDeque<LogRecord>,
    ratio: LogErrors,
}

/// Error lines that are kept for evidence, and bytes of each: all services together must not fill memory.
const MAX_ERRORS: usize = 50;
const MAX_ERROR: usize = 4096;
const MAX_ACTIVITIES: usize = 50;
impl Source {
    pub fn new(service: &str, at: Timestamp, settings: &Detect) -> Self {
        Self {
            about: About::new(service, at.as_second()),
            miner: Miner::new(settings.max_templates),
            templates: KeyMap::default(),
            clock: SourceClock::new(at, settings),
            errors: VecDeque::new(),
            ratio: LogErrors::default(),
        }
    }

    /// Lines may have been lost: nobody's silence means anything up to now.
    pub fn interrupted(&mut self) {
        let second = self.clock.latest().as_second();
        self.templates.values_mut().flat_map(|t| &mut t.slots).for_each(|s| s.detector.it().resumed(second));
    }

    /// The keys of anomalies that go on.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        let of_templates = self.templates.values().flat_map(|t| &t.slots).filter_map(|s| s.told.open());
        of_templates.chain(self.ratio.open()).map(|event| event.key.as_str())
    }

    pub fn templates(&self) -> usize {
        self.templates.len()
    }

    /// Takes one record. Returns its template, and false if it came too late for its window; it still counts as evidence.
    pub fn record(
        &mut self,
        record: &LogRecord,
        arrival: Timestamp,
        settings: &Detect,
        out: &mut Vec<AnomalyEvent>,
    ) -> (bool, TemplateId) {
        let step = self.clock.arrived(record.at, arrival);
        if let Some(second) = step.resumed {
            self.templates
                .values_mut()
                .flat_map(|t| &mut t.slots)
                .for_each(|s| s.detector.it().resumed(second));
        }
        let found = self.miner.add(record.message.as_bytes());
        self.follow_miner(out);
        self.count(record, step.second, step.late, &found, settings);
        self.ask_line(record, step.second, found.template, settings, out);
        self.close(settings, out);
        (!step.late, found.template)
    }

    /// Lets the wall clock close seconds that no later record has closed.
    pub fn tick(&mut self, now: Timestamp, settings: &Detect, out: &mut Vec<AnomalyEvent>) {
        if self.clock.silent_for(now) > settings.adapt_after {
            self.end_all("its source stopped sending; nobody knows whether it is over", now, out);
            return;
        }
        self.clock.tick(now);
        self.close(settings, out);
    }

    fn close(&mut self, settings: &Detect, out: &mut Vec<AnomalyEvent>) {
        while let Some(second) = self.clock.next_closed() {
            self.close_second(second, settings, out);
        }
    }

    fn close_second(&mut self, second: i64, settings: &Detect, out: &mut Vec<AnomalyEvent>) {
        let window = settings.window.as_secs() as i64;
        let before = out.len();
        // Errors of the window that open anomalies tell of.
        let mut explained = 0;
        for (id, tracked) in &mut self.templates {
            // What is judged now becomes what is usual only when it has left the window, and never while it is a burst.
            let leaving = second - window;
            let usual = leaving >= tracked.history.first_second.max(self.clock.known_since());
            if usual && !tracked.tells(AnomalyKind::LogBurst) {
                let count = tracked.history.seconds.at(leaving);
                tracked.history.baseline.fold(count);
            }
            tracked.history.note_season(second, settings);
            let Tracked { history, slots } = tracked;
            for slot in slots {
                let template = View { history, miner: &self.miner, id: *id };
                let closed = Closed { second, kind: slot.kind(), template, source: &self.about, settings };
                let Some(verdict) = slot.detector.it().second(&closed) else { continue };
                if matches!(verdict, Verdict::End { adapt: true, .. }) {
                    let lines = history.seconds.sum(second + 1 - window, second);
                    history.baseline.restart(lines, window as u32);
                }
                slot.apply(verdict, &self.about.service, *id, second, out);
            }
            let tells = |kind| tracked.tells(kind);
            if tracked.history.level >= LogLevel::Error
                && (tells(AnomalyKind::LogBurst) || tells(AnomalyKind::LogNovelty))
            {
                explained += tracked.history.seconds.sum(second + 1 - window, second);
            }
        }
        self.ratio.second(second, explained, &self.about, settings, out);
        self.about.tell(&out[before..], second);
    }

    fn count(&mut self, record: &LogRecord, second: i64, late: bool, found: &Found, settings: &Detect) {
        let error = record.level >= LogLevel::Error;
        self.about.error_lines += u64::from(error);
        self.about.novel_errors += u64::from(error && found.new);
        let tracked = self
            .templates
            .entry(found.template)
            .or_insert_with(|| Tracked::new(record, second, self.about.age(second), settings));
        let history = &mut tracked.history;
        history.level = history.level.max(record.level);
        if history.sample.is_empty() {
            history.sample = sample(record);
        }
        history.last_second = history.last_second.max(second);
        history.total += 1;
        history.minutes.add(second.div_euclid(60), 1);
        if !late {
            history.seconds.add(second, 1);
            self.about.seconds.add(second, 1);
        }
        self.about.templates = self.templates.len();
        if error {
            if !late {
                self.ratio.error(second, || sample(record));
            }
            if self.errors.len() == MAX_ERRORS {
                self.errors.pop_front();
            }
            self.errors.push_back(kept(record));
        }
    }

    fn ask_line(
        &mut self,
        record: &LogRecord,
        second: i64,
        id: TemplateId,
        settings: &Detect,
        out: &mut Vec<AnomalyEvent>,
    ) {
        let Some(Tracked { history, slots }) = self.templates.get_mut(&id) else { return };
        let mut numbers = [None; PLACES];
        let values = self.miner.values(record.message.as_bytes());
        let places = numbers.iter_mut().zip(values).map(|(place, value)| *place = number(value)).count();
        let before = out.len();
        for slot in slots {
            let template = View { history, miner: &self.miner, id };
            let line = Line {
                second,
                level: record.level,
                numbers: &numbers[..places],
                message: &record.message,
                template,
                source: &self.about,
                settings,
            };
            if let Some(verdict) = slot.detector.it().line(&line) {
                slot.apply(verdict, &self.about.service, id, second, out);
            }
        }
        self.about.tell(&out[before..], second);
    }

    /// Follows the miner: what merged is counted together, what parted apart, and what was forgotten is ended.
    fn follow_miner(&mut self, out: &mut Vec<AnomalyEvent>) {
        for change in self.miner.take_changes() {
            match change {
                Change::Merged { from, into } => {
                    let Some(tracked) = self.retire(from, "it is part of a wider template now", out) else {
                        continue;
                    };
                    let wider = match self.templates.entry(into) {
                        Entry::Occupied(mut wider) => {
                            wider.get_mut().history.merge(&tracked.history);
                            wider.into_mut()
                        }
                        Entry::Vacant(place) => place.insert(tracked),
                    };
                    wider.slots.iter_mut().for_each(|slot| slot.detector.it().merged());
                }
                Change::Parted { from, into, share } if from == into => {
                    if let Some(tracked) = self.templates.get_mut(&from) {
                        tracked.history = tracked.history.part(share);
                    }
                }
                Change::Parted { from, into, share } => {
                    let part = self.templates.get(&from).map(|whole| whole.part(share));
                    self.templates.extend(part.map(|part| (into, part)));
                }
                Change::Forgotten(id) => {
                    self.retire(id, "forgotten to make room for newer templates", out);
                    metrics::DETECT_FORGOTTEN.inc();
                }
            }
        }
    }

    /// Takes out what is known of a template, and ends its anomalies.
    fn retire(&mut self, id: TemplateId, why: &str, out: &mut Vec<AnomalyEvent>) -> Option<Tracked> {
        let mut tracked = self.templates.remove(&id)?;
        tracked.end(why, self.clock.latest(), out);
        Some(tracked)
    }

    /// Whether a record arrived after `at`.
    pub fn heard_after(&self, at: Timestamp) -> bool {
        self.clock.last_arrival() > at
    }

    pub fn end_all(&mut self, why: &str, now: Timestamp, out: &mut Vec<AnomalyEvent>) {
        self.templates.values_mut().for_each(|tracked| tracked.end(why, now, out));
        self.ratio.end(why, now, out);
    }

    /// Why an empty answer about this source in a window would mean nothing, if so.
    pub fn unknown(&self, from: Timestamp, to: Timestamp, now: Timestamp, settings: &Detect) -> Option<Said> {
        if let Some((away, back)) = self.clock.hole(from, to) {
            return Some(Phrase::NoLogBetween { from: away.to_string(), to: back.to_string() }.into());
        }
        let age = now.as_second() - self.about.first_second;
        if age < settings.warm_up.as_secs() as i64 {
            return Some(Phrase::StillLearning { age: Seconds(age) }.into());
        }
        let (silent, limit) = (self.clock.silent_for(now), self.clock.silence_limit());
        (silent > limit).then(|| {
            let longest = self.clock.longest_gap().as_secs_f64().ceil();
            Phrase::NoLogFor { silent: Seconds(silent.as_secs() as i64), longest: Seconds(longest as i64) }
                .into()
        })
    }

    /// Templates that were seen in the minutes of the window, the serious and then the frequent ones first.
    pub fn activity(&self, from: Timestamp, to: Timestamp) -> Vec<TemplateActivity> {
        let minute = |ms: i64| ms.div_euclid(60_000);
        let (first, last) = (minute(from.as_millisecond()), minute(to.as_millisecond() - 1));
        let mut rows: Vec<_> = self
            .templates
            .iter()
            .map(|(id, tracked)| (id, &tracked.history, tracked.history.minutes.sum(first, last)))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        rows.sort_by_key(|(id, h, count)| std::cmp::Reverse((h.level.max(LogLevel::Info), *count, **id)));
        rows.sort_by_key(|(_, h, _)| h.level < LogLevel::Warn);
        rows.truncate(MAX_ACTIVITIES);
        let seconds = (to.as_second() - from.as_second()).max(0) as f64;
        rows.into_iter().map(|(id, h, count)| h.activity(self.miner.text(*id), count, seconds)).collect()
    }

    /// Adds a line that names its trace to a case; `told` are templates that are in it, by service.
    pub fn recall_traced(
        &self,
        case: &mut Case,
        service: &str,
        line: &TracedLine,
        told: &mut HashMap<(Sym, TemplateId), u32>,
    ) {
        let sym = case.names.sym(service);
        // It may be part of a wider template by now.
        let id = self.miner.resolve(line.template);
        let template = match told.get(&(sym, id)) {
            Some(known) => *known,
            None => {
                let text = self.miner.text(id);
                // Forgotten to make room: what it said is not known any more.
                if text.is_empty() {
                    return;
                }
                case.templates.push(text);
                let template = case.templates.len() as u32 - 1;
                told.insert((sym, id), template);
                template
            }
        };
        let &TracedLine { at, trace, gravity, .. } = line;
        case.lines.push(CaseLine { at, service: sym, gravity, template, span: 0, trace });
    }

    /// Adds the templates that are not in the case yet, minute by minute since `from` (microseconds).
    pub fn recall(
        &self,
        case: &mut Case,
        service: &str,
        from: i64,
        told: &mut HashMap<(Sym, TemplateId), u32>,
    ) {
        let sym = case.names.sym(service);
        for (id, tracked) in &self.templates {
            if told.contains_key(&(sym, *id)) {
                continue;
            }
            let history = &tracked.history;
            case.templates.push(self.miner.text(*id));
            let template = case.templates.len() as u32 - 1;
            let (first, last) = (from.div_euclid(60_000_000), history.last_second.div_euclid(60));
            for minute in (first..=last).filter(|minute| history.minutes.at(*minute) > 0) {
                case.lines.push(CaseLine {
                    at: minute * 60_000_000,
                    service: sym,
                    gravity: history.level.into(),
                    template,
                    span: 0,
                    trace: 0,
                });
            }
        }
    }

    pub fn errors(&self, from: Timestamp, to: Timestamp) -> Vec<LogRecord> {
        self.errors.iter().filter(|r| (from..to).contains(&r.at)).cloned().collect()
    }
}

/// An error line for evidence.
fn kept(record: &LogRecord) -> LogRecord {
    let LogRecord { at, level, service, host, message, trace_id } = record;
    LogRecord {
        at: *at,
        level: *level,
        service: service.clone(),
        host: host.clone(),
        message: message[..message.floor_char_boundary(MAX_ERROR)].to_owned(),
        trace_id: trace_id.clone(),
    }
}

impl Tracked {
    fn new(record: &LogRecord, second: i64, source_age: i64, settings: &Detect) -> Self {
        let mut baseline = Baseline::new(settings.window.as_secs() as u32);
        baseline.silent(source_age as f64);
        let slots = TemplateWatch::all().into_iter().map(Slot::new);
        Self {
            history: History {
                first_second: second,
                last_second: second,
                level: record.level,
                sample: sample(record),
                total: 0,
                seconds: Ring::seconds(),
                minutes: Ring::minutes(),
                baseline,
                season: None,
            },
            slots: slots.collect(),
        }
    }

    /// Is an anomaly of this kind open?
    fn tells(&self, kind: AnomalyKind) -> bool {
        self.slots.iter().any(|slot| slot.kind() == kind && slot.told.open().is_some())
    }

    /// What is known of one of several templates that were taken for this one.
    fn part(&self, share: f64) -> Self {
        let slots = self.slots.iter().map(|slot| Slot::new(slot.detector.part()));
        Self {
            history: History { sample: String::new(), ..self.history.part(share) },
            slots: slots.collect(),
        }
    }

    fn end(&mut self, why: &str, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        for slot in &mut self.slots {
            slot.told.end(json!({ "ended": why }), at, out);
        }
    }
}

impl Slot {
    fn new(detector: TemplateWatch) -> Self {
        Self { detector, told: Told::default() }
    }

    fn kind(&self) -> AnomalyKind {
        self.detector.kind()
    }

    fn apply(
        &mut self,
        verdict: Verdict,
        service: &str,
        id: TemplateId,
        second: i64,
        out: &mut Vec<AnomalyEvent>,
    ) {
        let key = format!("{}/{service}/{id:016x}", self.kind());
        self.told.apply(verdict, self.kind(), key, service, second, out);
    }
}
