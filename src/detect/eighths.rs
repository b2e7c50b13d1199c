//! Numbers of eight bits.

use serde::{Deserialize, Serialize};

/// A number from 0 to 16 billion: whole numbers up to 16 are exact, of others the eighth of their octave is known, which is a
/// sixteenth of them at most. (Five bits of exponent, three of mantissa, no sign.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Eighths(u8);

impl Eighths {
    /// The nearest one to `x`, which is not below 0.
    pub fn near(x: f64) -> Self {
        Self::by(x, f64::round)
    }

    /// The largest one that is not above `x`, which is not below 0.
    pub fn under(x: f64) -> Self {
        Self::by(x, f64::floor)
    }

    fn by(x: f64, whole: impl Fn(f64) -> f64) -> Self {
        // From 16 on the numbers of each octave are twice as far apart as those of the one before.
        let doublings = ((x.to_bits() >> 52) as i32 - 1023 - 3).clamp(0, 30);
        let parts = whole(x / f64::from(1_u32 << doublings));
        Self((f64::from(8 * doublings) + parts).min(255.0) as u8)
    }

    pub fn get(self) -> f64 {
        let doublings = (self.0 >> 3).saturating_sub(1);
        f64::from(self.0 - 8 * doublings) * f64::from(1_u32 << doublings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_whole_numbers_are_exact_and_codes_ascend() {
        (0..=16).for_each(|n| assert_eq!(Eighths::near(f64::from(n)).get(), f64::from(n)));
        for code in 0..255 {
            let (this, next) = (Eighths(code).get(), Eighths(code + 1).get());
            assert!(this < next, "{code}");
            assert_eq!((Eighths::near(this).0, Eighths::under(this).0), (code, code));
            assert_eq!(Eighths::under(next - 0.001).0, code);
        }
        assert_eq!(Eighths::near(f64::MAX).0, 255);
    }

    proptest! {
        #[test]
        fn a_number_is_known_to_a_sixteenth(x in prop_oneof![0.0..100.0, 0.0..1.6e10_f64]) {
            let near = Eighths::near(x).get();
            prop_assert!((near - x).abs() <= (x / 16.0).max(0.5), "{x} became {near}");
            let under = Eighths::under(x).get();
            prop_assert!(under <= x && x - under <= (x / 8.0).max(1.0), "{x} became {under}");
        }
    }
}
