//! What one stream reached in its past blocks: sixteen numbers in seventeen bytes.

use serde::{Deserialize, Serialize};

/// Blocks remembered.
pub const BLOCKS: usize = 16;
/// Up to so many units a number is kept in units; what lies farther out in quarters of octaves.
const UNITS: f64 = 95.0;
const QUARTERS: f64 = 4.0;
/// How many times as far as the third of them the two largest numbers may lie and be kept in units.
const OUTLIER: f64 = 2.0;
/// The largest code of a number without its sign, and the bit of its sign.
const MOST: u8 = 127;
const BELOW: u8 = 128;

/// Numbers in a common unit, each to a hundredth of the largest: what a stream differs by within that means nothing anyway.
///
/// Two outliers have no say in the unit, so that a single giant does not make the rest vanish: not while it is remembered,
/// and not when it leaves. They are kept to a tenth, up to 250 times as far out as what is kept in units. The unit is a power
/// of two: what is kept again stays what it is.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Maxima {
    /// Of two: the unit.
    exponent: i8,
    codes: [u8; BLOCKS],
}

impl Maxima {
    /// `numbers`: no more than `BLOCKS`, finite.
    pub fn new(numbers: &[f32]) -> Self {
        let exponent = exponent(numbers);
        let unit = f64::from(exponent).exp2();
        let mut codes = [0; BLOCKS];
        for (code, x) in codes.iter_mut().zip(numbers) {
            let size = size(f64::from(x.abs()) / unit);
            *code = if *x < 0.0 { size | BELOW } else { size };
        }
        Self { exponent, codes }
    }

    /// All `BLOCKS`; those that were not given are 0.
    pub fn numbers(&self) -> [f32; BLOCKS] {
        let unit = f64::from(self.exponent).exp2();
        self.codes.map(|code| {
            let size = (units(code & !BELOW) * unit) as f32;
            if code & BELOW == 0 { size } else { -size }
        })
    }
}

/// The code of so many units.
fn size(units: f64) -> u8 {
    let code =
        if units <= UNITS { units.round() } else { UNITS + (QUARTERS * (units / UNITS).log2()).round() };
    code.min(f64::from(MOST)) as u8
}

fn units(size: u8) -> f64 {
    let size = f64::from(size);
    if size <= UNITS { size } else { UNITS * ((size - UNITS) / QUARTERS).exp2() }
}

/// The exponent of the least unit in which no number but an outlier is too large.
fn exponent(numbers: &[f32]) -> i8 {
    let mut largest = [0.0_f32; 3];
    for size in numbers.iter().map(|x| x.abs()) {
        let place = largest.iter().take_while(|other| **other >= size).count();
        if place < largest.len() {
            largest[place..].rotate_right(1);
            largest[place] = size;
        }
    }
    let [first, _, third] = largest.map(f64::from);
    let top = if third > 0.0 { first.min(OUTLIER * third) } else { first };
    (top / UNITS).max(f64::MIN_POSITIVE).log2().ceil().clamp(-126.0, 126.0) as i8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_giant_does_not_make_the_rest_vanish() {
        for giant in [1e30, -1e30] {
            let numbers: [f32; BLOCKS] =
                std::array::from_fn(|i| if i == 3 { giant } else { 10.0 + i as f32 * 0.1 });
            let kept = Maxima::new(&numbers).numbers();
            assert!(kept[3] / giant > 0.0 && kept[3].abs() > 500.0, "{kept:?}");
            for (kept, number) in kept.iter().zip(numbers).filter(|(_, number)| *number != giant) {
                assert!((kept - number).abs() <= 0.02 * 11.5, "{kept} {number}");
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_are_kept_to_a_hundredth_of_the_largest_in_their_order(
            numbers in prop::collection::vec(prop_oneof![4 => -1.0_f32..1.0, 1 => -1e9_f32..1e9], 1..=BLOCKS),
            octave in -80_i32..60,
        ) {
            let scale = (octave as f32).exp2();
            let numbers: Vec<f32> = numbers.iter().map(|x| x * scale).collect();
            let maxima = Maxima::new(&numbers);
            let kept = maxima.numbers();
            let mut sizes: Vec<f32> = numbers.iter().map(|x| x.abs()).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let third = sizes.get(2).copied().filter(|third| *third > 0.0).unwrap_or(f32::INFINITY);
            let top = sizes[0].min(2.0 * third);
            for (kept, number) in kept.iter().zip(&numbers) {
                if number.abs() <= top {
                    prop_assert!((kept - number).abs() <= top * 0.0107, "{kept} {number}");
                } else {
                    let least = number.abs().min(250.0 * top) * 0.9;
                    prop_assert!((least..number.abs() * 1.1).contains(&(kept * number.signum())), "{kept} {number}");
                }
            }
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
            prop_assert!(order.is_sorted_by(|a, b| kept[*a] <= kept[*b]), "{kept:?}");
        }
    }
}
