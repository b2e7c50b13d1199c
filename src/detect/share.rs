//! What share of lines has a property, and how unevenly that comes: the baseline of error ratios and of values.

use serde::{Deserialize, Serialize};

use super::stats::BetaBinomial;

/// Hits among all, fading; fed window by window.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Share {
    hits: f64,
    all: f64,
    windows: f64,
    /// Per window: its lines, and how far it was off: (hits − n·p)² / (n·p·(1 − p)), 1 if lines are independent.
    size: f64,
    uneven: f64,
}

/// Windows after which the past has faded to a third.
const MEMORY: f64 = 360.0;

impl Share {
    /// Adds a window.
    pub fn fold(&mut self, hits: u64, all: u64) {
        if all == 0 {
            return;
        }
        let (k, n) = (hits as f64, all as f64);
        self.windows = (self.windows + 1.0).min(MEMORY);
        let step = 1.0 / self.windows;
        if self.all > 0.0 {
            let p = self.usual();
            let off = (k - n * p).powi(2) / (n * p * (1.0 - p));
            self.uneven += step * (off - self.uneven);
        }
        self.size += step * (n - self.size);
        let keep = 1.0 - 1.0 / MEMORY;
        self.hits = self.hits * keep + k;
        self.all = self.all * keep + n;
    }

    /// Lines that it rests on.
    pub fn lines(&self) -> f64 {
        self.all
    }

    /// The usual share, from a prior of half a hit among one line.
    pub fn usual(&self) -> f64 {
        (self.hits + 0.5) / (self.all + 1.0)
    }

    /// Hits to expect among `n` lines.
    pub fn expected(&self, n: u64) -> BetaBinomial {
        BetaBinomial::new(n, self.usual(), self.all + 1.0, self.correlation())
    }

    /// How much alike lines of one window are, 0 to 1, from what windows were off by; believing in 1 for three windows.
    pub fn correlation(&self) -> f64 {
        let off = (3.0 + self.windows * self.uneven) / (3.0 + self.windows);
        ((off - 1.0) / (self.size - 1.0).max(1.0)).clamp(0.0, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_shares_are_trusted_and_uneven_ones_are_not() {
        let (mut steady, mut uneven) = (Share::default(), Share::default());
        for i in 0..200 {
            steady.fold(1 + i % 2, 100);
            uneven.fold(if i % 50 == 0 { 75 } else { 0 }, 100);
        }
        assert!((steady.usual() - 0.015).abs() < 0.003 && (uneven.usual() - 0.015).abs() < 0.006);
        assert!(steady.expected(100).tail(20) < 1e-9);
        assert!(uneven.expected(100).tail(20) > 1e-3, "{}", uneven.expected(100).tail(20));
    }
}
