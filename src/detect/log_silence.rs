//! Finds a regular template, a heartbeat, that stops while its source goes on.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    stats::gap_quantile,
    template_detector::{Closed, TemplateDetector, Verdict},
};
use crate::model::{Phrase, Severity};

/// Learns the gaps between seconds in which the template is seen. It is silent when the gap is longer than gaps of that
/// mean and spread ever get within the false-alarm budget. Seconds in which the whole source is silent do not count: then
/// nobody knows.
#[derive(Default, Serialize, Deserialize)]
pub struct LogSilence {
    last: Option<i64>,
    gaps: f64,
    mean: f64,
    variance: f64,
    longest: f64,
    lines: f64,
    /// Seconds without the template in which the source was alive, and the lines that would have come in them if these hours
    /// were as on other days; NaN where that is not known.
    silent: f64,
    missed: f64,
    open: Option<i64>,
}

/// Gaps that must have been seen before anything is called regular, and that are remembered.
const ENOUGH: f64 = 10.0;
const MEMORY: f64 = 50.0;
/// Silence shorter than this is never told, nor is that of a template rarer than the second.
const SHORTEST: f64 = 5.0;
const LONGEST: f64 = 1800.0;
/// The share of its usual lines of which fewer are few.
const FEW: f64 = 0.5;

impl TemplateDetector for LogSilence {
    fn second(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        let count = closed.count(1);
        if count > 0 {
            return self.seen(closed.second, count);
        }
        self.last?;
        if closed.source.alive(closed.second) {
            let rate = closed.template.season.as_ref().and_then(|season| season.rate(closed.second));
            self.silent += 1.0;
            self.missed += rate.unwrap_or(f64::NAN);
        }
        match self.open {
            Some(since) => self.gone(closed, since),
            None => self.onset(closed),
        }
    }

    fn resumed(&mut self, second: i64) {
        self.last = self.last.map(|_| second);
        (self.silent, self.missed) = (0.0, 0.0);
    }
}

impl LogSilence {
    /// The gaps of a whole say nothing of its parts.
    pub fn part(&self) -> Self {
        Self::default()
    }

    fn seen(&mut self, second: i64, count: u64) -> Option<Verdict> {
        let gap = self.last.replace(second).map(|last| (second - last) as f64);
        let silent = std::mem::take(&mut self.silent);
        let missed = std::mem::take(&mut self.missed);
        if let Some(since) = self.open.take() {
            let detail = json!({ "ended": "it is back", "silent_seconds": second - since });
            return Some(Verdict::End { detail, adapt: false });
        }
        // A gap with the source away teaches nothing, nor does one in which few lines were to be expected.
        let usual = self.gaps >= ENOUGH && missed < FEW * silent / self.mean;
        if let Some(gap) = gap.filter(|gap| silent + 1.0 >= *gap && !usual) {
            self.learn(gap, count as f64);
        }
        None
    }

    fn learn(&mut self, gap: f64, lines: f64) {
        self.gaps = (self.gaps + 1.0).min(MEMORY);
        let (step, delta) = (1.0 / self.gaps, gap - self.mean);
        self.mean += step * delta;
        self.variance += step * (delta * (gap - self.mean) - self.variance);
        self.lines += step * (lines - self.lines);
        self.longest = gap.max(self.longest * 0.999);
    }

    fn onset(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        if self.gaps < ENOUGH || closed.source.age(closed.second) < closed.warm_up() {
            return None;
        }
        let limit = self.limit(closed)?;
        // Where it was quiet at these hours on other days, it may be again.
        let usual_now = self.missed < self.surprise(closed);
        if self.silent <= limit || usual_now {
            return None;
        }
        let last = self.last?;
        self.open = Some(last);
        let (text, usual, silent) = (closed.template.text(), self.mean, self.silent);
        Some(Verdict::Onset {
            severity: Severity::Warning,
            title: Phrase::LogSilence {
                template: text.clone(),
                silent: format!("{silent:.0}"),
                usual: format!("{usual:.1}"),
            },
            detail: json!({
                "template": text, "level": closed.template.level, "sample": closed.template.sample(),
                "silent_seconds": silent, "usual_gap_seconds": usual,
                "expected": { "low": 0, "high": limit.ceil() },
            }),
            started: last + 1,
        })
    }

    /// The longest gap that is still usual; none if the template is not regular enough to say.
    fn limit(&self, closed: &Closed<'_>) -> Option<f64> {
        let cv2 = self.variance / (self.mean * self.mean);
        if cv2 > 1.0 {
            return None;
        }
        let surprise = self.surprise(closed);
        let p = (-surprise).exp();
        // Spread and mean come from a few gaps only. The spread is taken for larger; the mean widens the limit as it does
        // for exponential gaps, where P(gap > t) = (1 + t / (n · mean))⁻ⁿ.
        let n = self.gaps;
        let spread = cv2 * (1.0 + 3.0 / n.sqrt()) + 1.0 / n + 0.01;
        let widened = n * (surprise / n).exp_m1() / surprise;
        let mut limit = gap_quantile(self.mean, spread, p) * widened;
        let rate = self.lines / self.mean;
        if rate > 0.3 {
            // Frequent lines come in most seconds, and their gaps look more regular than they are.
            limit = limit.max(surprise / rate);
        }
        let limit = limit.max(3.0 * self.mean).max(1.5 * self.longest).max(SHORTEST);
        (limit < LONGEST).then_some(limit)
    }

    /// −ln of the probability that the budget leaves to one gap.
    fn surprise(&self, closed: &Closed<'_>) -> f64 {
        let tries = 86_400.0 / self.mean * closed.source.templates as f64;
        -(closed.false_alarms() / tries).ln()
    }

    fn gone(&mut self, closed: &Closed<'_>, since: i64) -> Option<Verdict> {
        if closed.second - since < closed.settings.adapt_after.as_secs() as i64 {
            return None;
        }
        *self = Self::default();
        Some(Verdict::End { detail: json!({ "ended": "silence is usual now" }), adapt: true })
    }
}
