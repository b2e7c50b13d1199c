//! What each stream of evidence usually reaches: its maxima over past blocks of rows. Hands on how far beyond them a value is.

use serde::{Deserialize, Serialize};

use super::{
    half::Half,
    maxima::{BLOCKS, Maxima},
};

/// Streams of evidence that a series is judged by.
pub const STREAMS: usize = 14;
/// Rows of the first blocks.
const FIRST_BLOCK: u32 = 8;
/// Rows of the longest blocks that are counted.
const LONGEST: u32 = 1 << 16;
/// Blocks without which nothing is known.
const ENOUGH: u8 = 4;
/// Nats that no bound is asked for.
const ORDINARY: f32 = 1.0;
/// The streams that compare with the usual at this time.
pub const SEASON: std::ops::Range<usize> = 8..10;
/// Of `renewed`: the block that goes on began before.
const NONE: u8 = u8::MAX;
/// Differences below this share of the usual maximum mean nothing, however regular the stream.
const FLOOR: f32 = 0.01;

/// Maxima of the past blocks of all streams, oldest first. When there is no room for another block, neighbours are united
/// and blocks are twice as long from then on, up to a longest: a young series is judged soon, an old one by a long memory,
/// and extremes that come in clusters count once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tails {
    maxima: [Maxima; STREAMS],
    current: [Half; STREAMS],
    /// Median of the maxima, and their mean distance from it.
    middle: [Half; STREAMS],
    spread: [Half; STREAMS],
    blocks: u8,
    /// Blocks, up to `BLOCKS`, since the usual at a time was another.
    renewed: u8,
    /// Of the length of blocks, since the first.
    doublings: u8,
    /// Rows of the block after the next one.
    left: u16,
}

impl Default for Tails {
    fn default() -> Self {
        Self {
            maxima: [Maxima::default(); STREAMS],
            current: [Half::of(f32::NEG_INFINITY); STREAMS],
            middle: [Half::default(); STREAMS],
            spread: [Half::default(); STREAMS],
            blocks: 0,
            renewed: BLOCKS as u8,
            doublings: 0,
            left: FIRST_BLOCK as u16 - 1,
        }
    }
}

impl Tails {
    /// Nats beyond the usual maximum of a block, by a Gumbel tail: a stream of noise reaches `s` once in e^s blocks.
    /// `grains`: differences that mean nothing, in units of each stream.
    pub fn nats(&self, values: &[f32; STREAMS], grains: &[f32; STREAMS]) -> [f32; STREAMS] {
        std::array::from_fn(|i| {
            if self.known(i) < usize::from(ENOUGH) {
                return 0.0;
            }
            let (middle, spread) = self.fitted(i);
            let nats = ((Half::of(values[i]).get() - middle) / spread.max(grains[i])).max(0.0);
            if nats > ORDINARY { nats.min(self.most(i, values[i])) } else { nats }
        })
    }

    /// What blocks have reached is no rarer than that, whatever the fitted tail says: if `k` of `n` did, it comes once in
    /// `(n + 1) / k` blocks.
    fn most(&self, stream: usize, value: f32) -> f32 {
        let (all, n) = (usize::from(self.blocks), self.known(stream));
        let numbers = self.maxima[stream].numbers();
        let reached = numbers[all - n..all].iter().filter(|number| **number >= value).count();
        if reached == 0 { f32::INFINITY } else { ((n + 1) as f32 / reached as f32).ln() }
    }

    /// How many of the last blocks say what is usual of a stream.
    fn known(&self, stream: usize) -> usize {
        let renewed = if SEASON.contains(&stream) { self.renewed } else { BLOCKS as u8 };
        if renewed == NONE { 0 } else { usize::from(self.blocks.min(renewed)) }
    }

    /// The usual at a time is another one: what the streams of the season reach is learned anew, from the next block on.
    pub fn renew_season(&mut self) {
        self.renewed = NONE;
    }

    /// The value of a stream that would be `nats` beyond the usual; none while nothing is known.
    pub fn value_at(&self, stream: usize, nats: f32) -> Option<f32> {
        let (middle, spread) = self.fitted(stream);
        (self.blocks >= ENOUGH).then_some(middle + nats * spread)
    }

    fn fitted(&self, stream: usize) -> (f32, f32) {
        let (middle, spread) = (self.middle[stream].get(), self.spread[stream].get());
        (middle, spread.max(FLOOR * middle.abs()))
    }

    /// How much shorter blocks are still than they are to be, in nats: that many more times a maximum comes by chance. Up to
    /// `ordinary` rows only half of it counts, for a young series may be told of more often.
    pub fn youth(&self, ordinary: f32, longest: f32) -> f32 {
        let length = self.length() as f32;
        let (young, fast) = (ordinary / length.min(ordinary), longest / length.max(ordinary));
        0.5 * young.ln() + fast.max(1.0).ln()
    }

    /// Takes what the streams reached. `longest`: rows that a block may have.
    pub fn push(&mut self, values: &[f32; STREAMS], longest: u32) {
        for (current, value) in self.current.iter_mut().zip(values) {
            *current = current.max(Half::of(*value));
        }
        match self.left {
            0 => self.end_block(longest.min(LONGEST)),
            _ => self.left -= 1,
        }
    }

