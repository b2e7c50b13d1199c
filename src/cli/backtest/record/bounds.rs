//! What a recording may take of others: so many records, so much time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Counts records as they come, and says when it is enough.
pub struct Bounds {
    most: u64,
    taken: u64,
    within: Duration,
    until: Instant,
}

impl Bounds {
    pub fn new(most: u64, within: Duration) -> Self {
        Self { most, taken: 0, within, until: Instant::now() + within }
    }

    /// Fails once there are more than may be.
    pub fn take(&mut self, count: u64) -> anyhow::Result<()> {
        self.taken += count;
        if self.taken > self.most {
            bail!(
                "there are more than {} samples and log lines; record a shorter time (--from, --to), or allow more (--most)",
                self.most
            );
        }
        Ok(())
    }

    /// Waits for something as long as there is time.
    pub async fn wait<T>(&self, what: impl Future<Output = T>) -> anyhow::Result<T> {
        match tokio::time::timeout_at(self.until.into(), what).await {
            Ok(done) => Ok(done),
            Err(_) => bail!(
                "not done within {}; record a shorter time (--from, --to), or give it longer (--within)",
                humantime::format_duration(self.within)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_and_time_are_bounded_and_it_says_what_to_do() {
        let mut bounds = Bounds::new(3, Duration::from_millis(10));
        bounds.take(3).expect("as many as may be");
        assert!(
            bounds.take(1).expect_err("one more").to_string().contains("more than 3 samples and log lines")
        );
        assert_eq!(bounds.wait(async { 7 }).await.expect("at once"), 7);
        let late = bounds.wait(std::future::pending::<()>()).await.expect_err("never").to_string();
        assert!(late.starts_with("not done within 10ms"), "{late}");
    }
}
