//! The first hundred values of a series, for which no tail is known yet: an onset is what leaves everything seen by a margin,
//! for two or three values in a row.

use serde::{Deserialize, Serialize};

/// Values before anything is judged; few enough that a fresh service is watched within seconds.
const LEARN: f32 = 8.0;
/// Deviations from the mean: three values in a row that are far are an onset, or two that are very far.
const FAR: f32 = 4.0;
const VERY_FAR: f32 = 8.0;
/// Share of the range seen that a value must go beyond it.
const MARGIN: f32 = 0.3;
/// Nats of caution, after onsets, for which all of these are twice as large.
const TWICE: f32 = 4.0;
/// A deviation smaller than this share of the level is noise to the people on call, however regular the series.
const FLOOR: f64 = 0.005;
/// The standard deviation of normal noise, in mean absolute deviations: √(π/2).
const NORMAL: f32 = 1.2533;

/// Mean, mean deviation and range of what is usual, and the row of values that may be an onset; all relative to an origin.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Young {
    known: f32,
    mean: f32,
    deviation: f32,
    low: f32,
    high: f32,
    /// Values in a row that were far out on one side; they are not part of what is usual yet.
    side: i8,
    run: [f32; 2],
    in_run: u8,
    all_very_far: bool,
}

impl Young {
    /// Takes the next value; true at an onset. `origin`: what values are relative to. `caution`: nats.
    pub fn push(&mut self, x: f32, origin: f64, caution: f32) -> bool {
        if self.known < LEARN {
            self.learn(x);
            return false;
        }
        let (side, very_far) = self.judge(x, origin, 1.0 + caution / TWICE);
        if side == 0 || side != self.side {
            // What was only a spike is part of the picture.
            self.end_run();
            self.side = side;
        }
        if side == 0 {
            self.learn(x);
            return false;
        }
        self.all_very_far &= very_far;
        if let Some(place) = self.run.get_mut(usize::from(self.in_run)) {
            *place = x;
        }
        self.in_run += 1;
        let onset = self.in_run > 2 || (self.in_run == 2 && self.all_very_far);
        if onset {
            // It may be the new normal; the next values say.
            *self = Self { low: self.low, high: self.high, ..Self::default() };
        }
        onset
    }

    /// The lowest and highest value seen; none while too few were.
    pub fn range(&self) -> Option<(f32, f32)> {
        (self.known >= LEARN).then_some((self.low, self.high))
    }

    /// Samples were lost: what comes next does not continue the row.
    pub fn interrupted(&mut self) {
        self.end_run();
    }

    /// The side that `x` is far out on, and whether very far; `stricter`: how many times as far.
    fn judge(&self, x: f32, origin: f64, stricter: f32) -> (i8, bool) {
        let slack = stricter * MARGIN * (self.high - self.low);
        let floor = (FLOOR * (origin + f64::from(self.mean)).abs()).max(1e-9) as f32;
        // Few values know their own spread badly: it is taken for larger.
        let deviation = (NORMAL * self.deviation).max(floor) * (1.0 + 6.0 / self.known);
        let score = (x - self.mean).abs() / (stricter * deviation);
        let side = match score >= FAR {
            true if x > self.high + slack => 1,
            true if x < self.low - slack => -1,
            _ => 0,
        };
        (side, score >= VERY_FAR)
    }

    fn end_run(&mut self) {
        for i in 0..usize::from(self.in_run).min(self.run.len()) {
            self.learn(self.run[i]);
        }
        (self.side, self.in_run, self.all_very_far) = (0, 0, true);
    }

    fn learn(&mut self, x: f32) {
        if self.known == 0.0 {
            (self.mean, self.low, self.high, self.all_very_far) = (x, x, x, true);
        }
        self.known += 1.0;
        self.mean += (x - self.mean) / self.known;
        self.deviation += ((x - self.mean).abs() - self.deviation) / self.known;
        (self.low, self.high) = (self.low.min(x), self.high.max(x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn onset_at(values: impl IntoIterator<Item = f64>) -> Option<usize> {
        let (mut young, mut origin) = (Young::default(), None);
        values.into_iter().position(|v| {
            let origin = *origin.get_or_insert(v);
            young.push((v - origin) as f32, origin, 0.0)
        })
    }

    #[test]
    fn a_shift_is_an_onset_and_a_spike_is_not() {
        let calm = || (0..20).map(|i| 10.0 + f64::from(i * 7 % 5) / 10.0);
        assert_eq!(onset_at(calm()), None);
        assert_eq!(onset_at(calm().chain([90.0, 90.0])), Some(21));
        assert_eq!(onset_at(calm().chain([90.0]).chain(calm())), None);
        assert_eq!(
            onset_at([1.0; 40].into_iter().chain([0.0, 1.0, 1.0])),
            None,
            "one odd value proves nothing"
        );
        assert_eq!(onset_at([7.0; 20].into_iter().chain([8.0, 8.0])), Some(21));
        assert_eq!(onset_at([1.0, 900.0, 1.0, 900.0]), None, "too few to know");
    }
}
