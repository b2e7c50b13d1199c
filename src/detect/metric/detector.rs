//! The streams of evidence of one series, and their sum.

use serde::{Deserialize, Serialize};

use super::{
    Onset, Reason,
    distribution::Distribution,
    pattern::Patterns,
    tail::{STREAMS, Tails},
    week::Week,
    young::Young,
};

/// Nats of a kind of evidence that are not evidence yet: a maximum that comes once in e blocks.
const USUAL: f32 = 1.0;
/// Nats beyond which a tail is not known: no kind counts for more, nor holds others back for longer. Without it a first
/// change in a calm stretch is worth thousands.
const CERTAIN: f32 = 10.0;
/// Nats of evidence that make an onset, where the longest block is as long as it may be.
const THRESHOLD: f32 = 4.0;
/// However small the budget and young the series, what is certain by two kinds of evidence is an onset.
const MOST: f32 = 16.0;
/// Values of the longest block at `REFERENCE_S` between values, and more if they come faster: a block is most of a day, so
/// that the threshold is one rate of false alarms a day.
const LONGEST_BLOCK: f32 = 256.0;
const REFERENCE_S: f32 = 300.0;
/// Doublings of the longest block: one second between values, about.
const MOST_DOUBLINGS: f32 = 8.0;
/// Values without another onset, or the time of so many at `REFERENCE_S` if that is shorter: an incident is told once, not at
/// every sample.
const QUIET: f32 = 130.0;
/// Values, or time as above, in which the strength that a new onset must exceed, the last one's, falls to 1/e.
const HOLD: f32 = 200.0;
/// Values that only the rule for young series judges.
const WARM: u32 = 100;
/// Values of the mean that a single value is compared with.
const MEAN: f32 = 8.0;
/// Values of the means that are each compared with the mean of eight times as many.
const LEVELS: [u16; 2] = [4, 16];
const LONGER: f32 = 8.0;
/// Values of the mean deviation that is compared with the one of eight times as many.
const SPREAD: f32 = 32.0;
/// Values over which the deviation from the usual at this hour is averaged.
const SEASON: f32 = 6.0;
/// Share of the range seen that is forgotten with each value.
const FORGET: f32 = 0.0005;
/// Equal values in a row after which a single other one proves nothing.
const CONSTANT: u8 = 32;
/// Rounding errors of `f32`, relative to the values; and what means nothing in a stream without a unit.
const GRAIN: f32 = 1e-6;
const UNITLESS_GRAIN: f32 = 1e-3;
/// Beyond this, differences would overflow.
const LARGEST: f64 = 1e30;

/// What speaks for an anomaly. Streams of one kind say the same in several ways: the strongest counts.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Value,
    Level,
    Spread,
    Season,
    Pattern,
    Distribution,
}

const KINDS: usize = 6;

/// The kind of each stream. Up to `FIRST_NEITHER`, a stream that looks up is followed by the one that looks down.
#[rustfmt::skip]
const KIND_OF: [Kind; STREAMS] = [
    Kind::Value, Kind::Value, Kind::Level, Kind::Level, Kind::Level, Kind::Level,
    Kind::Spread, Kind::Spread, Kind::Season, Kind::Season,
    Kind::Value, Kind::Pattern, Kind::Distribution, Kind::Spread,
];
const FIRST_LEVEL: usize = 2;
/// The value beyond all seen.
const FIRST_NEITHER: usize = 10;
/// How many of the last values were equal.
const RUN: usize = 13;
/// Equal values in a row that a nat takes at least: the next equal one is no more of a surprise than where three in five values
/// repeat the last.
const REPEATS: f32 = 2.0;

/// What one value is, compared with the past.
pub struct Judgement {
    /// Nats beyond the usual, summed over the kinds.
    pub evidence: f32,
    /// What makes it an onset.
    pub threshold: f32,
    pub onset: Option<Onset>,
}

