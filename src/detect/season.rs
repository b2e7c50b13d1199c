//! What is usual at this hour: what was there on both of the last two days, or in both of the last two weeks.

use serde::{Deserialize, Serialize};

use super::eighths::Eighths;

/// Hour by hour (UTC), what came in the last two weeks; 0.7 KB.
///
/// Days are alike for some templates and weekdays for others. A burst is usual if either says so: it came twice at this
/// hour. For how many lines are to be expected the last two days stand until two weeks have shown that the weeks were right
/// where the days were wrong.
#[derive(Clone, Serialize, Deserialize)]
pub struct Season {
    /// By absolute hour modulo `KEPT`; of the hours before `now`.
    hours: Box<[Hour]>,
    now: i64,
    first: i64,
    /// Of the hour `now`.
    peak: u32,
    lines: u32,
    /// By how many lines an hour differed from what the days and what the weeks let expect, fading within a week.
    off: [f32; 2],
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Hour {
    /// The highest count of a window.
    peak: Eighths,
    lines: Eighths,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24;
const WEEK: i64 = 7 * DAY;
/// The same hour two weeks ago, and those beside it.
const KEPT: i64 = 2 * WEEK + 2;
/// What begins at the full hour may be so many seconds early or late.
const SLACK: i64 = 300;
/// Weeks are believed when they were wrong by this share of what days were at most.
const BETTER: f32 = 0.5;

impl Season {
    pub fn new(second: i64) -> Self {
        let now = second.div_euclid(HOUR);
        Self {
            hours: vec![Hour::default(); KEPT as usize].into(),
            now,
            first: now,
            peak: 0,
            lines: 0,
            off: [0.0; 2],
        }
    }

    /// Notes `count` lines in a second, and `window` lines in the window that ends with it.
    pub fn fold(&mut self, second: i64, count: u32, window: u64) {
        let hour = second.div_euclid(HOUR);
        if hour - self.now > KEPT {
            *self = Self { first: self.first, off: self.off, ..Self::new(second) };
        }
        while self.now < hour {
            self.end_hour();
        }
        self.peak = self.peak.max(window.min(u64::from(u32::MAX)) as u32);
        self.lines = self.lines.saturating_add(count);
    }

    fn end_hour(&mut self) {
        if let (Some(days), Some(weeks)) = (self.expected(self.now, DAY), self.expected(self.now, WEEK)) {
            for (off, expected) in self.off.iter_mut().zip([days, weeks]) {
                *off += ((f64::from(self.lines) - expected).abs() as f32 - *off) / WEEK as f32;
            }
        }
        self.hours[slot(self.now)] = self.so_far();
        (self.peak, self.lines) = (0, 0);
        self.now += 1;
    }

    /// The count of a window that was reached at this hour on each of the last two days or in each of the last two weeks; 0 if
    /// in neither.
    pub fn peak(&self, second: i64) -> u64 {
        let twice = |at: i64| {
            let peak = |ago: i64| self.at(at.div_euclid(HOUR) - ago).peak;
            peak(DAY).min(peak(2 * DAY)).max(peak(WEEK).min(peak(2 * WEEK)))
        };
        let most = [second - SLACK, second, second + SLACK].map(twice).into_iter().max();
        most.unwrap_or_default().get() as u64
    }

    /// Lines to expect in this second, once two days are known: the fewest of this hour and those beside it, for what begins
    /// or ends within an hour comes in a part of it only.
    pub fn rate(&self, second: i64) -> Option<f64> {
        let hour = second.div_euclid(HOUR);
        self.expected(hour, DAY)?;
        let weeks = self.expected(hour, WEEK).is_some() && self.off[1] < BETTER * self.off[0];
        let period = if weeks { WEEK } else { DAY };
        let lines = |hour: i64| self.expected(hour, period).unwrap_or(0.0);
        Some([hour - 1, hour, hour + 1].map(lines).into_iter().fold(f64::INFINITY, f64::min) / HOUR as f64)
    }

    /// Lines in an hour, as on the better of the last two days or weeks, if it is known for so long.
    fn expected(&self, hour: i64, period: i64) -> Option<f64> {
        let lines = |ago: i64| self.at(hour - ago).lines;
        (hour - 2 * period >= self.first).then(|| lines(period).max(lines(2 * period)).get())
    }

    /// What came in an hour; nothing if it is not known any more, or not yet.
    fn at(&self, hour: i64) -> Hour {
        match self.now - hour {
            0 => self.so_far(),
            1..=KEPT => self.hours[slot(hour)],
            _ => Hour::default(),
        }
    }

    fn so_far(&self) -> Hour {
        let near = |n: u32| Eighths::near(f64::from(n));
        Hour { peak: near(self.peak), lines: near(self.lines) }
    }
}

fn slot(hour: i64) -> usize {
    hour.rem_euclid(KEPT) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = DAY * HOUR;

    #[test]
    fn what_comes_every_day_is_usual_at_its_hour_and_once_is_not() {
        let mut season = Season::new(0);
        let at = |day: i64, hour: i64| day * DAY_S + hour * HOUR;
        season.fold(at(0, 3), 50, 400);
        assert_eq!(season.peak(at(1, 3)), 0, "it was there once");
        season.fold(at(1, 3) + 10, 50, 300);
        let near = |peak: u64| (280..=320).contains(&peak);
        assert!(near(season.peak(at(2, 3))));
        assert!(near(season.peak(at(2, 3) - 60)), "a minute early");
        assert_eq!(season.peak(at(2, 5)), 0);
        assert_eq!(season.peak(at(3, 3)), 0, "not yesterday");
    }

    #[test]
    fn what_comes_every_monday_is_usual_on_mondays() {
        let mut season = Season::new(0);
        let at = |day: i64| day * DAY_S + 8 * HOUR + 120;
        for day in 0..22 {
            let monday = day % 7 == 4;
            assert_eq!(season.peak(at(day)) > 0, day == 18, "day {day}");
            season.fold(at(day), 1, if monday { 900 } else { 0 });
        }
        assert!(season.peak(at(25)) > 0);
        assert_eq!(season.peak(at(25) - 600), 0, "the hour before it");
    }

    /// Lines come from the middle of the eighth hour to the eighteenth, on the days that `open` says.
    fn office(days: i64, open: impl Fn(i64) -> bool) -> Season {
        let mut season = Season::new(0);
        for minute in 0..days * 1440 {
            let inside = (8 * 60 + 30..18 * 60).contains(&(minute % 1440));
            let count = if inside && open(minute / 1440) { 60 } else { 0 };
            season.fold(minute * 60, count, u64::from(count));
        }
        season
    }

    #[test]
    fn days_say_what_to_expect_until_weeks_were_right_where_days_were_wrong() {
        let at = |day: i64, hour: i64| day * DAY_S + hour * HOUR;
        let daily = office(21, |_| true);
        assert_eq!(Season::new(0).rate(at(1, 12)), None);
        assert_eq!(daily.rate(at(21, 3)), Some(0.0));
        assert_eq!(daily.rate(at(21, 8)), Some(0.0), "it begins within the hour");
        assert!((0.4..0.6).contains(&daily.rate(at(21, 9)).expect("known")));
        assert!((0.9..1.1).contains(&daily.rate(at(21, 12)).expect("known")));
        let weekdays = |day: i64| day % 7 < 5;
        // Day 12 is a Saturday, day 14 a Monday: days are wrong on both.
        assert!(office(12, weekdays).rate(at(12, 12)).expect("known") > 0.9);
        assert_eq!(office(14, weekdays).rate(at(14, 12)), Some(0.0));
        let known = office(26, weekdays);
        assert_eq!(known.rate(at(26, 12)), Some(0.0), "Saturday");
        assert!(known.rate(at(28, 12)).expect("known") > 0.9, "Monday");
    }

    #[test]
    fn after_a_long_absence_nothing_is_usual() {
        let mut season = office(21, |_| true);
        let later = 400 * DAY_S + 12 * HOUR;
        season.fold(later, 1, 1);
        assert_eq!((season.peak(later), season.rate(later)), (0, Some(0.0)));
    }
}
