//! Finds a service of whose lines more than usual are errors, however many statements they come of.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{counts::Ring, history::About, share::Share, template_detector::Verdict, told::Told};
use crate::{
    config::Detect,
    model::{AnomalyEvent, AnomalyKind, Phrase, Severity},
    redact,
};

/// Compares the share of errors in a window with the usual one. Errors that a burst or a new error tells of already do not
/// count twice: many at a time of different statements are what only this sees.
#[derive(Serialize, Deserialize)]
pub struct LogErrors {
    errors: Ring,
    usual: Share,
    /// Of the window that is leaving.
    hits: u64,
    all: u64,
    left: u32,
    sample: String,
    open: Option<Open>,
    told: Told,
}

#[derive(Serialize, Deserialize)]
struct Open {
    since: i64,
    calm: u32,
}

/// Lines that make a baseline.
const KNOWN: f64 = 100.0;
/// At least so many times the usual share: what is only significant wakes nobody.
const MIN_RATIO: f64 = 3.0;

impl Default for LogErrors {
    fn default() -> Self {
        Self {
            errors: Ring::seconds(),
            usual: Share::default(),
            hits: 0,
            all: 0,
            left: 0,
            sample: String::new(),
            open: None,
            told: Told::default(),
        }
    }
}

impl LogErrors {
    /// Counts an error line.
    pub fn error(&mut self, second: i64, line: impl FnOnce() -> String) {
        if self.errors.at(second) == 0 {
            self.sample = line();
        }
        self.errors.add(second, 1);
    }

    pub fn open(&self) -> Option<&AnomalyEvent> {
        self.told.open()
    }

    pub fn end(&mut self, why: &str, at: jiff::Timestamp, out: &mut Vec<AnomalyEvent>) {
        self.open = None;
        self.told.end(json!({ "ended": why }), at, out);
    }

    /// Judges a complete second. `explained`: errors of the window that other anomalies tell of.
    pub fn second(
        &mut self,
        second: i64,
        explained: u64,
        source: &About,
        settings: &Detect,
        out: &mut Vec<AnomalyEvent>,
    ) {
        let window = settings.window.as_secs() as u32;
        let from = second + 1 - i64::from(window);
        let (errors, lines) = (self.errors.sum(from, second), source.lines(from, second));
        if self.open.is_none() {
            self.learn(from - 1, window, source);
        }
        let verdict = match self.open.is_some() {
            true => self.over(second, errors, lines, window, settings),
            false => self.onset(second, errors, errors.saturating_sub(explained), lines, source, settings),
        };
        if let Some(verdict) = verdict {
            let key = format!("{}/{}", AnomalyKind::LogErrors, source.service);
            self.told.apply(verdict, AnomalyKind::LogErrors, key, &source.service, second, out);
        }
    }

    /// What is judged now becomes what is usual only when it has left the window.
    fn learn(&mut self, leaving: i64, window: u32, source: &About) {
        if leaving < source.first_second {
            return;
        }
        self.hits += u64::from(self.errors.at(leaving));
        self.all += source.lines(leaving, leaving);
        self.left += 1;
        if self.left >= window {
            self.usual.fold(self.hits, self.all);
            (self.hits, self.all, self.left) = (0, 0, 0);
        }
    }

    fn onset(
        &mut self,
        second: i64,
        errors: u64,
        unexplained: u64,
        lines: u64,
        source: &About,
        settings: &Detect,
    ) -> Option<Verdict> {
        let warm_up = settings.warm_up.as_secs() as i64;
        let share = unexplained as f64 / lines.max(1) as f64;
        let loud = unexplained >= u64::from(settings.min_count) && share > MIN_RATIO * self.usual.usual();
        if !loud || self.usual.lines() < KNOWN || source.age(second) < warm_up {
            return None;
        }
        let expected = self.usual.expected(lines);
        let limit = source.false_alarms(AnomalyKind::LogErrors, second, settings) / 86_400.0;
        if expected.tail(unexplained) >= limit {
            return None;
        }
        self.open = Some(Open { since: second, calm: 0 });
        let (low, high) = (expected.quantile(0.01), expected.quantile(0.99));
        let percent = |n: u64| format!("{:.0}", 100.0 * n as f64 / lines.max(1) as f64);
        let seconds = settings.window.as_secs();
        Some(Verdict::Onset {
            severity: Severity::Warning,
            title: Phrase::LogErrors {
                service: source.service.clone(),
                percent: percent(errors),
                lines: lines.to_string(),
                seconds: seconds.to_string(),
                low: percent(low),
                high: percent(high),
            },
            detail: json!({
                "errors": errors, "lines": lines, "seconds": seconds, "sample": redact::mask(&self.sample),
                "expected": { "low": low, "high": high }, "baseline_lines": self.usual.lines().round(),
            }),
            started: second + 1 - seconds as i64,
        })
    }

    fn over(
        &mut self,
        second: i64,
        errors: u64,
        lines: u64,
        window: u32,
        settings: &Detect,
    ) -> Option<Verdict> {
        let open = self.open.as_mut()?;
        let usual = self.usual.expected(lines).quantile(0.99);
        open.calm = if errors <= usual.max(1) { open.calm + 1 } else { 0 };
        let lasting = second - open.since >= settings.adapt_after.as_secs() as i64;
        if open.calm < window && !lasting {
            return None;
        }
        self.open = None;
        if lasting {
            self.usual = Share::default();
        }
        let reason = if lasting { "this share is usual now" } else { "back to the usual share" };
        Some(Verdict::End { detail: json!({ "ended": reason }), adapt: lasting })
    }
}
