//! Judges one metric series online: hands on the onset of each anomaly with its score, the expected range and the reason, and
//! its end.
//!
//! Fourteen streams of evidence of six kinds, each computed from the values so far, are compared with what they themselves
//! reached in past blocks of values; what goes beyond that, in nats, adds up over the kinds. So one threshold is one rate of
//! false alarms, whatever the range, the noise or the name of a series. `docs/detection.md` explains it with a figure.

mod detector;
mod distribution;
mod half;
mod maxima;
mod pattern;
mod reason;
mod tail;
mod week;
mod young;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use detector::Detector;
pub(super) use half::Half;
pub use reason::{Onset, Reason};

use crate::config::Detect;

/// Nats for each e-fold that a budget is smaller than one false alarm a day for each series: tails are heavier than
/// exponential, so twice what they should be.
const STRICTER: f64 = 2.0;
/// Nats that an onset adds to the threshold; half of them are gone after a day.
const CAUTION: f32 = 2.0;
const DAY_S: f64 = 86_400.0;
/// Silence of fewer seconds, or of fewer usual intervals, is not yet a gap.
const MIN_GAP_S: f64 = 15.0;
const MISSED: f64 = 5.0;
/// Values back in range that end an anomaly, and the shares of the range's width and of its level by which they may miss it.
const CALM: u8 = 5;
/// Values that a change must last, beside its time, before what is usual is learned anew.
const LASTING: u32 = 128;
const SLACK: f64 = 0.3;
const FLOOR: f64 = 0.02;
const NEVER: i64 = i64::MIN;

/// What a series may do to the people on call.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Microseconds that a change must last to be the new normal.
    pub adapt_us: i64,
    /// False alarms a day that this series may raise.
    pub false_alarms_per_day: f64,
}

impl Allowed {
    /// The share of one of `series` series of a service.
    pub fn new(settings: &Detect, series: usize) -> Self {
        Self {
            adapt_us: i64::try_from(settings.adapt_after.as_micros()).unwrap_or(i64::MAX),
            false_alarms_per_day: settings.false_alarms_per_day / series.max(1) as f64,
        }
    }
}

/// What one value means.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// 0 to 1; 0.5 is the threshold.
    pub score: f32,
    pub change: Option<Change>,
}

/// What a detector of values has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Onset(Onset),
    End { detail: Value },
}

/// State of one series.
#[derive(Clone, Serialize, Deserialize)]
pub struct Metric {
    /// Microseconds since the epoch of the last value, `NEVER` before the first.
    at_us: i64,
    /// The usual seconds between values; 0 before the second.
    interval_s: f32,
    caution: f32,
    detector: Detector,
    open: Option<Box<Open>>,
}

/// An anomaly that goes on.
#[derive(Clone, Serialize, Deserialize)]
struct Open {
    since_us: i64,
    low: f64,
    high: f64,
    /// Since the onset, and the last of them that were calm.
    values: u32,
    calm: u8,
    /// The onset itself was within the range: it is evidence that must calm down.
    within: bool,
    extreme: f64,
}

impl Default for Metric {
    fn default() -> Self {
        Self { at_us: NEVER, interval_s: 0.0, caution: 0.0, detector: Detector::default(), open: None }
    }
}

impl Metric {
    /// Bytes that it holds on the heap while nothing is wrong.
    pub const MOST_ELSEWHERE: usize = size_of::<young::Young>();

    /// Takes the next value. `at_us`: microseconds since the epoch. A missing value (NaN, infinite) changes nothing.
    pub fn push(&mut self, at_us: i64, value: f64, allowed: &Allowed) -> Verdict {
        if !value.is_finite() {
            return Verdict { score: 0.0, change: None };
        }
        self.pass_time(at_us);
        let strict = self.strict(allowed);
        let at_s = at_us.div_euclid(1_000_000);
        let judgement = self.detector.push(at_s, value, self.interval_s, strict, self.caution);
        let enough = judgement.evidence >= judgement.threshold;
        let change = match (&self.open, judgement.onset) {
            (Some(_), _) => self.during(at_us, value, enough, allowed),
            (None, Some(onset)) => Some(self.begin(at_us, onset)),
            (None, None) => None,
        };
        let score = 1.0 - (-judgement.evidence / judgement.threshold).exp2();
        let onset = matches!(change, Some(Change::Onset(_)));
        Verdict { score: if onset { score.max(0.5) } else { score }, change }
    }

    /// The range that values are usually in; none while too few were seen.
    pub fn range(&self) -> Option<(f64, f64)> {
        self.open.as_ref().map(|open| (open.low, open.high)).or_else(|| self.detector.range())
    }

    /// Seconds of silence that are a gap.
    pub fn gap_s(&self) -> f64 {
        (MISSED * f64::from(self.interval_s)).max(MIN_GAP_S)
    }

    /// Forgets suspicions: the series was away, or its counter began anew.
    pub fn interrupted(&mut self) {
        self.detector.interrupted();
    }

    /// Ends what is open because nothing more will be heard.
    pub fn abandon(&mut self) -> Option<Change> {
        self.open.take().map(|_| {
            let ended = "the series stopped; nobody knows whether it recovered";
            Change::End { detail: json!({ "ended": ended }) }
        })
    }

    fn pass_time(&mut self, at_us: i64) {
        let last_us = std::mem::replace(&mut self.at_us, at_us);
        if last_us == NEVER {
            return;
        }
        let step_s = at_us.saturating_sub(last_us).max(0) as f64 / 1e6;
        if step_s > self.gap_s() {
            self.interrupted();
        }
        let step = step_s as f32;
        self.interval_s = match self.interval_s {
            0.0 => step,
            usual => usual + (step.min(4.0 * usual) - usual) / 8.0,
        };
        self.caution *= (-step_s / DAY_S).exp2() as f32;
    }

    /// The nats beyond the threshold that an onset needs: more for a service of many series or of a small budget, and after
    /// onsets, so that a series whose tails are heavier than we think is not told of all day.
    fn strict(&self, allowed: &Allowed) -> f32 {
        let share = STRICTER * -allowed.false_alarms_per_day.ln();
        share.max(0.0) as f32 + self.caution
    }

    fn begin(&mut self, at_us: i64, onset: Onset) -> Change {
        self.caution += CAUTION;
        let Onset { value, low, high, .. } = onset;
        let within = (low..=high).contains(&value);
        let open = Open { since_us: at_us, low, high, values: 0, calm: 0, within, extreme: value };
        self.open = Some(Box::new(open));
        Change::Onset(onset)
    }

    fn during(&mut self, at_us: i64, value: f64, enough: bool, allowed: &Allowed) -> Option<Change> {
        let open = self.open.as_mut()?;
        let middle = f64::midpoint(open.low, open.high);
        if (value - middle).abs() > (open.extreme - middle).abs() {
            open.extreme = value;
        }
        let slack = (SLACK * (open.high - open.low)).max(FLOOR * middle.abs());
        let inside = value >= open.low - slack && value <= open.high + slack;
        open.values = open.values.saturating_add(1);
        open.calm = if inside && !(open.within && enough) { open.calm + 1 } else { 0 };
        let ended = match open.calm >= CALM {
            true => "back in its range",
            false if at_us.saturating_sub(open.since_us) >= allowed.adapt_us => {
                if open.values >= LASTING {
                    self.detector.adapt();
                }
                "this level is usual now"
            }
            false => return None,
        };
        let extreme = open.extreme;
        self.open = None;
        Some(Change::End { detail: json!({ "ended": ended, "extreme": extreme, "last": value }) })
    }
}

#[cfg(test)]
mod tests;
