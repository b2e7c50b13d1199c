//! Measures what is too old or too full, about twice a second, for whoever decides what is taken and done.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::memory;
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
        metrics::INBOX_WAIT_MS.set(queue.wait.unwrap_or(queue.age).as_millis() as i64);
        admission.look(gauges.seen(&queue));
    }
}

/// How long acknowledged deliveries wait for correlation.
#[derive(Default)]
struct Queue {
    /// The oldest one, until now.
    age: Duration,
    /// The newest one, from now on, if that can be told.
    wait: Option<Duration>,
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
    /// How long the last of those that wait will wait. None as long as nothing is known: then their age tells.
    fn wait(&mut self, now: Instant, waiting: i64, age: Duration, taken: i64) -> Option<Duration> {
        let last = self.last.replace((now, taken));
        if waiting == 0 {
            self.spans.clear();
            return Some(Duration::ZERO);
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
            return None;
        }
        Some(Duration::from_secs_f64((waiting as f64 * seconds / items as f64).min(LONGEST)))
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
            bus_fill: self.bus.fill(),
            memory_bytes: memory::resident().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Level;

    /// A look at every half second: what waits, how old it is, what was taken in all.
    fn waits(looks: &[(i64, u64, i64)]) -> Vec<Option<u64>> {
        let (begun, mut pace) = (Instant::now(), Pace::default());
        let wait = |(n, (waiting, age_ms, taken)): (u32, &(i64, u64, i64))| {
            let wait = pace.wait(begun + EVERY * n, *waiting, Duration::from_millis(*age_ms), *taken);
            wait.map(|wait| wait.as_secs())
        };
        (0..).zip(looks).map(wait).collect()
    }

    #[test]
    fn ten_times_too_much_is_seen_before_anything_is_old() {
        // A thousand a second are taken, ten thousand come.
        let looks = [(0, 0, 0), (4_500, 450, 500), (9_000, 900, 1_000), (13_500, 1_350, 1_500)];
        assert_eq!(waits(&looks), [Some(0), None, Some(9), Some(13)]);
    }

    #[test]
    fn a_storm_after_a_quiet_time_is_judged_by_what_is_taken_in_the_storm() {
        let looks = [(0, 0, 10), (0, 0, 20), (2_000, 100, 30), (1_000, 600, 1_030), (0, 0, 2_030)];
        assert_eq!(waits(&looks), [Some(0), Some(0), None, Some(0), Some(0)]);
    }

    #[test]
    fn of_a_queue_that_stands_still_the_age_tells() {
        assert_eq!(waits(&[(5, 0, 10), (9, 500, 10), (12, 1_000, 10)]), [None, None, None]);
    }

    /// A flood, step by step: correlation takes a thousand a second, and so many times that comes.
    struct Flood {
        /// Share of the time of the flood in which correlation had nothing to do.
        idle: f64,
        /// The most that waited, in seconds of work.
        most: f64,
        /// Seconds from its end until all is normal.
        normal_after: f64,
    }

    fn flood(times: i64, lasts: u32) -> Flood {
        const STEP: Duration = Duration::from_millis(50);
        const PACE: i64 = 50;
        let (admission, mut pace, begun) = (Admission::default(), Pace::default(), Instant::now());
        let (mut queue, mut waiting, mut taken) = (VecDeque::new(), 0_i64, 0_i64);
        let (mut idle, mut most) = (0_u32, 0);
        let end = lasts * 20;
        for step in 0_u32.. {
            let now = begun + STEP * step;
            if step < end && admission.alerts(|| false).is_ok() {
                queue.push_back((now, times * PACE));
                waiting += times * PACE;
            }
            let mut room = PACE;
            while let Some((_, left)) = queue.front_mut().filter(|_| room > 0) {
                let part = room.min(*left);
                *left -= part;
                (room, waiting, taken) = (room - part, waiting - part, taken + part);
                if *left == 0 {
                    queue.pop_front();
                }
            }
            idle += u32::from(room > 0 && step < end);
            most = most.max(waiting);
            if step.is_multiple_of(10) {
                let inbox_age = queue.front().map_or(Duration::ZERO, |(came, _)| now - *came);
                let inbox_wait = pace.wait(now, waiting, inbox_age, taken);
                admission.look_at(Seen { inbox_age, inbox_wait, ..Seen::default() }, now);
            }
            if step >= end && waiting == 0 && admission.level() == Level::Normal {
                let share = f64::from(idle) / f64::from(end);
                let normal_after = f64::from(step - end) / 20.0;
                return Flood { idle: share, most: most as f64 / 1000.0, normal_after };
            }
        }
        unreachable!("the loop has no end")
    }

    #[test]
    fn in_a_flood_correlation_is_never_idle_and_a_minute_after_it_all_is_normal() {
        for times in [2, 3, 10, 30] {
            let longest = flood(times, 300);
            assert!(longest.idle < 0.01, "{times}: idle for {} of the time", longest.idle);
            // Wherever in its breathing the flood ends.
            for lasts in 60..90 {
                let Flood { most, normal_after, .. } = flood(times, lasts);
                assert!(most < 60.0 && normal_after < 60.0, "{times}, {lasts} s: {most}, {normal_after}");
            }
        }
    }
}
