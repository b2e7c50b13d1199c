//! What the variables of a template were: per position numbers, a few words, and how many different values.

use serde::{Deserialize, Serialize};

use super::hash::hash;

/// Positions per template that are summed up.
const MAX_POSITIONS: usize = 6;
const MAX_WORDS: usize = 3;
const REGISTERS: usize = 16;

/// The summaries of one template's first variables, in order; empty until its second line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Params(pub Box<[Summary]>);

/// One position's values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub count: u32,
    /// How many of them were numbers (with or without a unit), and their range and sum.
    pub numbers: u32,
    pub min: f32,
    pub max: f32,
    pub sum: f64,
    /// Hashes of the most frequent values (Space-Saving), with counts that are never too low.
    pub words: [(u32, u32); MAX_WORDS],
    /// HyperLogLog registers.
    sketch: [u8; REGISTERS],
}

impl Params {
    /// Adds the values of one line.
    pub fn add<'a>(&mut self, mut values: impl Iterator<Item = &'a [u8]>) {
        if self.0.is_empty() {
            self.0 = values.by_ref().take(MAX_POSITIONS).map(Summary::of).collect();
            return;
        }
        for (summary, value) in self.0.iter_mut().zip(values) {
            summary.add(value);
        }
    }
}

impl Summary {
    fn of(value: &[u8]) -> Self {
        let mut summary = Self::default();
        summary.add(value);
        summary
    }

    /// Of the numbers among the values.
    pub fn mean(&self) -> Option<f64> {
        (self.numbers > 0).then(|| self.sum / f64::from(self.numbers))
    }

    /// About how many different values; within a quarter, for 16 registers.
    pub fn distinct(&self) -> f64 {
        let m = REGISTERS as f64;
        let sum: f64 = self.sketch.iter().map(|r| 0.5_f64.powi(i32::from(*r))).sum();
        let raw = 0.673 * m * m / sum;
        let empty = self.sketch.iter().filter(|r| **r == 0).count();
        // Flajolet et al. 2007: linear counting for small sets.
        if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw }
    }

    fn add(&mut self, value: &[u8]) {
        self.count = self.count.saturating_add(1);
        if let Some(number) = number(value) {
            let small = number as f32;
            (self.min, self.max) =
                if self.numbers == 0 { (small, small) } else { (self.min.min(small), self.max.max(small)) };
            self.numbers = self.numbers.saturating_add(1);
            self.sum += number;
        }
        let hash = hash(value);
        let register = &mut self.sketch[(hash >> 60) as usize];
        *register = (*register).max((hash << 4 | 8).leading_zeros() as u8 + 1);
        let word = hash as u32;
        let at = self.words.iter().position(|w| w.1 > 0 && w.0 == word);
        let rarest = || (0..MAX_WORDS).min_by_key(|i| self.words[*i].1).unwrap_or(0);
        let at = at.unwrap_or_else(rarest);
        self.words[at] = (word, self.words[at].1.saturating_add(1));
    }
}

/// A decimal number at the beginning, with nothing but a unit after it.
pub fn number(value: &[u8]) -> Option<f64> {
    let (negative, digits) = match value.first()? {
        b'-' => (true, &value[1..]),
        b'<' | b'>' | b'#' | b'(' => (false, &value[1..]),
        _ => (false, value),
    };
    let (mut whole, mut scale, mut seen) = (0_u64, 0_u32, false);
    let mut point = false;
    let mut end = digits.len();
    for (i, byte) in digits.iter().take(18).enumerate() {
        match byte {
            b'0'..=b'9' => {
                whole = whole * 10 + u64::from(byte - b'0');
                scale += u32::from(point);
                seen = true;
            }
            b'.' if !point => point = true,
            _ => {
                end = i;
                break;
            }
        }
    }
    if !seen || digits.len() > 18 && end == digits.len() || digits.len() > end + 12 {
        return None;
    }
    if !digits[end..].iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b' ' | b'%' | b')')) {
        return None;
    }
    const TENS: [f64; 18] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17];
    let number = whole as f64 / TENS[scale as usize];
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_their_units() {
        for (text, expected) in [
            ("12", Some(12.)),
            ("-1.5", Some(-1.5)),
            ("20 ms", Some(20.)),
            ("<1 sec", Some(1.)),
            ("99%", Some(99.)),
            ("10.0.0.1", None),
            ("abc", None),
            ("0x1f", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_summary_knows_range_mean_and_how_many_differ() {
        let mut params = Params::default();
        for i in 1..=1000 {
            params.add([format!("{i}ms").as_bytes(), b"eu"].into_iter());
        }
        let summaries = params.0;
        assert_eq!((summaries[0].min, summaries[0].max, summaries[0].mean()), (1., 1000., Some(500.5)));
        assert!((500.0..2000.0).contains(&summaries[0].distinct()), "{}", summaries[0].distinct());
        assert!(summaries[1].distinct() < 2.0);
        assert_eq!(summaries[1].words[0].1, 1000);
    }
}
