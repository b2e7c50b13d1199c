//! The octiles of a series, followed online, and how far its recent values are distributed otherwise than usual.

use serde::{Deserialize, Serialize};

/// Share of the width between the outer octiles by which an octile moves with a value.
const STEP: f32 = 0.02;
/// Values whose distribution is recent, and how many times as many are usual.
pub const RECENT: u16 = 48;
const USUAL: f32 = 16.0 * RECENT as f32;
/// The outer fence, in widths between the outer octiles beyond them (Tukey: 3 between quartiles, which are closer).
const FENCE: f32 = 2.5;
/// Values before the octiles are trusted to say what is far out.
const FENCE_AFTER: u32 = 50;
/// The least share of an eighth that the logarithm sees.
const LEAST: f32 = 0.01;

#[derive(Clone, Serialize, Deserialize)]
pub struct Distribution {
    octiles: [f32; 7],
    /// Shares of the values in each eighth, recently and usually.
    recent: [Share; 8],
    usual: [Share; 8],
}

/// Between 0 and 1, in 65535ths: fine enough for the steps of `usual`, in half the memory.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Share(u16);

impl Share {
    const fn of(x: f32) -> Self {
        Self((x * 65_535.0 + 0.5) as u16)
    }
    fn get(self) -> f32 {
        f32::from(self.0) / 65_535.0
    }
    /// Comes nearer to `to` by 1/`values` of the distance.
    fn follow(&mut self, to: f32, values: f32) -> f32 {
        let x = self.get();
        *self = Self::of(x + (to - x) / values);
        self.get()
    }
}

impl Default for Distribution {
    fn default() -> Self {
        let eighth = Share::of(0.125);
        Self { octiles: [0.0; 7], recent: [eighth; 8], usual: [eighth; 8] }
    }
}

impl Distribution {
    /// Relative entropy (nats) of the recent distribution to the usual one. `before`: how many values came before this one.
    pub fn push(&mut self, x: f32, before: u32) -> f32 {
        if before == 0 {
            self.octiles = [x; 7];
        }
        let eighth = self.octiles.iter().filter(|q| x > **q).count();
        self.follow(x);
        let usual_values = USUAL.min(before as f32 + 8.0);
        let mut entropy = 0.0;
        for (j, (recent, usual)) in self.recent.iter_mut().zip(&mut self.usual).enumerate() {
            let hit = if j == eighth { 1.0 } else { 0.0 };
            let (recent, usual) = (recent.follow(hit, f32::from(RECENT)), usual.follow(hit, usual_values));
            entropy += recent * (recent / usual.max(LEAST)).max(1e-9).ln();
        }
        entropy
    }

    /// Moves every octile by its share up or down (stochastic approximation of quantiles).
    fn follow(&mut self, x: f32) {
        let width = self.octiles[6] - self.octiles[0];
        let step = STEP * width.max(0.1 * (x - self.octiles[3]).abs());
        for (j, q) in self.octiles.iter_mut().enumerate() {
            let share = (j + 1) as f32 / 8.0;
            *q += step * if x <= *q { share - 1.0 } else { share };
        }
        // Steps of different size may have brought neighbours out of order.
        self.octiles.sort_unstable_by(f32::total_cmp);
    }

    /// `x`, but no farther out than the fence: what slow streams see, so that one spike is not a level. `before` as above.
    pub fn fenced(&self, x: f32, before: u32) -> f32 {
        let (low, high) = (self.octiles[0], self.octiles[6]);
        let beyond = FENCE * (high - low);
        if before > FENCE_AFTER && beyond > 0.0 { x.clamp(low - beyond, high + beyond) } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_another_distribution_and_cuts_off_what_is_far_out() {
        let mut distribution = Distribution::default();
        let uniform = |row: u32| (row * 7919 % 1000) as f32 / 1000.0;
        let calm: Vec<f32> = (0..4000).map(|row| distribution.push(uniform(row), row)).collect();
        let calm = calm[1000..].iter().copied().fold(0.0, f32::max);
        assert_eq!(distribution.fenced(0.5, 4000), 0.5);
        assert!((1.5..4.0).contains(&distribution.fenced(1e6, 4000)));
        let other = (4000..4100).map(|row| distribution.push(0.9 + uniform(row) / 10.0, row));
        let other = other.fold(0.0, f32::max);
        assert!(other > 1.5 * calm, "{calm} {other}");
    }
}
