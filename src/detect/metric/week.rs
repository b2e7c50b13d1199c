//! What is usual at this time of the day: as on the last days, or as a week ago where weeks were right and days wrong.

use serde::{Deserialize, Serialize};

/// Slots are two hours long.
const SLOT_S: i64 = 7200;
const DAY: i32 = 12;
const DAYS: i32 = 7;
const WEEK: i32 = DAYS * DAY;
/// The largest part; what is not known has a part of its own.
const MOST: f32 = 127.0;
const UNKNOWN: i8 = i8::MIN;
/// The middle is a multiple of so many units, so that it seldom moves.
const GRID: f32 = 64.0;
/// Rounding errors of `f32`, relative to the values.
const GRAIN: f32 = 1e-6;
/// Weeks are believed when they were wrong by this share of what days were at most, and days again when it is the other way round.
const BETTER: f32 = 0.5;

/// The means of the series over each two hours (UTC) of the last week, to a 190th of their range.
///
/// The usual is the mean of what the same time of day had on those seven days, interpolated between the middles of slots. Two
/// weeks may show that what the same time had a week ago was right where that was wrong, at weekends and after them: it is
/// the usual then, until days have been as much better: a holiday is not enough.
#[derive(Clone, Serialize, Deserialize)]
pub struct Week {
    /// By absolute slot modulo a week: parts, of so many `unit`s around the `middle`. In three, for serde.
    means: [[i8; WEEK as usize / 3]; 3],
    middle: f32,
    unit: f32,
    /// The slot that goes on, and its mean so far, of so many values.
    slot: i32,
    mean: f32,
    values: u16,
    /// Slots since the first, up to two weeks.
    age: u8,
    /// What was a week ago is the usual.
    by_week: bool,
    /// By how much slots differed from what days and what weeks let expect, fading within a week.
    off: [f32; 2],
}

/// A time between the middles of two slots: the first of them, and the share of the way to the other.
struct Point {
    slot: i32,
    share: f32,
}

impl Default for Week {
    fn default() -> Self {
        Self {
            means: [[UNKNOWN; WEEK as usize / 3]; 3],
            middle: 0.0,
            unit: 0.0,
            slot: 0,
            mean: 0.0,
            values: 0,
            age: 0,
            by_week: false,
            off: [0.0; 2],
        }
    }
}

impl Week {
    /// What is usual at this time; while nothing is known of it, what the last two hours had. `at_s`: seconds since the epoch.
    pub fn usual(&self, at_s: i64) -> Option<f32> {
        let from_middle = at_s.saturating_sub(SLOT_S / 2);
        let share = from_middle.rem_euclid(SLOT_S) as f32 / SLOT_S as f32;
        let point = Point { slot: slot(from_middle), share };
        let week_ago = self.by_week.then(|| self.before(&point, WEEK)).flatten();
        let known = week_ago.or_else(|| self.days_before(&point));
        known.or_else(|| (self.values > 0).then_some(self.mean))
    }

    fn days_before(&self, point: &Point) -> Option<f32> {
        let known = (1..=DAYS).filter_map(|day| self.before(point, day * DAY));
        let (sum, days) = known.fold((0.0, 0.0), |(sum, days), x| (sum + x, days + 1.0));
        (days > 0.0).then(|| sum / days)
    }

    /// What was there so many slots before.
    fn before(&self, point: &Point, ago: i32) -> Option<f32> {
        let slot = point.slot - ago;
        match (self.mean_of(slot), self.mean_of(slot + 1)) {
            (Some(a), Some(b)) => Some(a + point.share * (b - a)),
            (a, b) => a.or(b),
        }
    }

    /// Of a slot that has ended within the last week.
    fn mean_of(&self, slot: i32) -> Option<f32> {
        let part = self.means.as_flattened()[place(slot)];
        let kept = (1..=WEEK).contains(&(self.slot - slot)) && part != UNKNOWN;
        kept.then(|| self.middle + f32::from(part) * self.unit)
    }

