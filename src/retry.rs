//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with jitter: attempt 1 waits about `base`, each further one twice as long, at most `max`; every wait
/// is spread over ±25 % so that those who failed together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Backoff {
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }
    /// The wait after the given failed attempt, counted from 1.
    pub fn wait(&self, attempt: i64) -> Duration {
        let doublings = attempt.saturating_sub(1).clamp(0, 30) as u32;
        let plain = self.base.saturating_mul(1 << doublings).min(self.max);
        plain.mul_f64(0.75 + 0.5 * crate::ids::fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let b = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for (attempt, plain) in [(1, 1.0), (2, 2.0), (4, 8.0), (40, 60.0), (i64::MAX, 60.0)] {
            let w = b.wait(attempt).as_secs_f64();
            assert!((plain * 0.74..=plain * 1.26).contains(&w), "attempt {attempt}: {w}");
        }
    }
}
