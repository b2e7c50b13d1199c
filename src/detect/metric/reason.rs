//! Why a value is the onset of an anomaly, in a word for machines and a sentence for people.

use super::{distribution::RECENT, pattern::COURSE};
use crate::model::{Per, Phrase, Values};

/// The onset of an anomaly.
#[derive(Clone, Debug, PartialEq)]
pub struct Onset {
    pub value: f64,
    /// What values were expected to lie between.
    pub low: f64,
    pub high: f64,
    /// 1 upwards, −1 downwards, 0 neither.
    pub direction: i8,
    pub reason: Reason,
}

/// The evidence that weighs most.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// A single value far from those before it, or beyond all seen; two or three of a young series.
    LeftRange,
    /// The mean of the last values against the mean of eight times as many.
    Level { now: f64, before: f64, values: u16 },
    /// Deviations from the mean, larger or smaller than usual by `direction`.
    Swings,
    /// So many equal values in a row, 255 for more; otherwise they change sooner.
    Still { values: u8 },
    /// The usual at this hour of the day.
    Hour { usual: f64 },
    /// A course of values that was never seen.
    Course,
    /// The octiles are hit otherwise than usual.
    Distribution,
}

impl Onset {
    /// A word for `detail.reason`.
    pub fn word(&self) -> &'static str {
        match (&self.reason, self.direction) {
            (Reason::LeftRange, _) => "left its range",
            (Reason::Level { .. }, _) => "level shift",
            (Reason::Swings, 1) => "swings more",
            (Reason::Swings, _) => "swings less",
            (Reason::Still { .. }, _) => "does not change",
            (Reason::Hour { .. }, _) => "unusual at this hour",
            (Reason::Course, _) => "unseen course",
            (Reason::Distribution, _) => "other distribution",
        }
    }

    /// The sentence that people read. `series`: its name with its labels.
    pub fn title(&self, series: String, per: Per) -> Phrase {
        let value = short(self.value);
        if self.value < self.low || self.value > self.high {
            let (low, high) = (short(self.low), short(self.high));
            return match low == high {
                true => Phrase::MetricUsuallyConstant { series, value, usual: low, per },
                false => Phrase::MetricUsuallyBetween { series, value, low, high, per },
            };
        }
        match (&self.reason, self.direction) {
            (Reason::Level { now, before, values }, direction) => {
                let (now, before, of) = (short(*now), short(*before), Values(i64::from(*values)));
                match direction {
                    1 => Phrase::MetricRose { series, now, before, of, per },
                    _ => Phrase::MetricFell { series, now, before, of, per },
                }
            }
            (Reason::Swings, 1) => Phrase::MetricSwingsMore { series },
            (Reason::Swings, _) => Phrase::MetricSwingsLess { series },
            (Reason::Still { values }, _) => {
                Phrase::MetricStill { series, value, of: Values(i64::from(*values)), per }
            }
            (Reason::Hour { usual }, _) => Phrase::MetricOffHour { series, value, usual: short(*usual), per },
            (Reason::Course, _) => Phrase::MetricCourse { series, of: Values(i64::from(COURSE)) },
            (Reason::Distribution | Reason::LeftRange, _) => {
                Phrase::MetricDistribution { series, of: Values(i64::from(RECENT)) }
            }
        }
    }
}

/// Three significant digits, without a tail of zeros.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = value.abs().log10().floor();
    if !(-5.0..15.0).contains(&digits) {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - digits).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts: Vec<_> = [0.0, 1.0, 0.123456, 12.3456, 1234.5, -0.5, 1e-9, 1e20, 100.0]
            .iter()
            .map(|v| short(*v))
            .collect();
        assert_eq!(texts, ["0", "1", "0.123", "12.3", "1234", "-0.5", "1.00e-9", "1.00e20", "100"]);
    }

    #[test]
    fn every_reason_has_its_sentence() {
        let say = |value: f64, direction: i8, reason: Reason| {
            let onset = Onset { value, low: 1.0, high: 3.0, direction, reason };
            onset.title("x".into(), Per::Nothing).to_string()
        };
        assert_eq!(say(9.0, 1, Reason::LeftRange), "`x` is 9, usually 1–3");
        let level = Reason::Level { now: 2.5, before: 1.5, values: 16 };
        assert_eq!(say(2.0, 1, level), "`x` has risen to 2.5 in the mean of its last 16 values, from 1.5");
        assert_eq!(say(2.0, 1, Reason::Swings), "`x` swings more than it usually does");
        assert_eq!(say(2.0, -1, Reason::Swings), "`x` swings less than it usually does");
        let still = Reason::Still { values: 40 };
        assert_eq!(say(2.0, 0, still), "`x` has been 2 for 40 values in a row; it usually changes sooner");
        assert_eq!(say(2.0, 1, Reason::Hour { usual: 1.2 }), "`x` is 2, usually about 1.2 at this hour");
        assert_eq!(say(2.0, 0, Reason::Course), "`x`: its last 48 values take a course that was never seen");
        assert_eq!(
            say(2.0, 0, Reason::Distribution),
            "`x`: its last 48 values are spread otherwise than they usually are"
        );
    }
}
