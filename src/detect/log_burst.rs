//! Finds a template that comes much more often than it used to.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    stats::NegativeBinomial,
    template_detector::{Closed, TemplateDetector, Verdict, severity},
};
use crate::model::{LogLevel, Phrase, Severity};

/// Compares the counts of the last second, a third of a window and a window with what is usual, by the probability of a
/// count as high or higher. All three are tried every second, so the false-alarm budget is spread over all those tries.
#[derive(Default, Serialize, Deserialize)]
pub struct LogBurst {
    open: Option<Open>,
}

#[derive(Serialize, Deserialize)]
struct Open {
    since: i64,
    /// The most that is usual in a window; the burst is over when counts stay under it for a window.
    usual: u64,
    calm: u32,
    peak: u64,
}

/// A burst is at least so many times the mean: what is only significant wakes nobody.
const MIN_RATIO: f64 = 3.0;
/// And so many times the highest count seen, or heavy tails would speak.
const OVER_RECORD: f64 = 1.5;
const SCALES: f64 = 3.0;

impl TemplateDetector for LogBurst {
    fn second(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        match self.open.is_some() {
            true => self.end(closed),
            false => self.onset(closed),
        }
    }
}

impl LogBurst {
    /// The burst of a whole says nothing of its parts.
    pub fn part(&self) -> Self {
        Self::default()
    }

    fn onset(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        let window = closed.window();
        // Lines under warning level need a past of their own: a new kind of chatter is no burst.
        let known = closed.second - closed.template.first_second >= 3 * i64::from(window);
        if closed.source.age(closed.second) < closed.warm_up()
            || (closed.template.level < LogLevel::Warn && !known)
        {
            return None;
        }
        let tries = 86_400.0 * SCALES * closed.source.templates as f64;
        let limit = closed.false_alarms() / tries;
        let (length, count, expected) =
            closed.template.baseline.scales().find_map(|(length, expected, record)| {
                let count = closed.count(length);
                let loud = count >= u64::from(closed.settings.min_count)
                    && count as f64 > MIN_RATIO * expected.mean
                    && count as f64 > OVER_RECORD * record;
                (loud && expected.tail(count) < limit).then_some((length, count, expected))
            })?;
        let (_, whole, _) = closed.template.baseline.scales().last()?;
        let season = closed.template.season.as_ref().map_or(0, |season| season.peak(closed.second));
        if season > 0 && closed.count(window) as f64 <= OVER_RECORD * season as f64 {
            return None;
        }
        self.open =
            Some(Open { since: closed.second, usual: range(whole).1, calm: 0, peak: closed.count(window) });
        let text = closed.template.text();
        let (template, said) = (text.clone(), |n: u64| n.to_string());
        let (title, (low, high)) = if season > 0 {
            let (low, high) = (range(whole).0, range(whole).1.max(season));
            let (count, seconds) = (said(closed.count(window)), window.to_string());
            (
                Phrase::LogBurstAtHour { template, count, seconds, low: said(low), high: said(high) },
                (low, high),
            )
        } else {
            let (low, high) = range(expected);
            let (count, seconds) = (said(count), length.to_string());
            (Phrase::LogBurst { template, count, seconds, low: said(low), high: said(high) }, (low, high))
        };
        Some(Verdict::Onset {
            severity: burst_severity(closed.template.level),
            title,
            detail: json!({
                "template": text, "level": closed.template.level, "sample": closed.template.sample(),
                "count": count, "seconds": length, "expected": { "low": low, "high": high },
                "baseline_seconds": closed.template.baseline.seconds().round(),
            }),
            started: closed.second + 1 - i64::from(length),
        })
    }

    fn end(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        let open = self.open.as_mut()?;
        let count = closed.count(closed.window());
        open.peak = open.peak.max(count);
        open.calm = if count <= open.usual { open.calm + 1 } else { 0 };
        let lasting = closed.second - open.since >= closed.settings.adapt_after.as_secs() as i64;
        if open.calm < closed.window() && !lasting {
            return None;
        }
        let peak = open.peak;
        self.open = None;
        let reason = if lasting { "this rate is usual now" } else { "back to the usual rate" };
        Some(Verdict::End { detail: json!({ "ended": reason, "peak": peak }), adapt: lasting })
    }
}

fn range(expected: NegativeBinomial) -> (u64, u64) {
    (expected.quantile(0.01), expected.quantile(0.99))
}

fn burst_severity(level: LogLevel) -> Severity {
    if level < LogLevel::Error { Severity::Info } else { severity(level) }
}
