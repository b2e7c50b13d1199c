//! The last samples of a series, for diagnoses and rankings; three bytes each.

use serde::{Deserialize, Serialize};

use super::{eighths::Eighths, metric::Half};

/// Samples that are kept.
pub const KEPT: usize = 64;
/// Beyond this, values would overflow.
const LARGEST: f64 = 1e38;
/// Milliseconds beyond which a step is not told from a longer one: 49 days.
const LONGEST: i64 = 1 << 32;
/// Parts of the usual step in which steps are kept; that they are a power of two makes the usual step exact.
const PARTS: f64 = 64.0;
/// A step so many times shorter than what was taken for usual is the usual one.
const SHORTER: i64 = 8;

/// A ring of values and of the steps of time before them.
///
/// A value is kept to a 250th of itself, zeros and small whole numbers are exact and equals stay equal: what a ranking compares is
/// far coarser. A step is kept in eighths of octaves of a usual one, and what that leaves out is part of
/// the next: the times of a regular series are exact, others early by about an eighth of the step before them, a little more
/// where the pace changed, however many steps lie between. The last is exact.
#[derive(Default, Serialize, Deserialize)]
pub struct RecentSamples {
    /// Milliseconds since the epoch of the last one, and by how much it is later than the steps say.
    last_ms: i64,
    off_ms: i32,
    usual_ms: u32,
    /// In two halves, for serde knows arrays of up to 32.
    values: [[Half; KEPT / 2]; 2],
    steps: [[Eighths; KEPT / 2]; 2],
    /// How many are kept, and the place of the next.
    count: u8,
    next: u8,
}

impl RecentSamples {
    /// `value` is finite. A time that is not later than the last counts as no time after it.
    pub fn push(&mut self, at_ms: i64, value: f64) {
        let place = usize::from(self.next);
        if self.count == 0 {
            (self.off_ms, self.usual_ms) = (0, 0);
        } else {
            let step = at_ms.saturating_sub(self.last_ms).clamp(0, LONGEST - 1);
            let usual = i64::from(self.usual_ms);
            let another = place == 0 && (step < usual / 2 || (step > usual * 2 && self.none_below(step / 2)));
            if usual == 0 || another || (1..usual / SHORTER).contains(&step) {
                self.count_in(step.max(1) as u32);
            }
            self.steps.as_flattened_mut()[place] = self.take_step(step);
        }
        self.values.as_flattened_mut()[place] = Half::of(value.clamp(-LARGEST, LARGEST) as f32);
        self.last_ms = at_ms;
        self.next = (self.next + 1) % KEPT as u8;
        self.count = (self.count + 1).min(KEPT as u8);
    }

    fn none_below(&self, step_ms: i64) -> bool {
        self.steps.as_flattened().iter().all(|kept| self.step_ms(*kept) >= step_ms)
    }

    fn take_step(&mut self, step_ms: i64) -> Eighths {
        let due = step_ms + i64::from(self.off_ms);
        let kept = Eighths::under(due as f64 * PARTS / f64::from(self.usual_ms));
        self.off_ms = (due - self.step_ms(kept)) as i32;
        kept
    }

    fn step_ms(&self, kept: Eighths) -> i64 {
        (kept.get() * f64::from(self.usual_ms) / PARTS) as i64
    }

    /// Steps are parts of another usual one from now on.
    fn count_in(&mut self, usual_ms: u32) {
        let steps: Vec<i64> = self.steps.as_flattened().iter().map(|kept| self.step_ms(*kept)).collect();
        let last_off = std::mem::take(&mut self.off_ms);
        self.usual_ms = usual_ms;
        for back in (0..usize::from(self.count) - 1).rev() {
            let place = self.place(back);
            self.steps.as_flattened_mut()[place] = self.take_step(steps[place]);
        }
        self.off_ms = self.off_ms.saturating_add(last_off);
    }

    /// Where the sample is that was so many before the last.
    fn place(&self, back: usize) -> usize {
        (usize::from(self.next) + 2 * KEPT - 1 - back) % KEPT
    }

