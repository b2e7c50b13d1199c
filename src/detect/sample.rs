//! A bounded sample of what traces leave behind, minute by minute for an hour. What it leaves out is counted.
//!
//! What is kept are the traces with the lowest numbers (a hash of their identifier): when a minute is full, its bound falls by
//! half and those above it go. So a trace is kept or left out whatever happened in it, and shares of what is kept are shares of
//! what came (bottom-k sampling: Cohen & Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007).

use std::collections::{HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::metrics;

/// Something that a trace left.
pub trait OfTrace {
    /// A hash of the trace's identifier.
    fn trace(&self) -> u64;
}

/// The sample of one partition.
#[derive(Serialize, Deserialize)]
pub struct Sample<T> {
    /// Oldest first.
    pub minutes: VecDeque<Minute<T>>,
}

#[derive(Serialize, Deserialize)]
pub struct Minute<T> {
    pub number: i64,
    /// Traces with higher numbers are left out.
    pub bound: u64,
    /// What it shows of the call graph was told.
    pub told: bool,
    pub kept: Vec<T>,
    /// Traces of which only the beginning was kept.
    #[serde(default)]
    pub cut: Vec<u64>,
}

/// Which traces were kept whole.
pub struct Whole {
    /// Those with higher numbers were left out.
    pub bound: u64,
    /// Nor were these.
    pub cut: HashSet<u64>,
}

impl Default for Whole {
    /// All, as far as no sample tells otherwise.
    fn default() -> Self {
        Self { bound: u64::MAX, cut: HashSet::new() }
    }
}

impl Whole {
    pub fn has(&self, trace: u64) -> bool {
        place(trace) <= self.bound && !self.cut.contains(&trace)
    }
}

/// Minutes that are kept: a window, and what is usual before it.
const MINUTES: i64 = 60;
/// Part of a full minute that one trace may have, and what it keeps if it had more.
const MOST: usize = 8;
const BEGINNING: usize = 16;
/// Traces of a minute that may be cut.
const MAX_CUT: usize = 64;

impl<T> Default for Sample<T> {
    fn default() -> Self {
        Self { minutes: VecDeque::new() }
    }
}

impl<T: OfTrace> Sample<T> {
    /// Takes what was at `second`; of all no more than `max` are kept. Returns false if it is older than what is kept.
    pub fn add(&mut self, second: i64, item: T, max: usize) -> bool {
        let number = second.div_euclid(60);
        let newest = self.minutes.back().map_or(number, |m| m.number.max(number));
        if number <= newest - MINUTES {
            return false;
        }
        while self.minutes.front().is_some_and(|m| m.number <= newest - MINUTES) {
            self.minutes.pop_front();
        }
        let at = self.minutes.partition_point(|m| m.number < number);
        if self.minutes.get(at).is_none_or(|m| m.number != number) {
            self.minutes.insert(
                at,
                Minute { number, bound: u64::MAX, told: false, kept: Vec::new(), cut: Vec::new() },
            );
        }
        let minute = &mut self.minutes[at];
        if place(item.trace()) > minute.bound || minute.cut.contains(&item.trace()) {
            metrics::TRACES_LEFT_OUT.inc();
            return true;
        }
        minute.kept.push(item);
        minute.shrink_to((max / MINUTES as usize).max(1));
        true
    }

    /// Forgets what was after `second`.
    pub fn end_at(&mut self, second: i64) {
        while self.minutes.back().is_some_and(|m| m.number > second.div_euclid(60)) {
            self.minutes.pop_back();
        }
    }

    /// Of which traces everything from `second` on was kept, as far as this sample tells.
    pub fn narrow(&self, second: i64, whole: &mut Whole) {
        for minute in self.minutes.iter().filter(|m| m.number >= second.div_euclid(60)) {
            whole.bound = whole.bound.min(minute.bound);
            whole.cut.extend(&minute.cut);
        }
    }

    /// What is kept of traces that were kept whole.
    pub fn of<'a>(&'a self, whole: &'a Whole) -> impl Iterator<Item = &'a T> {
        self.minutes.iter().flat_map(|m| &m.kept).filter(|item| whole.has(item.trace()))
    }

    pub fn len(&self) -> usize {
        self.minutes.iter().map(|m| m.kept.len()).sum()
    }
}

impl<T: OfTrace> Minute<T> {
    fn shrink_to(&mut self, max: usize) {
        while self.kept.len() > max && self.bound > 0 {
            let before = self.kept.len();
            if !self.cut_the_largest(max) {
                self.bound /= 2;
                self.kept.retain(|item| place(item.trace()) <= self.bound);
            }
            metrics::TRACES_LEFT_OUT.inc_by((before - self.kept.len()) as u64);
        }
    }

    /// Keeps the beginning only of the largest trace, if that has more of the minute than it may.
    fn cut_the_largest(&mut self, max: usize) -> bool {
        let mut sizes: HashMap<u64, usize> = HashMap::new();
        self.kept.iter().for_each(|item| *sizes.entry(item.trace()).or_default() += 1);
        let largest = sizes.into_iter().max_by_key(|(trace, size)| (*size, *trace));
        let may = (max / MOST).max(MOST);
        let Some((trace, _)) = largest.filter(|l| l.1 > may && self.cut.len() < MAX_CUT) else {
            return false;
        };
        self.cut.push(trace);
        let mut seen = 0;
        self.kept.retain(|item| {
            seen += usize::from(item.trace() == trace);
            item.trace() != trace || seen <= max / BEGINNING
        });
        true
    }
}

/// The number of a trace, the same everywhere (the finaliser of splitmix64: identifiers may be anything).
fn place(trace: u64) -> u64 {
    let z = (trace ^ (trace >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl OfTrace for (u64, char) {
        fn trace(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn what_is_kept_are_whole_traces_within_the_bound() {
        let mut sample = Sample::default();
        for trace in 1..=1000 {
            assert!(sample.add(6000, (trace, 'a'), 6000));
            assert!(sample.add(6001, (trace, 'b'), 6000));
        }
        assert!((30..=100).contains(&sample.len()), "{}", sample.len());
        let all = Whole::default();
        let of = |side| sample.of(&all).filter(|i| i.1 == side).map(|i| i.0).collect::<Vec<_>>();
        assert_eq!(of('a'), of('b'));
        let mut whole = Whole::default();
        sample.narrow(0, &mut whole);
        let share = whole.bound as f64 / u64::MAX as f64;
        assert!((of('a').len() as f64 / 1000.0 / share - 1.0).abs() < 0.5, "a fair share");
    }

    #[test]
    fn an_hour_is_kept_and_nothing_older_taken() {
        let mut sample = Sample::default();
        assert!(sample.add(6000, (1, 'a'), 6000) && sample.add(159 * 60, (2, 'a'), 6000));
        assert_eq!(sample.len(), 2);
        assert!(sample.add(160 * 60, (3, 'a'), 6000));
        assert_eq!(sample.len(), 2);
        assert!(!sample.add(6000, (4, 'a'), 6000));
    }

    #[test]
    fn a_batch_job_of_one_trace_does_not_cost_the_others() {
        let mut sample = Sample::default();
        for n in 0..6000_i64 {
            assert!(sample.add(6000 + n / 100, (7, 'b'), 6000), "a hundred each second");
            if n % 100 == 0 {
                assert!(sample.add(6000 + n / 100, (1000 + n as u64, 'a'), 6000));
            }
        }
        let mut whole = Whole::default();
        sample.narrow(0, &mut whole);
        assert_eq!((whole.bound, sample.of(&whole).count()), (u64::MAX, 60), "all that is not the job's");
        assert!(!whole.has(7) && sample.len() < 70, "of the job its beginning");
    }
}
