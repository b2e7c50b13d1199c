//! How fast each channel may be used, and which is paused because its provider asked for it.

use std::{collections::BTreeMap, collections::VecDeque, sync::Mutex, time::Duration};

use jiff::Timestamp;

use super::ChannelKind;
use crate::clock;

/// One lane for each channel. In memory: after a restart the providers say again what is too fast.
#[derive(Default)]
pub struct Lanes(Mutex<BTreeMap<ChannelKind, Lane>>);

#[derive(Default)]
struct Lane {
    paused_until: Option<Timestamp>,
    used: VecDeque<Timestamp>,
}

impl Lanes {
    /// Takes a slot at `now`, or says from when on there is one.
    pub fn enter(
        &self,
        kind: ChannelKind,
        limits: &[(usize, Duration)],
        now: Timestamp,
    ) -> Result<(), Timestamp> {
        let mut lanes = self.0.lock().expect("nothing panics under it");
        let lane = lanes.entry(kind).or_default();
        let free = lane.free(limits);
        if let Some(free) = free.filter(|free| *free > now) {
            return Err(free);
        }
        lane.paused_until = None;
        lane.used.push_back(now);
        let longest = limits.iter().map(|(count, _)| *count).max().unwrap_or(0);
        while lane.used.len() > longest {
            lane.used.pop_front();
        }
        Ok(())
    }

    /// From when on there is a slot; `None` if there always was one.
    pub fn free(&self, kind: ChannelKind, limits: &[(usize, Duration)]) -> Option<Timestamp> {
        self.0.lock().expect("nothing panics under it").get(&kind)?.free(limits)
    }

    /// The slot was not needed after all.
    pub fn give_back(&self, kind: ChannelKind) {
        if let Some(lane) = self.0.lock().expect("nothing panics under it").get_mut(&kind) {
            lane.used.pop_back();
        }
    }

    /// Nothing more on this lane before `until`.
    pub fn pause(&self, kind: ChannelKind, until: Timestamp) {
        let mut lanes = self.0.lock().expect("nothing panics under it");
        let lane = lanes.entry(kind).or_default();
        lane.paused_until = lane.paused_until.max(Some(until));
    }

    /// When the last pause of this lane ends, or ended.
    pub fn paused_until(&self, kind: ChannelKind) -> Option<Timestamp> {
        self.0.lock().expect("nothing panics under it").get(&kind)?.paused_until
    }
}

impl Lane {
    fn free(&self, limits: &[(usize, Duration)]) -> Option<Timestamp> {
        limits.iter().filter_map(|(count, per)| self.free_at(*count, *per)).chain(self.paused_until).max()
    }

    /// When `count` calls within `per` leave room for one more.
    fn free_at(&self, count: usize, per: Duration) -> Option<Timestamp> {
        let nth_last = self.used.len().checked_sub(count)?;
        Some(clock::after(*self.used.get(nth_last)?, per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &[(usize, Duration)] = &[(1, Duration::from_secs(1)), (3, Duration::from_secs(60))];

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("in range")
    }

    #[test]
    fn every_limit_holds() {
        let lanes = Lanes::default();
        let enter = |ms| lanes.enter(ChannelKind::Telegram, LIMITS, at(ms));
        assert_eq!(enter(0), Ok(()));
        assert_eq!(enter(500), Err(at(1000)));
        assert_eq!(enter(1000), Ok(()));
        assert_eq!(enter(2000), Ok(()));
        assert_eq!(enter(3000), Err(at(60_000)), "three in a minute");
        assert_eq!(enter(60_000), Ok(()));
    }

    #[test]
    fn a_pause_holds_one_lane_only() {
        let lanes = Lanes::default();
        lanes.pause(ChannelKind::Telegram, at(5000));
        assert_eq!(lanes.enter(ChannelKind::Telegram, LIMITS, at(0)), Err(at(5000)));
        assert_eq!(lanes.enter(ChannelKind::Slack, LIMITS, at(0)), Ok(()));
        assert_eq!(lanes.enter(ChannelKind::Telegram, LIMITS, at(5000)), Ok(()));
    }
}