/// All that is remembered to judge a series.
#[derive(Clone, Serialize, Deserialize)]
pub struct Detector {
    /// The first value: all others are relative to it, so that a large offset costs no precision.
    origin: f64,
    values: u32,
    last: f32,
    /// How many of the last values were equal.
    same: u8,
    /// A single other value of a constant series, held back until the next says whether it means something; NaN if none is.
    odd: f32,
    mean: f32,
    short: [f32; LEVELS.len()],
    long: [f32; LEVELS.len()],
    deviation: f32,
    usual_deviation: f32,
    week: Week,
    off_season: f32,
    low: f32,
    high: f32,
    patterns: Patterns,
    distribution: Distribution,
    tails: Tails,
    /// Until `WARM` values are known.
    young: Option<Box<Young>>,
    quiet: f32,
    held: f32,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            origin: 0.0,
            values: 0,
            last: 0.0,
            same: 0,
            odd: f32::NAN,
            mean: 0.0,
            short: [0.0; LEVELS.len()],
            long: [0.0; LEVELS.len()],
            deviation: 0.0,
            usual_deviation: 0.0,
            week: Week::default(),
            off_season: 0.0,
            low: 0.0,
            high: 0.0,
            patterns: Patterns::default(),
            distribution: Distribution::default(),
            tails: Tails::default(),
            young: Some(Box::default()),
            quiet: 0.0,
            held: 0.0,
        }
    }
}

/// What was usual before a value came.
struct Before {
    mean: f32,
    long: [f32; LEVELS.len()],
    hour: Option<f32>,
    seen: (f32, f32),
    young: Option<(f32, f32)>,
}

impl Detector {
    /// Takes the next value, which is finite. `at_s`: seconds since the epoch, for the hour of the day. `interval_s`: usually
    /// between values. `strict`: nats beyond the threshold that an onset needs, of which `caution` after others.
    pub fn push(&mut self, at_s: i64, value: f64, interval_s: f32, strict: f32, caution: f32) -> Judgement {
        if self.values == 0 {
            self.origin = value;
        }
        let x = (value - self.origin).clamp(-LARGEST, LARGEST) as f32;
        let pace = Pace { at_s, interval_s, strict, caution };
        let constant = self.same >= CONSTANT;
        let odd = std::mem::replace(&mut self.odd, f32::NAN);
        match (!odd.is_nan()).then_some(odd) {
            None if constant && x != self.last => {
                self.odd = x;
                Judgement { evidence: 0.0, threshold: self.threshold(&pace), onset: None }
            }
            Some(odd) if x != self.last => {
                let first = self.judge(odd, &pace);
                let second = self.judge(x, &pace);
                Judgement { onset: first.onset.or(second.onset), ..second }
            }
            _ => self.judge(x, &pace),
        }
    }

    fn judge(&mut self, x: f32, pace: &Pace) -> Judgement {
        let before = self.before(pace.at_s);
        self.same = if x == self.last { self.same.saturating_add(1) } else { 1 };
        self.last = x;
        let young = self.young.as_mut().is_some_and(|young| young.push(x, self.origin, pace.caution));
        let streams = self.streams(pace.at_s, x, before.hour);
        let nats = self.tails.nats(&streams, &self.grains(x));
        let (evidence, leading) = weigh(&nats);
        let threshold = self.threshold(pace);
        let starts = self.starts(evidence, threshold, young, pace);
        self.tails.push(&streams, pace.longest_block());
        self.values = self.values.saturating_add(1);
        if self.values == WARM {
            self.young = None;
        }
        let onset = starts.then(|| match young {
            true => self.young_onset(x, &before),
            false => self.onset(leading, x, &before),
        });
        Judgement { evidence, threshold, onset }
    }

    fn threshold(&self, pace: &Pace) -> f32 {
        (THRESHOLD + self.tails.youth(LONGEST_BLOCK, pace.longest_block() as f32) + pace.strict).min(MOST)
    }