    /// Oldest first, with the time in milliseconds since the epoch.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        let count = usize::from(self.count);
        let mut kept = [(0, 0.0); KEPT];
        let (mut at, mut off) = (self.last_ms, i64::from(self.off_ms));
        for (back, sample) in kept[..count].iter_mut().rev().enumerate() {
            let place = self.place(back);
            *sample = (at, f64::from(self.values.as_flattened()[place].get()));
            at = at.saturating_sub(self.step_ms(self.steps.as_flattened()[place]) + std::mem::take(&mut off));
        }
        kept.into_iter().take(count)
    }

    pub fn clear(&mut self) {
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_795_255_200_000;

    #[test]
    fn the_last_samples_come_back_in_order() {
        let mut recent = RecentSamples::default();
        let at = |i: i64| START + i * 30_000_017;
        (0..100).for_each(|i| recent.push(at(i), i as f64));
        let kept: Vec<_> = recent.iter().collect();
        assert_eq!(kept, (36..100).map(|i| (at(i), i as f64)).collect::<Vec<_>>());
        recent.clear();
        recent.push(at(200), 0.5);
        assert_eq!(recent.iter().collect::<Vec<_>>(), [(at(200), 0.5)]);
    }

    #[test]
    fn a_long_pause_does_not_blur_what_follows() {
        let mut recent = RecentSamples::default();
        recent.push(START, 0.0);
        let at = |i: i64| START + 40_000_000 + i * 1000;
        (0..20).for_each(|i| recent.push(at(i), 7.0));
        let times: Vec<_> = recent.iter().map(|(at, _)| at).collect();
        assert!((times[0] - START).abs() < 1000 && times.is_sorted(), "{times:?}");
        assert!((6..21).all(|i| (0..143).contains(&(at(i as i64 - 1) - times[i]))), "{times:?}");
    }

    #[test]
    fn an_idle_series_was_exactly_idle() {
        let mut recent = RecentSamples::default();
        let value = |i: i64| if i % 9 == 3 { 0.07 } else { 0.0 };
        (0..150).for_each(|i| recent.push(START + i, value(i)));
        for ((_, kept), i) in recent.iter().zip(86..) {
            assert!(if value(i) == 0.0 { kept == 0.0 } else { (kept - 0.07).abs() < 0.0003 }, "{kept}");
        }
    }

    #[test]
    fn what_no_series_should_hold_does_no_harm() {
        let mut recent = RecentSamples::default();
        let values = [f64::MAX, f64::MIN, 0.0, 1e300, f64::MIN_POSITIVE];
        let times = [i64::MIN, 0, -5, i64::MAX, i64::MAX, 7];
        for i in 0..200 {
            recent.push(times[i % times.len()], values[i % values.len()]);
            assert!(recent.iter().all(|(_, value)| value.is_finite()));
        }
    }

    proptest! {
        #[test]
        fn times_and_values_are_near_and_in_order(
            steps in prop::collection::vec(prop_oneof![Just(15_000_i64), 1..100_000_i64, 1..200_000_000_i64], 1..200),
            level in -1e12_f64..1e12,
            noise in prop::collection::vec(-1.0_f64..1.0, 200),
        ) {
            let (mut recent, mut at, mut before, mut off, mut all) =
                (RecentSamples::default(), START, 0, 0, Vec::new());
            for (step, noise) in steps.iter().zip(noise) {
                at += step;
                // What a step leaves out is carried, and more when steps come to be counted in shorter ones.
                off = (step + off) / 2 + 2;
                all.push((at, level + noise * 100.0, off));
                recent.push(at, level + noise * 100.0);
                before += 1;
            }
            let kept: Vec<_> = recent.iter().collect();
            prop_assert_eq!(kept.len(), before.min(KEPT));
            prop_assert!(kept.is_sorted_by_key(|(at, _)| *at));
            prop_assert_eq!(kept.last().expect("one").0, at);
            for ((time, value), (true_time, true_value, off)) in kept.iter().zip(&all[before - kept.len()..]) {
                prop_assert!((0..=*off).contains(&(true_time - time)), "{time} is not {true_time}, {off}");
                prop_assert!((value - true_value).abs() <= true_value.abs() / 250.0, "{value} is not {true_value}");
            }
        }
    }
}
