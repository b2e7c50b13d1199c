//! The few distributions that the detectors judge by.

use crate::gamma::{ln_beta, ln_gamma};

/// A count with mean `mean` and shape `r`: variance `mean + mean²/r`. A large `r` makes it a Poisson count; `r` = evidence
/// of the rate's own posterior makes it the exact predictive count of a rate that was only seen for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NegativeBinomial {
    pub mean: f64,
    pub r: f64,
}

impl NegativeBinomial {
    fn q(self) -> f64 {
        self.mean / (self.mean + self.r)
    }

    fn pmf(self, k: f64) -> f64 {
        let Self { r, .. } = self;
        let ln = ln_gamma(k + r) - ln_gamma(r) - ln_gamma(k + 1.0) - r * (self.mean / r).ln_1p()
            + k * self.q().ln();
        ln.exp()
    }

    /// P(X ≥ k), summed term by term; 1 for k at or under the mean, where nobody asks.
    pub fn tail(self, k: u64) -> f64 {
        let mut x = k as f64;
        if x <= self.mean || self.mean <= 0.0 {
            return if k > 0 && self.mean <= 0.0 { 0.0 } else { 1.0 };
        }
        let (mut term, mut sum) = (self.pmf(x), 0.0);
        for _ in 0..10_000 {
            sum += term;
            let ratio = (x + self.r) / (x + 1.0) * self.q();
            term *= ratio;
            x += 1.0;
            if term < sum * 1e-6 {
                break;
            }
        }
        sum.min(1.0)
    }

    /// The smallest count whose cumulative probability reaches `p`; by the normal approximation for means above 500.
    pub fn quantile(self, p: f64) -> u64 {
        if self.mean <= 0.0 {
            return 0;
        }
        if self.mean > 500.0 {
            let sd = (self.mean + self.mean * self.mean / self.r).sqrt();
            return (self.mean + normal_quantile(p) * sd).max(0.0).round() as u64;
        }
        let (mut k, mut term) = (0_u64, self.pmf(0.0));
        let mut sum = term;
        while sum < p && k < 100_000 {
            term *= (k as f64 + self.r) / (k as f64 + 1.0) * self.q();
            sum += term;
            k += 1;
        }
        k
    }
}

/// Hits among `n`, when the share itself is only known from some lines and varies from window to window: beta-binomial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaBinomial {
    n: f64,
    a: f64,
    b: f64,
}

impl BetaBinomial {
    /// With the mean `share`, known from `evidence` lines, and a correlation of 0 to 1 between lines of one window: that of a
    /// beta-binomial count is 1 / (a + b + 1).
    pub fn new(n: u64, share: f64, evidence: f64, correlation: f64) -> Self {
        let size = evidence.min(1.0 / correlation.max(1e-9) - 1.0).max(1e-3);
        Self { n: n as f64, a: share * size, b: (1.0 - share) * size }
    }

    fn pmf(self, k: f64) -> f64 {
        let Self { n, a, b } = self;
        let ln_choose = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
        (ln_choose + ln_beta(k + a, n - k + b) - ln_beta(a, b)).exp()
    }

    fn next(self, k: f64) -> f64 {
        (self.n - k) / (k + 1.0) * (k + self.a) / (self.n - k - 1.0 + self.b)
    }

    /// P(X ≥ k), summed term by term; 1 for k at or under the mean, where nobody asks.
    pub fn tail(self, k: u64) -> f64 {
        let mut x = k as f64;
        if x > self.n {
            return 0.0;
        }
        if x <= self.n * self.a / (self.a + self.b) {
            return 1.0;
        }
        let (mut term, mut sum) = (self.pmf(x), 0.0);
        while x <= self.n {
            sum += term;
            term *= self.next(x);
            x += 1.0;
            if term < sum * 1e-9 {
                break;
            }
        }
        sum.min(1.0)
    }

    /// The smallest count whose cumulative probability reaches `p`.
    pub fn quantile(self, p: f64) -> u64 {
        let (mut k, mut term) = (0.0, self.pmf(0.0));
        let mut sum = term;
        while sum < p && k < self.n {
            term *= self.next(k);
            sum += term;
            k += 1.0;
        }
        k as u64
    }
}

/// The standard normal quantile (Acklam's rational approximation; relative error below 1.2e-9).
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let poly = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let p = p.clamp(1e-300, 1.0 - 1e-16);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        return poly(&C, q) / poly(&D, q);
    }
    if p > 1.0 - 0.02425 {
        return -normal_quantile(1.0 - p);
    }
    let q = p - 0.5;
    q * poly(&A, q * q) / poly(&B, q * q)
}

/// The time that is exceeded with probability `p` between events that come `mean` apart with the given squared coefficient
/// of variation: a gamma quantile (Wilson and Hilferty 1931; good for a shape of 1, that is a Poisson process, and above).
pub fn gap_quantile(mean: f64, cv2: f64, p: f64) -> f64 {
    let shape = 1.0 / cv2.clamp(1e-4, 1.0);
    let z = -normal_quantile(p);
    mean * (1.0 - 1.0 / (9.0 * shape) + z / (3.0 * shape.sqrt())).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, relative: f64) {
        assert!((a / b - 1.0).abs() < relative, "{a} is not {b}");
    }

    #[test]
    fn known_values() {
        close(ln_gamma(0.5), 0.5 * std::f64::consts::PI.ln(), 1e-12);
        close(ln_gamma(11.0), 3_628_800_f64.ln(), 1e-12);
        close(normal_quantile(0.975), 1.959_963_985, 1e-8);
        close(normal_quantile(1e-7), -5.199_337_582, 1e-8);
        // P(Poisson(2) ≥ 10) = 4.65e-5; the geometric distribution with mean 1: P(X ≥ 10) = 2⁻¹⁰.
        close(NegativeBinomial { mean: 2.0, r: 1e9 }.tail(10), 4.6498e-5, 1e-3);
        close(NegativeBinomial { mean: 1.0, r: 1.0 }.tail(10), 0.5_f64.powi(10), 1e-5);
        assert_eq!(NegativeBinomial { mean: 2.0, r: 1e9 }.quantile(0.99), 6);
        assert_eq!(NegativeBinomial { mean: 0.0, r: 0.5 }.tail(1), 0.0);
        // Uniform share: every count of 0 to 4 has a fifth. Without correlation and well known it is binomial: P(X ≥ 3) of 10 tenths.
        let uniform = BetaBinomial::new(4, 0.5, 2.0, 0.0);
        close(uniform.tail(3), 0.4, 1e-9);
        assert_eq!(uniform.quantile(0.5), 2);
        close(BetaBinomial::new(10, 0.1, 1e9, 0.0).tail(3), 0.070_190_8, 1e-4);
        close(BetaBinomial::new(4, 0.5, 1e9, 1.0 / 3.0).tail(3), 0.4, 1e-6);
        // Exponential gaps: P(gap > t) = e⁻ᵗ.
        close(gap_quantile(1.0, 1.0, 1e-7), 1e7_f64.ln(), 0.15);
    }
}
