//! Series of many programs on one clock: each is scraped at its own moments, and some samples are lost.

use super::{
    hash::Map,
    robust::{quantile, sorted},
};

/// What was lost is put between its neighbours if these are no more than so many of the series' own steps apart.
const NEAR: usize = 3;
/// A series is regular if so many of its samples came; what is missing of others was not there.
const REGULAR: f64 = 0.75;

/// Equally long stretches of time, of those in which something was measured.
pub struct Steps {
    from: i64,
    length: i64,
    /// Place of each stretch.
    places: Map<i64, usize>,
    /// How many end before the window.
    pub cut: usize,
}

impl Steps {
    /// For the points of several series, until `to`. A stretch is as long as half of the series' steps; the window begins one.
    pub fn of<'a>(all: impl Iterator<Item = &'a [(i64, f64)]> + Clone, from: i64, to: i64) -> Self {
        let usual = |points: &[(i64, f64)]| {
            let steps = sorted(points.windows(2).map(|p| (p[1].0 - p[0].0) as f64).collect());
            (!steps.is_empty()).then(|| quantile(&steps, 0.5))
        };
        let length = (quantile(&sorted(all.clone().filter_map(usual).collect()), 0.5) as i64).max(1);
        let number = |at: i64| (at - from).div_euclid(length);
        let mut known: Vec<i64> = all.flatten().map(|p| p.0).filter(|at| *at <= to).map(number).collect();
        known.sort_unstable();
        known.dedup();
        let cut = known.partition_point(|n| *n < 0);
        Self { from, length, places: known.into_iter().enumerate().map(|(i, n)| (n, i)).collect(), cut }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The mean of each stretch. Of a regular series, samples that were lost are put between their neighbours.
    pub fn column(&self, points: &[(i64, f64)]) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0.0); self.len()];
        for (at, value) in points {
            if let Some(&place) = self.places.get(&(at - self.from).div_euclid(self.length)) {
                sums[place].0 += value;
                sums[place].1 += 1.0;
            }
        }
        let mut column: Vec<Option<f64>> =
            sums.into_iter().map(|(sum, n)| (n > 0.0).then(|| sum / n)).collect();
        fill(&mut column);
        column
    }
}

fn fill(column: &mut [Option<f64>]) {
    let known: Vec<usize> = (0..column.len()).filter(|i| column[*i].is_some()).collect();
    let [first, .., last] = known[..] else { return };
    let gaps = sorted(known.windows(2).map(|k| (k[1] - k[0]) as f64).collect());
    let own = quantile(&gaps, 0.25) as usize;
    if ((known.len() - 1) * own) < ((last - first) as f64 * REGULAR) as usize {
        return;
    }
    for k in known.windows(2).filter(|k| k[1] - k[0] <= NEAR * own) {
        let (Some(a), Some(b)) = (column[k[0]], column[k[1]]) else { continue };
        let each = (b - a) / (k[1] - k[0]) as f64;
        for (n, lost) in column[k[0] + 1..k[1]].iter_mut().enumerate() {
            *lost = Some(a + each * (n + 1) as f64);
        }
    }
    let until = column.len().min(last + NEAR * own);
    let newest = column[last];
    column[last + 1..until].fill(newest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// A value each 15 s from `offset` on, but for those that are lost.
    fn scraped(offset: i64, lost: &[i64]) -> Vec<(i64, f64)> {
        let all = (0..20).filter(|n| !lost.contains(n));
        all.map(|n| ((n * 15 + offset) * SECOND, n as f64)).collect()
    }

    #[test]
    fn what_is_scraped_at_other_moments_falls_into_the_same_steps() {
        let [a, b] = [scraped(0, &[]), scraped(11, &[4, 5, 19])];
        let steps = Steps::of([&a[..], &b[..]].into_iter(), 150 * SECOND, 1000 * SECOND);
        assert_eq!((steps.len(), steps.cut), (20, 10));
        let numbers: Vec<_> = (0..20).map(|n| Some(f64::from(n))).collect();
        assert_eq!(steps.column(&a), numbers);
        assert_eq!(steps.column(&b)[..19], numbers[..19], "what was lost is between its neighbours");
        assert_eq!(steps.column(&b)[19], Some(18.0), "the newest may not have come yet");
    }

    #[test]
    fn where_there_was_nothing_nothing_is_made_up() {
        let all = scraped(0, &[]);
        let steps = Steps::of([&all[..]].into_iter(), 150 * SECOND, 1000 * SECOND);
        let rare = [all[2], all[3], all[12]];
        assert_eq!(steps.column(&rare).iter().flatten().count(), 3);
        assert_eq!(steps.column(&[]).iter().flatten().count(), 0);
        let none = Steps::of(std::iter::empty(), 0, 1);
        assert_eq!((none.len(), none.cut), (0, 0));
        let ended = scraped(0, &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(steps.column(&ended).iter().flatten().count(), 12, "who is silent for longer is gone");
    }
}
