//! How far correlation may fall behind for the sake of intake. What is not acknowledged yet is lost if its sender gives up; what is
//! acknowledged is safe, and is to be worked on soon. So while many deliveries wait for their acknowledgement, correlation takes a third
//! of its time only, as long as nothing that is acknowledged has waited for longer than its patience.

use std::time::Duration;

use tokio::time::Instant;

pub(super) struct Lag {
    patience: Duration,
    /// When everything that was acknowledged was last taken: nothing that waits is older.
    caught_up: Instant,
}

impl Lag {
    pub fn new(patience: Duration) -> Self {
        Self { patience, caught_up: Instant::now() }
    }

    /// Nothing waits.
    pub fn none(&mut self) {
        self.caught_up = Instant::now();
    }

    /// Until when to stand back after a batch that lasted from `began` to `now` and, if `all`, took everything that waited then.
    pub fn stand_back_until(&mut self, began: Instant, now: Instant, all: bool) -> Instant {
        if all {
            self.caught_up = began;
        }
        (now + 2 * (now - began)).min(self.caught_up + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_stands_back_for_two_thirds_of_the_time_until_its_patience_ends() {
        let ms = Duration::from_millis;
        let mut lag = Lag::new(ms(750));
        let mut now = lag.caught_up;
        let mut stands_back = |worked: u64, all: bool| {
            let began = now;
            let done = began + ms(worked);
            now = lag.stand_back_until(began, done, all).max(done);
            now - done
        };
        assert_eq!(stands_back(100, false), ms(200));
        assert_eq!(stands_back(100, false), ms(200));
        assert_eq!(stands_back(100, false), ms(50), "what waits has done so for 700 ms");
        assert_eq!(stands_back(100, false), ms(0));
        assert_eq!(stands_back(100, true), ms(200), "nothing older than this batch waits any more");
    }
}
