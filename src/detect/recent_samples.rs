//! The last samples of a series, for diagnoses and rankings; eight bytes each.

use serde::{Deserialize, Serialize};

/// Samples that are kept.
pub const KEPT: usize = 64;

/// A ring of (time, value). Times are milliseconds since the epoch, cut to 32 bits: they are told apart within 49 days, and
/// what is older than that is forgotten by its reader.
#[derive(Serialize, Deserialize)]
pub struct RecentSamples {
    /// In two halves, for serde knows arrays of up to 32.
    ring: [[(u32, f32); KEPT / 2]; 2],
    pushed: u32,
}

impl Default for RecentSamples {
    fn default() -> Self {
        Self { ring: [[(0, 0.0); KEPT / 2]; 2], pushed: 0 }
    }
}

impl RecentSamples {
    pub fn push(&mut self, at_ms: i64, value: f64) {
        self.ring.as_flattened_mut()[self.pushed as usize % KEPT] = (at_ms as u32, value as f32);
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// Oldest first, with the time in milliseconds. `last_ms`: when the last one was.
    pub fn iter(&self, last_ms: i64) -> impl Iterator<Item = (i64, f64)> {
        let count = (self.pushed as usize).min(KEPT);
        (0..count).map(move |i| {
            let (at, value) = self.ring.as_flattened()[(self.pushed as usize - count + i) % KEPT];
            (last_ms - i64::from((last_ms as u32).wrapping_sub(at)), f64::from(value))
        })
    }

    pub fn clear(&mut self) {
        self.pushed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ones_with_their_times() {
        let mut recent = RecentSamples::default();
        let at = |i: i64| 1_795_255_200_000 + i * 30_000_000;
        (0..100).for_each(|i| recent.push(at(i), i as f64));
        let kept: Vec<_> = recent.iter(at(99)).collect();
        assert_eq!(kept, (36..100).map(|i| (at(i), i as f64)).collect::<Vec<_>>());
    }
}
