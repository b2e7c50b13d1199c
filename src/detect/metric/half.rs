//! Numbers of 16 bits, for what is remembered of the past: they halve the state of a series.

use serde::{Deserialize, Serialize};

/// The upper 16 bits of an `f32`, rounded (bfloat16): the range of an `f32`, three digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Half(u16);

impl Half {
    /// Rounds to even. Infinities stay what they are; NaN does not come.
    pub fn of(x: f32) -> Self {
        let bits = x.to_bits();
        Self((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
    pub fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    pub fn max(self, other: Self) -> Self {
        if self.get() >= other.get() { self } else { other }
    }
    pub fn min(self, other: Self) -> Self {
        if self.get() <= other.get() { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::Half;

    #[test]
    fn keeps_three_digits_of_any_size() {
        for x in [0.0, 1.0, -1.0, 123.456, 1e-30, -3e37, f32::INFINITY, f32::NEG_INFINITY] {
            let kept = Half::of(x).get();
            assert!(kept == x || ((kept - x) / x).abs() < 0.004, "{x} became {kept}");
        }
    }
}
