//! What a detector of one kind of deviation in one template sees, and what it says.

use std::ops::Deref;

use serde_json::Value;

use super::{
    history::{About, History, cut},
    templates::{Miner, TemplateId},
};
use crate::{
    config::Detect,
    model::{AnomalyKind, LogLevel, Phrase, Severity},
    redact,
};

/// Variables of a line that detectors see: the first ones.
pub const PLACES: usize = 3;

/// Watches one template for one kind of deviation. One file each; the table is in `detect`.
pub trait TemplateDetector {
    /// A line of the template has arrived, in order of arrival.
    fn line(&mut self, _line: &Line<'_>) -> Option<Verdict> {
        None
    }
    /// The template has taken in others: its variables are not where they were.
    fn merged(&mut self) {}
    /// A second of event time is complete.
    fn second(&mut self, closed: &Closed<'_>) -> Option<Verdict>;
    /// Nothing is known of the time up to this second: the source was away.
    fn resumed(&mut self, _second: i64) {}
}

/// What a detector has to say.
pub enum Verdict {
    Onset {
        severity: Severity,
        title: Phrase,
        detail: Value,
        started: i64,
    },
    /// `detail` is added to that of the onset. With `adapt` the baseline forgets what came before.
    End {
        detail: Value,
        adapt: bool,
    },
}

/// A line, as a detector sees it.
pub struct Line<'a> {
    pub second: i64,
    pub level: LogLevel,
    /// The first variables of its template, as far as they are numbers.
    pub numbers: &'a [Option<f64>],
    pub message: &'a str,
    pub template: View<'a>,
    pub source: &'a About,
    pub settings: &'a Detect,
}

/// A complete second, as a detector sees it.
pub struct Closed<'a> {
    pub second: i64,
    /// Of the anomaly that is looked for.
    pub kind: AnomalyKind,
    pub template: View<'a>,
    pub source: &'a About,
    pub settings: &'a Detect,
}

impl Line<'_> {
    pub fn warm_up(&self) -> i64 {
        self.settings.warm_up.as_secs() as i64
    }
    /// The line itself, secrets masked.
    pub fn sample(&self) -> String {
        redact::mask(cut(self.message))
    }
}

impl Closed<'_> {
    /// Alarms a day that all the tries of this kind about this source may cost by chance.
    pub fn false_alarms(&self) -> f64 {
        self.source.false_alarms(self.kind, self.second, self.settings)
    }
    /// Lines of the template in the last `seconds` that are complete.
    pub fn count(&self, seconds: u32) -> u64 {
        self.template.seconds.sum(self.second + 1 - i64::from(seconds), self.second)
    }
    pub fn window(&self) -> u32 {
        self.settings.window.as_secs() as u32
    }
    pub fn warm_up(&self) -> i64 {
        self.settings.warm_up.as_secs() as i64
    }
}

/// A template's history with its text at hand.
pub struct View<'a> {
    pub history: &'a History,
    pub miner: &'a Miner,
    pub id: TemplateId,
}

impl View<'_> {
    /// The template, secrets masked: it is about to be shown.
    pub fn text(&self) -> String {
        redact::mask(&self.miner.text(self.id))
    }
    /// One line of it, secrets masked.
    pub fn sample(&self) -> String {
        redact::mask(&self.history.sample)
    }
}

impl Deref for View<'_> {
    type Target = History;
    fn deref(&self) -> &History {
        self.history
    }
}

/// How serious an anomaly in lines of this level is: a log line alone is critical only if the program calls it fatal.
pub fn severity(level: LogLevel) -> Severity {
    if level >= LogLevel::Fatal { Severity::Critical } else { Severity::Warning }
}
