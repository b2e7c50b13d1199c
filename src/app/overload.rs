//! Measures what is too old or too full, about twice a second, for whoever decides what is taken and done.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, Seen},
    bus::Bus,
    clock,
    intake::commit::Committer,
    metrics,
    store::{self, Store, inbox},
};

const EVERY: Duration = Duration::from_millis(500);
/// Looks whose intervals tell how fast correlation is.
const REMEMBERED: usize = 10;
/// Seconds; longer is no more than that.
const LONGEST: f64 = 3600.0;

/// What is measured.
pub(super) struct Gauges {
    pub store: Store,
    pub committer: Committer,
    pub bus: Arc<dyn Bus>,
    /// Records and bytes that it takes, over all partitions.
    pub bus_bounds: (usize, usize),
}

/// Measures until stopped.
pub(super) async fn watch(admission: Arc<Admission>, gauges: Gauges, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut pace, mut queue) = (Pace::default(), Queue::default());
    let began = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A store that does not answer shows in the deliveries that wait for it; of the inbox the last that was seen holds.
        if let Ok(Ok(seen)) = timeout(EVERY, Queue::look(&gauges.store, &mut pace, began)).await {
            queue = seen;
        }
        metrics::INBOX_WAIT_MS.set(queue.wait.as_millis() as i64);
        admission.look(gauges.seen(&queue));
    }
}

/// How long acknowledged deliveries wait for correlation.
#[derive(Default)]
struct Queue {
    /// The oldest one, until now.
    age: Duration,
    /// The newest one, from now on.
    wait: Duration,
}

impl Queue {
    async fn look(store: &Store, pace: &mut Pace, began: Instant) -> store::Result<Self> {
        let (waiting, oldest) = inbox::backlog(store).await?;
        let taken = inbox::taken(store).await?;
        // What was acknowledged before a standstill of ours is old, but no sign of too much.
        let age = oldest.map_or(Duration::ZERO, |at| clock::between(at, clock::now())).min(began.elapsed());
        Ok(Self { age, wait: pace.wait(Instant::now(), waiting, age, taken) })
    }
}

/// How fast correlation is when it has something to do all the time.
#[derive(Default)]
struct Pace {
    last: Option<(Instant, i64)>,
    /// How long, and how many alerts were taken meanwhile.
    spans: VecDeque<(Duration, i64)>,
}

impl Pace {
    /// How long the last of those that wait will wait. Zero as long as nothing is known: then their age tells.
    fn wait(&mut self, now: Instant, waiting: i64, age: Duration, taken: i64) -> Duration {
        let last = self.last.replace((now, taken));
        if waiting == 0 {
            self.spans.clear();
            return Duration::ZERO;
        }
        if let Some((then, before)) = last {
            let span = now.duration_since(then);
            // In an interval in which nothing waited for a while it was as fast as what came, and not as it can be.
            if age >= span {
                self.spans.push_back((span, taken - before));
                if self.spans.len() > REMEMBERED {
                    self.spans.pop_front();
                }
            }
        }
        let seconds: f64 = self.spans.iter().map(|(span, _)| span.as_secs_f64()).sum();
        let items: i64 = self.spans.iter().map(|(_, items)| items).sum();
        if items <= 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((waiting as f64 * seconds / items as f64).min(LONGEST))
    }
}

impl Gauges {
    fn seen(&self, queue: &Queue) -> Seen {
        let jobs_late = u64::try_from(metrics::JOBS_AGE_MS.get()).unwrap_or(0);
        Seen {
            inbox_age: queue.age,
            inbox_wait: queue.wait,
            commit_wait: self.committer.wait(),
            jobs_late: Duration::from_millis(jobs_late),
            bus_fill: self.bus_fill(),
            memory_bytes: resident().unwrap_or(0),
        }
    }
}

impl Gauges {
    /// The fullest bound of the fullest partition, as a share of it.
    fn bus_fill(&self) -> f64 {
        let parts = self.bus.partitions() as f64;
        let share = |held: u64, most: usize| held as f64 * parts / most.max(1) as f64;
        let (records, bytes) = self.bus_bounds;
        let fills = self.bus.status().partitions.into_iter();
        fills.map(|p| share(p.waiting, records).max(share(p.waiting_bytes, bytes))).fold(0.0, f64::max)
    }
}

/// Resident bytes of this process, as the kernel counts them.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look at every half second: what waits, how old it is, what was taken in all.
    fn waits(looks: &[(i64, u64, i64)]) -> Vec<u64> {
        let (begun, mut pace) = (Instant::now(), Pace::default());
        let wait = |(n, (waiting, age_ms, taken)): (u32, &(i64, u64, i64))| {
            pace.wait(begun + EVERY * n, *waiting, Duration::from_millis(*age_ms), *taken).as_secs()
        };
        (0..).zip(looks).map(wait).collect()
    }

    #[test]
    fn ten_times_too_much_is_seen_before_anything_is_old() {
        // A thousand a second are taken, ten thousand come.
        let looks = [(0, 0, 0), (4_500, 450, 500), (9_000, 900, 1_000), (13_500, 1_350, 1_500)];
        assert_eq!(waits(&looks), [0, 0, 9, 13]);
    }

    #[test]
    fn a_storm_after_a_quiet_time_is_judged_by_what_is_taken_in_the_storm() {
        let looks = [(0, 0, 10), (0, 0, 20), (2_000, 100, 30), (1_000, 600, 1_030), (0, 0, 2_030)];
        assert_eq!(waits(&looks), [0, 0, 0, 0, 0]);
    }

    #[test]
    fn of_a_queue_that_stands_still_the_age_tells() {
        assert_eq!(waits(&[(5, 0, 10), (9, 500, 10), (12, 1_000, 10)]), [0, 0, 0]);
    }

    #[test]
    fn this_process_has_a_size() {
        let bytes = super::resident().expect("Linux tells");
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }
}
