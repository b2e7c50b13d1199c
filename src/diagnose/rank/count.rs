//! Weighs counts: how much likelier is the window if its share changed than if it only drifted.

use crate::gamma::ln_beta;

/// A share of `k` in `n`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub k: f64,
    pub n: f64,
}

impl Share {
    pub fn mean(self) -> f64 {
        if self.n > 0.0 { self.k / self.n } else { 0.0 }
    }
}

/// ln of the Bayes factor "the share has risen" against "the share drifted as shares do", in nats.
///
/// Not changed: the window's share is drawn from Beta(ν·m, ν·(1−m)) around the reference mean `m`, with ν = what the
/// reference is worth: its own count, but never more than `drift` (shares differ between minutes by more than chance).
/// Risen: any share above the reference's is as likely (uniform). Zero when the share didn't rise.
pub fn rise(reference: Share, prior: f64, strength: f64, window: Share, drift: f64) -> f64 {
    if window.n <= 0.0 || window.k <= 0.0 {
        return 0.0;
    }
    let mean = (reference.k + strength * prior) / (reference.n + strength);
    if window.mean() <= mean {
        return 0.0;
    }
    let worth = (reference.n + strength).min(drift);
    let (a, b) = (worth * mean, worth * (1.0 - mean));
    let (k, miss) = (window.k, (window.n - window.k).max(0.0));
    let drifted = ln_beta(k + a, miss + b) - ln_beta(a, b);
    let risen = ln_beta(k + 1.0, miss + 1.0);
    risen - drifted
}

/// Counts in the reference and in the window.
pub type Sides = [f64; 2];

/// A count that may be a sum of shares, as people count.
pub fn whole(count: f64) -> i64 {
    count.round() as i64
}

/// Like [`rise`], of counts.
pub fn rise_of(k: Sides, n: Sides, prior: f64) -> f64 {
    let [reference, window] = [0, 1].map(|side| Share { k: k[side], n: n[side] });
    rise(reference, prior, 1.0, window, DRIFT)
}

/// Like [`rise_of`] for requests of several sorts (count with, count of each): the reference's share is what it would be if
/// its sorts were mixed as those of the window are.
pub fn rise_of_all(parts: &[(Sides, Sides)], prior: f64) -> f64 {
    let sum = |of: fn(&(Sides, Sides)) -> f64| parts.iter().map(of).sum::<f64>();
    let (known, all) = (sum(|(_, n)| n[0]), sum(|(_, n)| n[1]));
    let expected: f64 = parts.iter().map(|(k, n)| n[1] / all.max(1e-9) * (k[0] + prior) / (n[0] + 1.0)).sum();
    let window = Share { k: sum(|(k, _)| k[1]), n: all };
    // The prior is in the expectation already.
    rise(Share { k: expected * known, n: known }, expected, 1.0, window, DRIFT)
}

/// What a reference is worth at most, in requests. Shares of one place differ between minutes by more than chance: with
/// 50 a share of one half may wander by ±7 points (one standard deviation) without being news.
const DRIFT: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_share_is_no_evidence_and_novelty_much() {
        let reference = Share { k: 0.0, n: 100.0 };
        assert!(rise(reference, 0.5, 1.0, Share { k: 30.0, n: 60.0 }, 50.0) > 10.0);
        assert!(rise(Share { k: 50.0, n: 100.0 }, 0.5, 1.0, Share { k: 33.0, n: 60.0 }, 50.0) < 0.0);
    }
}