    /// Learns. True if from now on the usual is another: what differs from it is known no longer.
    pub fn push(&mut self, at_s: i64, x: f32) -> bool {
        let (slot, by_week) = (slot(at_s), self.by_week);
        if self.values == 0 {
            self.slot = slot;
        } else if slot > self.slot {
            self.end_slot(slot);
        } else if slot < self.slot - DAY {
            // The clock was wrong before it was set back: the time that it told may never come.
            *self = Self { slot, ..Self::default() };
        }
        self.values = self.values.saturating_add(1);
        self.mean += (x - self.mean) / f32::from(self.values);
        self.by_week != by_week
    }

    fn end_slot(&mut self, next: i32) {
        let ended = Point { slot: self.slot, share: 0.0 };
        if let (Some(days), Some(week)) = (self.days_before(&ended), self.mean_of(self.slot - WEEK)) {
            for (off, usual) in self.off.iter_mut().zip([days, week]) {
                *off += ((self.mean - usual).abs() - *off) / WEEK as f32;
            }
        }
        self.keep();
        for missed in (self.slot + 1..next).take(WEEK as usize) {
            self.means.as_flattened_mut()[place(missed)] = UNKNOWN;
        }
        self.age = (next - self.slot).saturating_add(i32::from(self.age)).min(2 * WEEK) as u8;
        let [days, weeks] = self.off;
        self.by_week = match self.by_week {
            true => days >= BETTER * weeks,
            false => i32::from(self.age) >= 2 * WEEK && weeks < BETTER * days,
        };
        (self.slot, self.mean, self.values) = (next, 0.0, 0);
    }

    /// Keeps the mean of the slot, in the least unit in which all means have a part.
    fn keep(&mut self) {
        let (mean, place) = (self.mean, place(self.slot));
        self.means.as_flattened_mut()[place] = UNKNOWN;
        let (middle, unit) = (self.middle, self.unit);
        let number = |part: i8| middle + f32::from(part) * unit;
        let known = self.means.as_flattened().iter().filter(|part| **part != UNKNOWN);
        let (low, high) = known.fold((mean, mean), |(low, high), part| {
            let x = number(*part);
            (low.min(x), high.max(x))
        });
        // Around a middle on the grid there are fewer parts to both sides.
        let width = (high - low) / (2.0 * MOST - GRID);
        let least = width.max(GRAIN * low.abs().max(high.abs())).max(f32::MIN_POSITIVE);
        self.unit = least.log2().ceil().exp2();
        self.middle = (f32::midpoint(low, high) / (GRID * self.unit)).round() * GRID * self.unit;
        let (new_middle, new_unit) = (self.middle, self.unit);
        let part = |x: f32| ((x - new_middle) / new_unit).round().clamp(-MOST, MOST) as i8;
        if (middle, unit) != (new_middle, new_unit) {
            let known = self.means.as_flattened_mut().iter_mut().filter(|part| **part != UNKNOWN);
            known.for_each(|kept| *kept = part(number(*kept)));
        }
        self.means.as_flattened_mut()[place] = part(mean);
    }
}

fn slot(at_s: i64) -> i32 {
    at_s.div_euclid(SLOT_S).clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2)) as i32
}

