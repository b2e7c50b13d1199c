//! Medians, quartiles and what a deviation is worth.

pub fn sorted(mut v: Vec<f64>) -> Vec<f64> {
    v.sort_by(f64::total_cmp);
    v
}

/// Linear interpolation between order statistics (Hyndman & Fan, type 7); 0 if empty.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    let at = q * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + part * (sorted[high] - sorted[low])
}

/// The standard deviation that a normal distribution of this interquartile range has.
pub fn spread(sorted: &[f64]) -> f64 {
    (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 1.349
}

/// ln of the density at the centre over the density at `z`, Student's t with 3 degrees of freedom: the tails that
/// operational series have, so that a 100 times larger z isn't 10,000 times more convincing.
pub fn surprise(z: f64) -> f64 {
    2.0 * (1.0 + z * z / 3.0).ln()
}

/// Three significant digits.
pub fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    if !(-5.0..9.0).contains(&digits) {
        return format!("{value:.2e}");
    }
    format!("{value:.*}", (2.0 - digits).max(0.0) as usize)
}
