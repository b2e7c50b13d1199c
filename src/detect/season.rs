//! What is usual at this hour of the day: what was there on both of the last two days.

use serde::{Deserialize, Serialize};

/// By hour of the day in UTC. An hour's figures are of its last three days, today's first.
#[derive(Clone, Serialize, Deserialize)]
pub struct Season {
    hours: Box<[Hour]>,
    first_day: i64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Hour {
    day: i64,
    /// The highest count of a window.
    peaks: [u32; 3],
    lines: [u32; 3],
}

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
/// What begins at the full hour may be so many seconds early or late.
const SLACK: i64 = 300;

impl Season {
    pub fn new(second: i64) -> Self {
        Self { hours: vec![Hour::default(); 24].into(), first_day: second.div_euclid(DAY) }
    }

    /// Notes `count` lines in a second, and `window` lines in the window that ends with it.
    pub fn fold(&mut self, second: i64, count: u32, window: u64) {
        let day = second.div_euclid(DAY);
        let hour = &mut self.hours[slot(second)];
        let ago = day - hour.day;
        if ago > 0 {
            (hour.peaks, hour.lines) = (shifted(hour.peaks, ago), shifted(hour.lines, ago));
            hour.day = day;
        }
        hour.peaks[0] = hour.peaks[0].max(window.min(u64::from(u32::MAX)) as u32);
        hour.lines[0] = hour.lines[0].saturating_add(count);
    }

    /// The count of a window that was reached at this hour on each of the last two days; 0 if on neither.
    pub fn peak(&self, second: i64) -> u64 {
        let both = |at: i64| {
            let [_, yesterday, before] = self.at(at, second, |hour| hour.peaks);
            u64::from(yesterday.min(before))
        };
        [second - SLACK, second, second + SLACK].into_iter().map(both).max().unwrap_or(0)
    }

    /// Lines a second at this hour on the better of the last two days, once there was one.
    pub fn rate(&self, second: i64) -> Option<f64> {
        let [_, yesterday, before] = self.at(second, second, |hour| hour.lines);
        (second.div_euclid(DAY) > self.first_day + 1).then(|| f64::from(yesterday.max(before)) / HOUR as f64)
    }

    /// The figures of the hour of `at`, as of the day of `second`.
    fn at(&self, at: i64, second: i64, of: impl Fn(&Hour) -> [u32; 3]) -> [u32; 3] {
        let hour = &self.hours[slot(at)];
        shifted(of(hour), second.div_euclid(DAY) - hour.day)
    }
}

fn slot(second: i64) -> usize {
    second.rem_euclid(DAY).div_euclid(HOUR) as usize
}

/// The figures so many days later.
fn shifted(days: [u32; 3], ago: i64) -> [u32; 3] {
    match ago {
        ..=0 => days,
        1 => [0, days[0], days[1]],
        2 => [0, 0, days[0]],
        _ => [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_every_day_is_usual_at_its_hour_and_once_is_not() {
        let mut season = Season::new(0);
        let at = |day: i64, hour: i64| day * DAY + hour * HOUR;
        season.fold(at(0, 3), 50, 400);
        assert_eq!(season.peak(at(1, 3)), 0, "it was there once");
        season.fold(at(1, 3) + 10, 50, 300);
        assert_eq!(season.peak(at(2, 3)), 300);
        assert_eq!(season.peak(at(2, 3) - 60), 300, "a minute early");
        assert_eq!(season.peak(at(2, 5)), 0);
        assert_eq!(season.peak(at(3, 3)), 0, "not yesterday");
        assert_eq!((season.rate(at(1, 3)), season.rate(at(2, 3))), (None, Some(50.0 / 3600.0)));
    }
}