    /// Rows of a block.
    fn length(&self) -> u32 {
        FIRST_BLOCK << self.doublings
    }

    fn end_block(&mut self, longest: u32) {
        let full = usize::from(self.blocks) == BLOCKS;
        if full && self.length() * 2 <= longest {
            return self.unite();
        }
        self.blocks += u8::from(!full);
        self.renewed = if self.renewed == NONE { 0 } else { (self.renewed + 1).min(BLOCKS as u8) };
        let blocks = usize::from(self.blocks);
        for stream in 0..STREAMS {
            let mut numbers = self.maxima[stream].numbers();
            if full {
                numbers.rotate_left(1);
            }
            numbers[blocks - 1] = self.current[stream].get();
            self.fit(stream, &numbers[..blocks]);
            self.current[stream] = Half::of(f32::NEG_INFINITY);
        }
        self.left = (self.length() - 1) as u16;
    }

    /// The current block goes on, at its new length.
    fn unite(&mut self) {
        self.blocks = (BLOCKS / 2) as u8;
        if self.renewed < BLOCKS as u8 {
            self.renewed /= 2;
        }
        for stream in 0..STREAMS {
            let numbers = self.maxima[stream].numbers();
            let united: [f32; BLOCKS / 2] = std::array::from_fn(|i| numbers[2 * i].max(numbers[2 * i + 1]));
            self.fit(stream, &united);
        }
        self.left = (self.length() - 1) as u16;
        self.doublings += 1;
    }

    /// Keeps these maxima of a stream, as many as there are blocks.
    fn fit(&mut self, stream: usize, numbers: &[f32]) {
        self.maxima[stream] = Maxima::new(numbers);
        let n = self.known(stream);
        if n == 0 {
            return;
        }
        let mut sorted = [0.0; BLOCKS];
        let sorted = &mut sorted[..n];
        sorted.copy_from_slice(&numbers[numbers.len() - n..]);
        sorted.sort_unstable_by(f32::total_cmp);
        let middle = (sorted[n / 2] + sorted[(n - 1) / 2]) / 2.0;
        let distance: f32 = sorted.iter().map(|x| (x - middle).abs()).sum();
        self.middle[stream] = Half::of(middle);
        // Few maxima know their spread badly: it is taken for larger.
        self.spread[stream] = Half::of(distance / n as f32 * (1.0 + 2.0 / n as f32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nats of `value` in every stream after blocks of eight rows that reached `maxima`.
    fn nats(maxima: &[f32], value: f32) -> f32 {
        let mut tails = Tails::default();
        for most in maxima {
            (0..FIRST_BLOCK)
                .for_each(|row| tails.push(&[if row == 3 { *most } else { 0.0 }; STREAMS], FIRST_BLOCK));
        }
        tails.nats(&[value; STREAMS], &[1e-6; STREAMS])[0]
    }

    #[test]
    fn what_the_season_reaches_is_learned_anew_when_the_usual_is_another() {
        let mut tails = Tails::default();
        let mut after = |blocks: u32, most: f32| {
            for row in 0..blocks * FIRST_BLOCK {
                tails.push(&[if row % FIRST_BLOCK == 3 { most } else { 0.0 }; STREAMS], FIRST_BLOCK);
            }
            let nats = tails.nats(&[50.0; STREAMS], &[1.0; STREAMS]);
            if most > 50.0 {
                tails.renew_season();
            }
            (nats[0], nats[SEASON.start])
        };
        assert_eq!(after(16, 90.0), (0.0, 0.0));
        let few = u32::from(ENOUGH);
        assert_eq!(after(few, 10.0), (0.0, 0.0), "the block that went on counts for neither");
        let (other, season) = after(1, 10.0);
        assert!(other == 0.0 && season > 10.0, "{other} {season}");
    }

    #[test]
    fn what_is_kept_is_near_what_was_reached_and_a_giant_is_forgotten() {
        let calm: Vec<f32> = (0..40).map(|i| 10.0 + (i * 7 % 5) as f32).collect();
        let usual = nats(&calm, 20.0);
        let sum: f32 = calm[24..].iter().map(|x| (x - 12.0).abs()).sum();
        let exact = 8.0 / (sum / 16.0 * 1.125);
        assert!((usual / exact - 1.0).abs() < 0.1, "{usual}, exactly {exact}");
        let twice: Vec<f32> =
            calm.iter().enumerate().map(|(i, x)| if i % 8 == 3 { 40.0 } else { *x }).collect();
        assert!((nats(&twice, 39.0) - 8.5_f32.ln()).abs() < 1e-3, "two of sixteen blocks reached it");
        assert!(nats(&twice, 60.0) > 4.0, "and more is more");
        for giant in [1e3, 1e9, 1e30] {
            let within = nats(&[&calm[..], &[giant], &calm[..9]].concat(), 20.0);
            assert!(within < 0.2, "while it is remembered, {within}");
            let after = nats(&[&calm[..], &[giant], &calm[..16]].concat(), 20.0);
            assert!((after / usual - 1.0).abs() < 0.3, "when it has left, {after}, not {usual}");
        }
    }
}
