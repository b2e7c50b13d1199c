//! What each stream of evidence usually reaches: its maxima over past blocks of rows. Hands on how far beyond them a value is.

use serde::{Deserialize, Serialize};

use super::half::Half;

/// Streams of evidence that a series is judged by.
pub const STREAMS: usize = 13;
/// Blocks remembered.
const BLOCKS: usize = 16;
/// Rows of the first blocks.
const FIRST_BLOCK: u32 = 8;
/// Blocks without which nothing is known.
const ENOUGH: u8 = 4;
/// Differences below this share of the usual maximum mean nothing, however regular the stream.
const FLOOR: f32 = 0.01;

/// Maxima of the past blocks of all streams, oldest first. When there is no room for another block, neighbours are united
/// and blocks are twice as long from then on, up to a longest: a young series is judged soon, an old one by a long memory,
/// and extremes that come in clusters count once.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tails {
    maxima: [[Half; BLOCKS]; STREAMS],
    current: [Half; STREAMS],
    /// Median of the maxima, and their mean distance from it.
    middle: [Half; STREAMS],
    spread: [Half; STREAMS],
    blocks: u8,
    length: u32,
    left: u32,
}

impl Default for Tails {
    fn default() -> Self {
        Self {
            maxima: [[Half::default(); BLOCKS]; STREAMS],
            current: [Half::of(f32::NEG_INFINITY); STREAMS],
            middle: [Half::default(); STREAMS],
            spread: [Half::default(); STREAMS],
            blocks: 0,
            length: FIRST_BLOCK,
            left: FIRST_BLOCK,
        }
    }
}

impl Tails {
    /// Nats beyond the usual maximum of a block, by a Gumbel tail: a stream of noise reaches `s` once in e^s blocks.
    /// `grains`: differences that mean nothing, in units of each stream.
    pub fn nats(&self, values: &[f32; STREAMS], grains: &[f32; STREAMS]) -> [f32; STREAMS] {
        if self.blocks < ENOUGH {
            return [0.0; STREAMS];
        }
        std::array::from_fn(|i| {
            let (middle, spread) = self.fitted(i);
            ((Half::of(values[i]).get() - middle) / spread.max(grains[i])).max(0.0)
        })
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
        let length = self.length as f32;
        let (young, fast) = (ordinary / length.min(ordinary), longest / length.max(ordinary));
        0.5 * young.ln() + fast.max(1.0).ln()
    }

    /// Takes what the streams reached. `longest`: rows that a block may have.
    pub fn push(&mut self, values: &[f32; STREAMS], longest: u32) {
        for (current, value) in self.current.iter_mut().zip(values) {
            *current = current.max(Half::of(*value));
        }
        self.left -= 1;
        if self.left == 0 {
            self.end_block(longest);
        }
    }

    fn end_block(&mut self, longest: u32) {
        if usize::from(self.blocks) == BLOCKS {
            if self.length * 2 <= longest {
                return self.unite();
            }
            self.maxima.iter_mut().for_each(|maxima| maxima.copy_within(1.., 0));
            self.blocks -= 1;
        }
        for (maxima, current) in self.maxima.iter_mut().zip(&mut self.current) {
            maxima[usize::from(self.blocks)] = *current;
            *current = Half::of(f32::NEG_INFINITY);
        }
        self.blocks += 1;
        self.left = self.length;
        self.fit();
    }

    /// The current block goes on, at its new length.
    fn unite(&mut self) {
        for maxima in &mut self.maxima {
            for i in 0..BLOCKS / 2 {
                maxima[i] = maxima[2 * i].max(maxima[2 * i + 1]);
            }
        }
        self.blocks = (BLOCKS / 2) as u8;
        self.left = self.length;
        self.length *= 2;
        self.fit();
    }

    fn fit(&mut self) {
        let n = usize::from(self.blocks);
        for i in 0..STREAMS {
            let mut sorted = self.maxima[i].map(Half::get);
            let sorted = &mut sorted[..n];
            sorted.sort_unstable_by(f32::total_cmp);
            let middle = (sorted[n / 2] + sorted[(n - 1) / 2]) / 2.0;
            let distance: f32 = sorted.iter().map(|x| (x - middle).abs()).sum();
            self.middle[i] = Half::of(middle);
            // Few maxima know their spread badly: it is taken for larger.
            self.spread[i] = Half::of(distance / n as f32 * (1.0 + 2.0 / n as f32));
        }
    }
}