    /// The range that values are usually in; none while too few were seen.
    pub fn range(&self) -> Option<(f64, f64)> {
        let (low, high) = match &self.young {
            Some(young) => young.range()?,
            None => (self.mean - self.reach(1), self.mean + self.reach(0)),
        };
        Some((self.real(low), self.real(high)))
    }

    /// Samples were lost.
    pub fn interrupted(&mut self) {
        self.young.iter_mut().for_each(|young| young.interrupted());
    }

    /// A change has lasted: what streams usually reach is learned anew, from short blocks on.
    pub fn adapt(&mut self) {
        self.tails = Tails::default();
    }

    fn before(&self, at_s: i64) -> Before {
        Before {
            mean: self.mean,
            long: self.long,
            hour: self.week.usual(at_s),
            seen: (self.low, self.high),
            young: self.young.as_ref().and_then(|young| young.range()),
        }
    }

    /// What each stream says of this value, in units of the series or without a unit; learns. `usual`: at this hour.
    fn streams(&mut self, at_s: i64, x: f32, usual: Option<f32>) -> [f32; STREAMS] {
        let known = self.values as f32 + 1.0;
        let entropy = self.distribution.push(x, self.values);
        let fenced = self.distribution.fenced(x, self.values);
        let off_mean = x - self.mean;
        self.mean += off_mean / MEAN.min(known);
        let beyond = self.beyond_range(x);
        let [short, long] = self.levels([x, fenced], known);
        let spread = self.spread(off_mean.abs(), known);
        let season = self.season(usual.map_or(0.0, |usual| fenced - usual));
        if self.week.push(at_s, fenced) {
            self.tails.renew_season();
        }
        let pattern = self.patterns.push(fenced);
        [
            off_mean,
            -off_mean,
            short,
            -short,
            long,
            -long,
            spread,
            -spread,
            season,
            -season,
            beyond,
            pattern,
            entropy,
            f32::from(self.same),
        ]
    }

    /// Differences that mean nothing: rounding errors, or thousandths where a stream has no unit; a few equal values.
    fn grains(&self, x: f32) -> [f32; STREAMS] {
        let grain = GRAIN * (self.high - self.low).max(x.abs());
        let mut grains = KIND_OF.map(|kind| match kind {
            Kind::Spread | Kind::Distribution => UNITLESS_GRAIN,
            _ => grain,
        });
        grains[RUN] = REPEATS;
        grains
    }

    /// How far outside of all seen, which is forgotten slowly; negative inside.
    fn beyond_range(&mut self, x: f32) -> f32 {
        let beyond = (x - self.high).max(self.low - x);
        let forgotten = FORGET * (self.high - self.low);
        self.high = self.high.max(x) - forgotten;
        self.low = self.low.min(x) + forgotten;
        beyond
    }

    fn levels(&mut self, x: [f32; LEVELS.len()], known: f32) -> [f32; LEVELS.len()] {
        std::array::from_fn(|i| {
            let values = f32::from(LEVELS[i]);
            self.short[i] += (x[i] - self.short[i]) / values.min(known);
            let step = self.short[i] - self.long[i];
            self.long[i] += (x[i] - self.long[i]) / (LONGER * values).min(known);
            step
        })
    }

    /// Logarithm of the recent deviation over the usual.
    fn spread(&mut self, off: f32, known: f32) -> f32 {
        self.deviation += (off - self.deviation) / SPREAD.min(known);
        self.usual_deviation += (off - self.usual_deviation) / (LONGER * SPREAD).min(known);
        ((self.deviation + f32::MIN_POSITIVE) / (self.usual_deviation + f32::MIN_POSITIVE)).ln()
    }

    /// `off`: how far from the usual at this hour.
    fn season(&mut self, off: f32) -> f32 {
        self.off_season += (off - self.off_season) / SEASON;
        self.off_season
    }

