//! The last values of a series in order of time and of size: exact median, quartiles and extremes, and extremes of a longer
//! past that fade.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

const KEPT: usize = 128;
/// Share of the distance to the median by which old extremes shrink with each value.
const FADE: f64 = 1.0 / 4000.0;

/// At most 128 values, all finite.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct RecentValues {
    order: VecDeque<f64>,
    sorted: Vec<f64>,
    low: f64,
    high: f64,
}

impl RecentValues {
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn push(&mut self, value: f64) {
        if self.order.len() == KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            let at = self.sorted.partition_point(|v| v.total_cmp(&oldest).is_lt());
            self.sorted.remove(at);
        }
        let at = self.sorted.partition_point(|v| v.total_cmp(&value).is_lt());
        self.sorted.insert(at, value);
        self.order.push_back(value);
        let (first, last, median) = (self.sorted[0], self.sorted[self.sorted.len() - 1], self.median());
        self.low = first.min(self.low + (median - self.low) * FADE);
        self.high = last.max(self.high + (median - self.high) * FADE);
        if self.sorted.len() == 1 {
            (self.low, self.high) = (value, value);
        }
    }

    /// Takes over the values of another, in their order.
    pub fn append(&mut self, other: &mut RecentValues) {
        let other = std::mem::take(other);
        other.order.into_iter().for_each(|value| self.push(value));
    }

    /// The values kept, oldest first.
    pub fn in_time(&self) -> impl Iterator<Item = f64> {
        self.order.iter().copied()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The interquartile range as a standard deviation of normal noise.
    pub fn deviation(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / 1.349
    }

    /// The lowest and highest value, those of the faded past included.
    pub fn extremes(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The lowest and highest value of those kept: what people are shown as usual.
    pub fn range(&self) -> (f64, f64) {
        (self.quantile(0.0), self.quantile(1.0))
    }

    fn quantile(&self, q: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else { return 0.0 };
        let place = q * last as f64;
        let (below, share) = (place.floor() as usize, place.fract());
        let above = (below + 1).min(last);
        self.sorted[below] * (1.0 - share) + self.sorted[above] * share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_sorting_the_last_values(values in prop::collection::vec(-1e9_f64..1e9, 1..400)) {
            let mut recent = RecentValues::default();
            values.iter().for_each(|v| recent.push(*v));
            let mut kept: Vec<f64> = values.iter().rev().take(KEPT).copied().collect();
            kept.sort_by(f64::total_cmp);
            prop_assert_eq!(&recent.sorted, &kept);
            prop_assert_eq!(recent.range(), (kept[0], kept[kept.len() - 1]));
            let (low, high) = recent.extremes();
            prop_assert!(low <= kept[0] && high >= kept[kept.len() - 1]);
        }
    }
}
