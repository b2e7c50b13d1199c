//! Counts of one template: second by second for the windows, minute by minute for evidence, and what is usual.

use serde::{Deserialize, Serialize};

use super::stats::NegativeBinomial;

/// Seconds that are kept; a window, the lateness and the disorder of a source fit in.
const SECONDS: i64 = 128;
const MINUTES: i64 = 60;
/// Seconds after which what was usual has faded to a third.
const MEMORY: f64 = 3600.0;

/// A ring of counts by absolute number of second or minute.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ring {
    slots: Box<[u32]>,
    newest: i64,
}

impl Ring {
    pub fn seconds() -> Self {
        Self { slots: vec![0; SECONDS as usize].into(), newest: i64::MIN }
    }
    pub fn minutes() -> Self {
        Self { slots: vec![0; MINUTES as usize].into(), newest: i64::MIN }
    }

    fn len(&self) -> i64 {
        self.slots.len() as i64
    }
    fn slot(&self, at: i64) -> usize {
        at.rem_euclid(self.len()) as usize
    }

    /// Counts `n` more at `at`; what is older than the ring is not kept.
    pub fn add(&mut self, at: i64, n: u32) {
        if at > self.newest {
            let first = self.newest.saturating_add(1).max(at - self.len() + 1);
            for fresh in first..=at {
                let slot = self.slot(fresh);
                self.slots[slot] = 0;
            }
            self.newest = at;
        }
        if at > self.newest - self.len() {
            let slot = self.slot(at);
            self.slots[slot] = self.slots[slot].saturating_add(n);
        }
    }

    pub fn at(&self, at: i64) -> u32 {
        let kept = at <= self.newest && self.newest.saturating_sub(at) < self.len();
        if kept { self.slots[self.slot(at)] } else { 0 }
    }

    /// The sum over `from..=to`.
    pub fn sum(&self, from: i64, to: i64) -> u64 {
        let to = to.min(self.newest);
        let from = from.max(to.saturating_sub(self.len()));
        (from..=to).map(|at| u64::from(self.at(at))).sum()
    }

    /// This share of all counts, rounded.
    pub fn part(&self, share: f64) -> Self {
        let slots = self.slots.iter().map(|n| (f64::from(*n) * share).round() as u32).collect();
        Self { slots, newest: self.newest }
    }

    /// Takes over what another ring counted.
    pub fn merge(&mut self, other: &Ring) {
        if other.newest == i64::MIN {
            return;
        }
        for at in other.newest - other.len() + 1..=other.newest {
            let n = other.at(at);
            if n > 0 {
                self.add(at, n);
            }
        }
    }
}

/// What is usual for one template: its rate, and how unevenly it comes at three time scales.
#[derive(Clone, Serialize, Deserialize)]
pub struct Baseline {
    scales: [Scale; 3],
    lines: f64,
    seconds: f64,
}

/// Counts of consecutive windows of one length.
#[derive(Clone, Serialize, Deserialize)]
struct Scale {
    length: u32,
    running: u32,
    left: u32,
    windows: f64,
    mean: f64,
    variance: f64,
    /// The highest count of a window, fading.
    record: f64,
}

impl Baseline {
    /// For windows of `window` seconds, a third of it, and one second.
    pub fn new(window: u32) -> Self {
        let scale = |length: u32| Scale {
            length,
            running: 0,
            left: length,
            windows: 0.0,
            mean: 0.0,
            variance: 0.0,
            record: 0.0,
        };
        Self {
            scales: [scale(1), scale((window / 3).max(1)), scale(window.max(1))],
            lines: 0.0,
            seconds: 0.0,
        }
    }

    /// Adds seconds in which nothing came because the template was not yet known, though its source was.
    pub fn silent(&mut self, seconds: f64) {
        self.seconds += seconds.clamp(0.0, MEMORY);
    }