    fn starts(&mut self, evidence: f32, threshold: f32, young: bool, pace: &Pace) -> bool {
        let unit = pace.unit();
        self.held -= self.held * unit / HOLD;
        let enough = evidence >= threshold && self.values >= WARM;
        let starts = young || (enough && evidence >= self.held && self.quiet <= 0.0);
        self.quiet = if starts { QUIET } else { (self.quiet - unit).max(0.0) };
        if enough {
            self.held = self.held.max(evidence);
        }
        starts
    }

    fn real(&self, x: f32) -> f64 {
        self.origin + f64::from(x)
    }

    /// How far single values usually get from their mean, upwards (0) or downwards (1).
    fn reach(&self, stream: usize) -> f32 {
        self.tails.value_at(stream, USUAL).unwrap_or(0.0).max(0.0)
    }

    fn young_onset(&self, x: f32, before: &Before) -> Onset {
        let (low, high) = before.young.unwrap_or((before.mean, before.mean));
        let direction = if x > high { 1 } else { -1 };
        let (value, low, high) = (self.real(x), self.real(low), self.real(high));
        Onset { value, low, high, direction, reason: Reason::LeftRange }
    }

    fn onset(&self, stream: usize, x: f32, before: &Before) -> Onset {
        let kind = KIND_OF[stream];
        let level = (stream - FIRST_LEVEL.min(stream)) / 2;
        let usual_now = before.hour.unwrap_or(before.mean);
        let center = match kind {
            Kind::Level => before.long[level],
            Kind::Season => usual_now,
            _ => before.mean,
        };
        let up = match stream {
            FIRST_NEITHER => x > before.mean,
            _ => stream.is_multiple_of(2),
        };
        let direction = match kind {
            Kind::Pattern | Kind::Distribution => 0,
            _ if stream == RUN => 0,
            _ if up => 1,
            _ => -1,
        };
        let reason = match kind {
            Kind::Value => Reason::LeftRange,
            Kind::Level => Reason::Level {
                now: self.real(self.short[level]),
                before: self.real(before.long[level]),
                values: LEVELS[level],
            },
            Kind::Spread if stream == RUN => Reason::Still { values: self.same },
            Kind::Spread => Reason::Swings,
            Kind::Season => Reason::Hour { usual: self.real(usual_now) },
            Kind::Pattern => Reason::Course,
            Kind::Distribution => Reason::Distribution,
        };
        let (low, high) = match stream {
            FIRST_NEITHER => before.seen,
            _ => (center - self.reach(1), center + self.reach(0)),
        };
        let (low, high) = (self.real(low), self.real(high));
        Onset { value: self.real(x), low, high, direction, reason }
    }
}

/// How a value is judged.
struct Pace {
    at_s: i64,
    interval_s: f32,
    strict: f32,
    caution: f32,
}

impl Pace {
    fn longest_block(&self) -> u32 {
        let doublings = (REFERENCE_S / self.interval_s.max(1e-3)).log2().round().clamp(0.0, MOST_DOUBLINGS);
        (LONGEST_BLOCK * doublings.exp2()) as u32
    }

    /// The values at `REFERENCE_S` that one value's time is worth.
    fn unit(&self) -> f32 {
        (self.interval_s / REFERENCE_S).clamp(1.0, 10.0)
    }
}

/// Nats beyond the usual, summed over the kinds (Fisher's method without weights), and the stream with the most.
fn weigh(nats: &[f32; STREAMS]) -> (f32, usize) {
    let mut kinds = [0.0_f32; KINDS];
    let mut leading = 0;
    for i in 0..STREAMS {
        let kind = &mut kinds[KIND_OF[i] as usize];
        *kind = kind.max(nats[i].min(CERTAIN) - USUAL);
        if nats[i] > nats[leading] {
            leading = i;
        }
    }
    (kinds.iter().sum(), leading)
}
