//! Judges one metric series online: hands on when it leaves the range that it is usually in, and when it is back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::recent_values::RecentValues;

/// A value is far out when it is beyond everything seen lately by a margin, and many robust deviations from the median.
/// Three far values on one side in a row, or two very far ones, or one that is absurd, are an onset. So is a row of very far
/// ones that have been seen before, if by its length it is no such row (`up` was 0 for a moment an hour ago).
#[derive(Serialize, Deserialize)]
pub struct Metric {
    usual: RecentValues,
    /// What came since the onset, or is suspected: the new normal, perhaps.
    fresh: RecentValues,
    run: Run,
    open: Option<Open>,
    /// Grows with every onset beyond the false-alarm budget and shrinks with the days.
    margin: f64,
}

#[derive(Default, Serialize, Deserialize)]
struct Run {
    side: i8,
    count: u32,
    /// How many of them, the last ones, were beyond everything seen.
    beyond: u32,
    weakest: f64,
    strongest: f64,
    /// The value of the run that is nearest to the median.
    nearest: f64,
}

/// What one value is, compared with the past.
struct Judgement {
    /// 1 or −1: far out on that side; 0: not.
    side: i8,
    /// Farther out than anything seen, by the margin.
    beyond: bool,
    /// Robust deviations from the median.
    score: f64,
}

#[derive(Serialize, Deserialize)]
struct Open {
    since_us: i64,
    low: f64,
    high: f64,
    inside: u32,
    extreme: f64,
}

/// What a detector of values has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricVerdict {
    Onset { value: f64, low: f64, high: f64, detail: Value },
    End { detail: Value },
}

/// Values before anything is judged; few enough that a fresh service is watched within seconds.
const LEARN: usize = 8;
const FAR: f64 = 4.0;
const VERY_FAR: f64 = 8.0;
/// A single value is believed only when so many deviations and so many whole ranges away from what was seen.
const ABSURD: f64 = 15.0;
const ABSURD_RANGES: f64 = 3.0;
const ABSURD_LEARNED: usize = 30;
/// Share of the range seen that a value must go beyond it.
const MARGIN: f64 = 0.3;
/// A change smaller than a fiftieth (4 × 0.5 %) of the level is noise to the people on call, however regular the series.
const FLOOR: f64 = 0.005;
/// Values back in range that end an anomaly.
const CALM: u32 = 5;
/// Once in four months of samples, one each second.
const IMPROBABLE: f64 = 1e-7;
const DAY_US: f64 = 86_400e6;

impl Default for Metric {
    fn default() -> Self {
        Self {
            usual: RecentValues::default(),
            fresh: RecentValues::default(),
            run: Run::default(),
            open: None,
            margin: MARGIN,
        }
    }
}

impl Metric {
    /// Takes the next value, in order of time (microseconds since the epoch). `adapt_us`: how long a change must last to be
    /// the new normal; `budget`: onsets a day that are nobody's false alarm.
    pub fn push(&mut self, at_us: i64, value: f64, adapt_us: i64, budget: f64) -> Option<MetricVerdict> {
        if self.open.is_some() {
            return self.during(at_us, value, adapt_us);
        }
        if self.usual.len() < LEARN {
            self.usual.push(value);
            return None;
        }
        let Judgement { side, beyond, score } = self.judge(value);
        if side == 0 || side != self.run.side {
            // What was only a spike is part of the picture.
            self.usual.append(&mut self.fresh);
            self.run = Run { side, weakest: f64::INFINITY, ..Run::default() };
        }
        if side == 0 {
            self.usual.push(value);
            return None;
        }
        self.run.count += 1;
        self.run.beyond = if beyond { self.run.beyond + 1 } else { 0 };
        if score < self.run.weakest {
            (self.run.weakest, self.run.nearest) = (score, value);
        }
        self.run.strongest = self.run.strongest.max(score);
        self.fresh.push(value);
        let reason = self.reason(value)?;
        Some(self.onset(at_us, value, reason, budget))
    }

    /// The range that values are usually in; none while too few were seen.
    pub fn range(&self) -> Option<(f64, f64)> {
        if let Some(open) = &self.open {
            return Some((open.low, open.high));
        }
        (self.usual.len() >= LEARN).then(|| self.usual.range())
    }

    fn judge(&self, value: f64) -> Judgement {
        let (low, high) = self.usual.extremes();
        let (slack, score) = (self.margin * (high - low), self.score(value));
        let beyond = value > high + slack || value < low - slack;
        let far = score >= if beyond { FAR } else { VERY_FAR };
        let side = match far {
            true if value > self.usual.median() => 1,
            true => -1,
            false => 0,
        };
        Judgement { side, beyond, score }
    }