    /// Adds one second.
    pub fn fold(&mut self, count: u32) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.lines = self.lines * keep + f64::from(count);
        self.seconds = self.seconds * keep + 1.0;
        self.scales.iter_mut().for_each(|scale| scale.fold(count));
    }

    /// Seconds that it rests on.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Lines to expect in so many seconds.
    pub fn usual(&self, seconds: f64) -> f64 {
        if self.seconds > 0.0 { self.lines / self.seconds * seconds } else { 0.0 }
    }

    /// For each scale: its length in seconds, the distribution of its counts, and the highest that was seen.
    pub fn scales(&self) -> impl Iterator<Item = (u32, NegativeBinomial, f64)> {
        self.scales.iter().map(|scale| (scale.length, self.expected(scale), scale.record))
    }

    /// The rate has a gamma posterior from a prior of half a line, so a count is negative binomial with r = lines + ½; where
    /// counts of past windows vary more than that explains, r is what explains them.
    fn expected(&self, scale: &Scale) -> NegativeBinomial {
        let shape = self.lines + 0.5;
        let mean = shape / self.seconds.max(1.0) * f64::from(scale.length);
        let mut r = shape;
        if self.lines >= 0.5 && scale.mean > 0.0 {
            // Three windows' worth of belief that the variance is twice the mean.
            let weight = scale.windows.min(360.0);
            let fano = (3.0 * 2.0 + weight * scale.variance / scale.mean) / (3.0 + weight);
            r = r.min(mean / (fano - 1.0).max(1e-9));
        }
        NegativeBinomial { mean, r }
    }

    /// Takes over the lines of a template that turned out to be the same, as if they came independently.
    pub fn merge(&mut self, other: &Baseline) {
        self.lines += other.lines;
        self.seconds = self.seconds.max(other.seconds);
        self.scales.iter_mut().zip(&other.scales).for_each(|(ours, theirs)| ours.merge(theirs));
    }

    /// What is usual for this share of the lines, if each of them has it independently.
    pub fn part(&self, share: f64) -> Self {
        Self {
            scales: std::array::from_fn(|i| self.scales[i].part(share)),
            lines: self.lines * share,
            seconds: self.seconds,
        }
    }

    /// Forgets the past: what came over the last windows is usual from now on.
    pub fn restart(&mut self, lines: u64, seconds: u32) {
        let window = self.scales[2].length;
        *self = Self::new(window);
        self.lines = lines as f64;
        self.seconds = f64::from(seconds);
    }
}

impl Scale {
    fn merge(&mut self, other: &Self) {
        self.windows = self.windows.max(other.windows);
        self.mean += other.mean;
        self.variance += other.variance;
        self.record += other.record;
    }

    /// Thinning a count by chance: variance `share² · variance + share (1 − share) · mean`.
    fn part(&self, share: f64) -> Self {
        Self {
            length: self.length,
            running: (f64::from(self.running) * share) as u32,
            left: self.left,
            windows: self.windows,
            mean: self.mean * share,
            variance: self.variance * share * share + self.mean * share * (1.0 - share),
            record: (self.record * share).ceil(),
        }
    }

    fn fold(&mut self, count: u32) {
        self.running = self.running.saturating_add(count);
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        let value = f64::from(self.running);
        self.windows = (self.windows + 1.0).min(MEMORY / f64::from(self.length));
        let (step, delta) = (1.0 / self.windows, value - self.mean);
        self.mean += step * delta;
        self.variance += step * (delta * (value - self.mean) - self.variance);
        self.record = value.max(self.record * (1.0 - f64::from(self.length) / (4.0 * MEMORY)));
        (self.running, self.left) = (0, self.length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_steady_rate_is_learned_at_every_scale() {
        let mut baseline = Baseline::new(10);
        (0..600).for_each(|i| baseline.fold(i % 3));
        let means: Vec<_> = baseline.scales().map(|(_, expected, _)| expected.mean.round()).collect();
        assert_eq!(means, [1.0, 3.0, 10.0]);
        assert_eq!(baseline.usual(60.0).round(), 60.0);
        let records: Vec<_> = baseline.scales().map(|(_, _, record)| record.round()).collect();
        assert_eq!(records, [2.0, 3.0, 11.0]);
    }

    proptest! {
        #[test]
        fn ring_agrees_with_a_plain_list(events in prop::collection::vec((0_i64..400, 1_u32..5), 0..200)) {
            let (mut ring, mut plain, mut newest) = (Ring::seconds(), vec![0_u64; 400], i64::MIN);
            for (at, n) in events {
                newest = newest.max(at);
                ring.add(at, n);
                if at > newest - SECONDS {
                    plain[at as usize] += u64::from(n);
                }
            }
            for at in 0..400 {
                let expected = if newest.saturating_sub(at) < SECONDS && at <= newest { plain[at as usize] } else { 0 };
                prop_assert_eq!(u64::from(ring.at(at)), expected);
            }
        }
    }
}