fn place(slot: i32) -> usize {
    slot.rem_euclid(WEEK) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_S: i64 = 86_400;

    /// Values each ten minutes for so many days, by day and hour.
    fn made(days: i64, value: impl Fn(i64, f64) -> f64) -> Week {
        let mut week = Week::default();
        for k in 0..days * 144 {
            let at = k * 600;
            week.push(at, value(at / DAY_S, (at % DAY_S) as f64 / 3600.0) as f32);
        }
        week
    }

    fn usual(week: &Week, day: i64, hour: i64) -> f32 {
        week.usual(day * DAY_S + hour * 3600).expect("known")
    }

    #[test]
    fn the_usual_is_the_mean_of_the_days_before() {
        assert_eq!(Week::default().usual(0), None);
        let wave = |_: i64, hour: f64| 1000.0 + 10.0 * (hour / 24.0 * std::f64::consts::TAU).sin();
        for days in [2, 3, 30] {
            let week = made(days, wave);
            // Before the first slot and after the last there is only one to go by.
            for hour in 2..21 {
                let exact = wave(0, hour as f64) as f32;
                assert!((usual(&week, days, hour) - exact).abs() < 0.7, "{days} {hour}");
            }
        }
        // What was on one of seven days only counts for a seventh.
        let once = made(7, |day, _| if day == 3 { 7.0 } else { 0.0 });
        assert!((usual(&once, 7, 12) - 1.0).abs() < 0.1);
    }

    #[test]
    fn weeks_are_believed_when_they_were_right_where_days_were_wrong() {
        let office = |day: i64, hour: f64| {
            let open = day % 7 < 5 && (8.0..18.0).contains(&hour);
            100.0 + if open { 50.0 } else { 0.0 }
        };
        let young = made(13, office);
        assert!((110.0..140.0).contains(&usual(&young, 13, 12)), "a Sunday of the second week");
        let mut known = made(26, office);
        assert!(usual(&known, 26, 12) < 101.0, "a Saturday");
        assert!(usual(&known, 28, 12) > 149.0, "a Monday");
        let mut holiday = (26..60).flat_map(|day| (0..144).map(move |k| (day, k)));
        let told = holiday.any(|(day, k)| {
            let x = office(if day == 30 { 6 } else { day }, f64::from(k) / 6.0);
            known.push(day * DAY_S + i64::from(k) * 600, x as f32)
        });
        assert!(known.by_week && !told, "a day off is not another usual");
        let alike = made(26, |_, hour| office(0, hour) + (hour * 77.0).sin());
        assert!(!alike.by_week, "{:?}", alike.off);
    }

    #[test]
    fn a_wrong_time_does_not_end_all_seasons() {
        let wave = |hour: f64| (hour / 24.0 * std::f64::consts::TAU).sin() as f32;
        let mut week = made(3, |_, hour| f64::from(wave(hour)));
        week.push(40_000 * DAY_S, 0.0);
        for k in 3 * 144..6 * 144 {
            week.push(k * 600, wave((k % 144) as f64 / 6.0));
        }
        assert!((usual(&week, 6, 6) - 1.0).abs() < 0.1, "it is learned anew");
        let before = week.clone();
        week.push(6 * DAY_S - 7200, 0.0);
        assert_eq!(week.usual(6 * DAY_S), before.usual(6 * DAY_S), "an hour twice changes nothing");
    }

    #[test]
    fn what_is_missing_is_not_known() {
        let mut week = made(7, |_, _| 5.0);
        week.push(30 * DAY_S, 5.0);
        assert_eq!(week.days_before(&Point { slot: slot(30 * DAY_S), share: 0.5 }), None);
        week.push(40 * DAY_S, 5.0);
        week.push(39 * DAY_S, 5.0);
        assert_eq!(week.usual(i64::MAX), Some(5.0), "the last that is known");
        week.push(i64::MAX, 5.0);
        week.push(i64::MIN, 5.0);
    }

    proptest! {
        #[test]
        fn means_are_kept_to_a_190th_of_their_range(
            means in prop::collection::vec(-1.0_f32..1.0, 1..200), scale in -60_i32..60, level in -100.0_f32..100.0,
        ) {
            let scale = (scale as f32).exp2();
            let means: Vec<f32> = means.iter().map(|x| (x + level) * scale).collect();
            let mut week = Week::default();
            for (slot, x) in means.iter().enumerate() {
                week.push(slot as i64 * SLOT_S, *x);
            }
            week.push(means.len() as i64 * SLOT_S, 0.0);
            let kept = &means[means.len().saturating_sub(WEEK as usize)..];
            // What was kept when the range was larger is known as it was then.
            let (low, high) = means.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            for (x, slot) in kept.iter().rev().zip((0..means.len() as i32).rev()) {
                let told = week.mean_of(slot).expect("it is known");
                prop_assert!((told - x).abs() <= 3.0 * (high - low) / 190.0 + 3e-6 * x.abs(), "{told} was {x}");
            }
        }
    }
}