    /// Few values know their own spread badly: their deviation is taken for larger.
    fn score(&self, value: f64) -> f64 {
        let median = self.usual.median();
        let floor = (FLOOR * median.abs()).max(1e-9);
        let deviation = self.usual.deviation().max(floor) * (1.0 + 6.0 / self.usual.len() as f64);
        (value - median).abs() / deviation
    }

    fn reason(&self, value: f64) -> Option<&'static str> {
        let (low, high) = self.usual.extremes();
        let beyond = (value - high).max(low - value);
        let absurd = self.run.strongest >= ABSURD
            && self.usual.len() >= ABSURD_LEARNED
            && low < high
            && beyond > ABSURD_RANGES * (high - low);
        match self.run {
            Run { beyond: 2.., weakest, .. } if weakest >= VERY_FAR && low == high => {
                Some("left its constant")
            }
            Run { beyond: 2.., weakest, .. } if weakest >= VERY_FAR => Some("level shift"),
            Run { beyond: 3.., .. } => Some("level shift"),
            _ if absurd => Some("spike"),
            _ => self.outlasts().then_some("longer than it ever was"),
        }
    }

    /// True if a row of such values is improbable by how often they came, one by one, and longer than such rows were.
    fn outlasts(&self) -> bool {
        let Run { count, weakest, side, nearest, .. } = self.run;
        if count < 5 || weakest < VERY_FAR {
            return false;
        }
        let alike = |v: f64| if side > 0 { v >= nearest } else { v <= nearest };
        let (mut seen, mut row, mut longest) = (0_u32, 0_u32, 0_u32);
        for value in self.usual.in_time() {
            row = if alike(value) { row + 1 } else { 0 };
            seen += u32::from(row > 0);
            longest = longest.max(row);
        }
        let share = f64::from(seen + 1) / (self.usual.len() + 1) as f64;
        f64::from(count) * share.ln() < IMPROBABLE.ln() && count > 3 * longest + 1
    }

    fn onset(&mut self, at_us: i64, value: f64, reason: &str, budget: f64) -> MetricVerdict {
        let (low, high) = self.usual.range();
        // Each onset makes the next one harder, and a day within the budget makes up for it.
        self.margin += MARGIN / budget.max(0.1) / 2.0;
        let detail = json!({
            "reason": reason, "direction": if self.run.side > 0 { "up" } else { "down" }, "value": value,
            "expected": { "low": low, "high": high }, "median": self.usual.median(),
            "score": (self.run.strongest.min(1e6) * 10.0).round() / 10.0, "baseline_values": self.usual.len(),
        });
        self.open = Some(Open { since_us: at_us, low, high, inside: 0, extreme: value });
        self.run = Run::default();
        MetricVerdict::Onset { value, low, high, detail }
    }

    fn during(&mut self, at_us: i64, value: f64, adapt_us: i64) -> Option<MetricVerdict> {
        let inside = self.judge(value).side == 0;
        let median = self.usual.median();
        let open = self.open.as_mut()?;
        if (value - median).abs() > (open.extreme - median).abs() {
            open.extreme = value;
        }
        open.inside = if inside { open.inside + 1 } else { 0 };
        let (extreme, calm, lasting) = (open.extreme, open.inside >= CALM, at_us - open.since_us >= adapt_us);
        self.fresh.push(value);
        if !calm && !lasting {
            return None;
        }
        self.open = None;
        let fresh = std::mem::take(&mut self.fresh);
        let ended = if calm {
            "back in its range"
        } else {
            self.usual = fresh;
            "this level is usual now"
        };
        Some(MetricVerdict::End { detail: json!({ "ended": ended, "extreme": extreme, "last": value }) })
    }

    /// Lets the caution after past onsets fade: a day brings half of it back.
    pub fn fade(&mut self, elapsed_us: i64) {
        let share = (elapsed_us.max(0) as f64 / DAY_US * std::f64::consts::LN_2).min(1.0);
        self.margin -= (self.margin - MARGIN) * share;
    }

    /// Forgets suspicions: the series was away, or its counter began anew.
    pub fn interrupted(&mut self) {
        if self.open.is_none() {
            self.fresh = RecentValues::default();
            self.run = Run::default();
        }
    }

    /// Ends what is open because nothing more will be heard.
    pub fn abandon(&mut self) -> Option<MetricVerdict> {
        self.open.take().map(|_| {
            let ended = "the series stopped; nobody knows whether it recovered";
            MetricVerdict::End { detail: json!({ "ended": ended }) }
        })
    }
}
