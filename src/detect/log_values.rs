//! Finds a number in a template whose distribution has changed: durations that grew tenfold, sizes that fell to nothing.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    share::Share,
    stats::BetaBinomial,
    template_detector::{Closed, Line, PLACES, TemplateDetector, Verdict},
};
use crate::model::{LogLevel, Phrase, Severity};

/// Compares the numbers of a window with those before, in half octaves: it tells when most of them lie at least an octave
/// beyond nine tenths of what is usual, and so many would by chance be there less often than the budget allows. Windows are
/// told apart by when their lines arrive.
#[derive(Default, Serialize, Deserialize)]
pub struct LogValues {
    /// The first variables; those that are numbers have a place.
    places: Vec<Option<Box<Place>>>,
    /// Seconds since the last judgement.
    seconds: u32,
}

/// One variable of the template.
#[derive(Default, Serialize, Deserialize)]
struct Place {
    usual: Histogram,
    now: Histogram,
    /// The share of values above the usual median: a half, unless they grow or fall all the time; and how alike those of one
    /// window are.
    above: Share,
    /// The shares of values far under and far above what is usual.
    far: [Share; 2],
    /// The window before, not learned yet: if the next one is shifted, it may be half so.
    held: Option<Histogram>,
    /// The last window, if it was shifted: one alone may be a single event of many lines.
    shifted: Option<Histogram>,
    /// One line whose value was unusual.
    sample: Option<String>,
    open: Option<Open>,
}

#[derive(Serialize, Deserialize)]
struct Open {
    since: i64,
    /// Buckets that are usual.
    range: (u8, u8),
}

/// Values that make a window worth judging, windows that are waited for them, and values that make a baseline.
const ENOUGH: f32 = 10.0;
const WINDOWS: u32 = 6;
const KNOWN: f32 = 200.0;
/// Half octaves beyond nine tenths of what is usual.
const FAR: u8 = 2;
/// The share above the usual median of what stays where it was.
const STAYS: std::ops::RangeInclusive<f64> = 0.1..=0.9;
/// Values after which the past has faded to a third.
const MEMORY: f32 = 20_000.0;

impl TemplateDetector for LogValues {
    fn line(&mut self, line: &Line<'_>) -> Option<Verdict> {
        if self.places.len() < line.numbers.len() && line.numbers.iter().any(Option::is_some) {
            self.places.resize_with(line.numbers.len(), Option::default);
        }
        for (place, number) in self.places.iter_mut().zip(line.numbers) {
            let Some(number) = number else { continue };
            let (place, bucket) = (place.get_or_insert_default(), bucket(*number));
            place.now.add(bucket, 1.0);
            if place.sample.is_none() && place.usual.total >= KNOWN {
                let (low, high) = place.usual.range();
                let far = bucket >= high.saturating_add(FAR) || bucket.saturating_add(FAR) <= low;
                place.sample = far.then(|| line.sample());
            }
        }
        None
    }

    fn merged(&mut self) {
        let told = |place: &Option<Box<Place>>| place.as_ref().is_some_and(|place| place.open.is_some());
        self.places.iter_mut().filter(|place| !told(place)).for_each(|place| *place = None);
    }

    fn second(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        self.seconds += 1;
        if self.places.is_empty() || !self.seconds.is_multiple_of(closed.window()) {
            return None;
        }
        let waited = self.seconds >= WINDOWS * closed.window();
        if waited {
            self.seconds = 0;
        }
        let mut open = self.places.iter().flatten().any(|place| place.open.is_some());
        let mut told = None;
        for (i, place) in self.places.iter_mut().enumerate() {
            let Some(place) = place.as_mut().filter(|place| place.now.total >= ENOUGH || waited) else {
                continue;
            };
            if let Some(verdict) = place.judge(i + 1, !open, closed) {
                (open, told) = (true, Some(verdict));
            }
        }
        told
    }
}

impl LogValues {
    /// What was usual for a whole is not for its parts.
    pub fn part(&self) -> Self {
        Self::default()
    }
}

impl Place {
    /// `may_begin`: no other variable of the template is told of.
    fn judge(&mut self, number: usize, may_begin: bool, closed: &Closed<'_>) -> Option<Verdict> {
        let now = std::mem::take(&mut self.now);
        let sample = self.sample.take();
        if let Some(open) = &self.open {
            let (low, high) = open.range;
            let back = now.total >= ENOUGH && (low.saturating_sub(1)..=high + 1).contains(&now.quantile(0.5));
            let lasting = closed.second - open.since >= closed.settings.adapt_after.as_secs() as i64;
            if !back && !lasting {
                return None;
            }
            self.open = None;
            if lasting {
                *self = Self::default();
            }
            let reason = if lasting { "these values are usual now" } else { "back to the usual values" };
            // The rate did not change: its baseline stays.
            return Some(Verdict::End { detail: json!({ "ended": reason }), adapt: false });
        }
        if !may_begin || self.shift(&now, closed).is_none() {
            let before = [self.held.replace(now), self.shifted.take()];
            before.into_iter().flatten().for_each(|window| self.learn(&window));
            return None;
        }
        let Some(mut both) = self.shifted.take() else {
            (self.shifted, self.sample) = (Some(now), sample);
            return None;
        };
        now.buckets.iter().for_each(|(bucket, n)| both.add(*bucket, *n));
        self.held = None;
        self.open = Some(Open { since: closed.second, range: self.usual.range() });
        Some(self.onset(number, &both, sample, closed))
    }

    fn learn(&mut self, window: &Histogram) {
        if self.usual.total >= KNOWN {
            let (low, high) = self.usual.range();
            let hits = [window.under(low), window.over(high), window.rank(self.usual.quantile(0.5))];
            let [far_low, far_high] = &mut self.far;
            for (share, hits) in [far_low, far_high, &mut self.above].into_iter().zip(hits) {
                share.fold(hits as u64, window.total as u64);
            }
        }
        self.usual.fold(window);
    }

    /// Is what most values are now less probable than the budget allows? Of what never stays where it was (an identifier, a
    /// time) nobody can say.
    fn shift(&self, now: &Histogram, closed: &Closed<'_>) -> Option<()> {
        let stays = self.above.lines() >= f64::from(KNOWN) && STAYS.contains(&self.above.usual());
        if now.total < ENOUGH || !stays {
            return None;
        }
        let (low, high) = self.usual.range();
        let median = now.quantile(0.5);
        let (hits, usual, far) = if median >= high.saturating_add(FAR) {
            (now.over(high), self.usual.over(high), &self.far[1])
        } else if median.saturating_add(FAR) <= low {
            (now.under(low), self.usual.under(low), &self.far[0])
        } else {
            return None;
        };
        let evidence = f64::from(self.usual.total) + 1.0;
        let share = (f64::from(usual) + 0.5) / evidence;
        let alike = self.above.correlation().max(far.correlation());
        let expected = BetaBinomial::new(now.total as u64, share, evidence, alike);
        let tries =
            86_400.0 / f64::from(closed.window()) * 2.0 * PLACES as f64 * closed.source.templates as f64;
        (expected.tail(hits as u64) < closed.false_alarms() / tries).then_some(())
    }

    fn onset(&self, number: usize, now: &Histogram, sample: Option<String>, closed: &Closed<'_>) -> Verdict {
        let text = closed.template.text();
        let (usual, seen) = (self.usual.range(), now.range());
        let said = |range: (u8, u8)| (shown(edge(range.0)), shown(edge(range.1 + 1)));
        let ((low, high), (usual_low, usual_high)) = (said(seen), said(usual));
        Verdict::Onset {
            severity: if closed.template.level < LogLevel::Warn { Severity::Info } else { Severity::Warning },
            title: Phrase::LogValues {
                template: text.clone(),
                place: number.to_string(),
                low: low.clone(),
                high: high.clone(),
                usual_low: usual_low.clone(),
                usual_high: usual_high.clone(),
            },
            detail: json!({
                "template": text, "level": closed.template.level,
                "sample": sample.unwrap_or_else(|| closed.template.sample()),
                "value": number, "count": now.total, "seen": { "low": low, "high": high },
                "expected": { "low": usual_low, "high": usual_high }, "baseline_values": self.usual.total.round(),
            }),
            started: closed.second + 1 - 2 * i64::from(closed.window()),
        }
    }
}

/// Counts by half octave; few are not zero.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Histogram {
    total: f32,
    /// Ascending.
    buckets: Vec<(u8, f32)>,
}

impl Histogram {
    fn add(&mut self, bucket: u8, n: f32) {
        self.total += n;
        match self.buckets.binary_search_by_key(&bucket, |b| b.0) {
            Ok(at) => self.buckets[at].1 += n,
            Err(at) => self.buckets.insert(at, (bucket, n)),
        }
    }

    /// Adds newer values; older ones fade.
    fn fold(&mut self, newer: &Self) {
        let keep = 1.0 - (newer.total / MEMORY).min(0.5);
        self.total *= keep;
        self.buckets.iter_mut().for_each(|b| b.1 *= keep);
        newer.buckets.iter().for_each(|(bucket, n)| self.add(*bucket, *n));
    }

    /// Values far above this bucket, and far under it.
    fn over(&self, high: u8) -> f32 {
        self.above(high.saturating_add(FAR - 1))
    }
    fn under(&self, low: u8) -> f32 {
        self.buckets.iter().filter(|b| b.0.saturating_add(FAR) <= low).map(|b| b.1).sum()
    }

    /// Values in higher buckets than this.
    fn above(&self, bucket: u8) -> f32 {
        self.buckets.iter().filter(|b| b.0 > bucket).map(|b| b.1).sum()
    }

    /// Values in higher buckets, and half of those in this one.
    fn rank(&self, bucket: u8) -> f32 {
        let own = self.buckets.iter().find(|b| b.0 == bucket).map_or(0.0, |b| b.1);
        self.above(bucket) + own / 2.0
    }

    fn quantile(&self, q: f32) -> u8 {
        let mut sum = 0.0;
        let reached = |b: &&(u8, f32)| {
            sum += b.1;
            sum >= q * self.total
        };
        self.buckets.iter().find(reached).or(self.buckets.last()).map_or(0, |b| b.0)
    }

    /// From a tenth to nine tenths.
    fn range(&self) -> (u8, u8) {
        (self.quantile(0.1), self.quantile(0.9))
    }
}

/// The exponent and the first bit after it, of 2⁻⁸ to 2⁵⁶; 0 for what is smaller.
fn bucket(value: f64) -> u8 {
    let half_octaves = (value.to_bits() >> 51) as i64 - 2 * (1023 - 8);
    if value > 0.0 { (half_octaves + 1).clamp(0, 128) as u8 } else { 0 }
}

/// Where a bucket begins.
fn edge(bucket: u8) -> f64 {
    let (octave, half) = ((i32::from(bucket) - 1).div_euclid(2), (i32::from(bucket) - 1).rem_euclid(2));
    if bucket == 0 { 0.0 } else { 2_f64.powi(octave - 8) * (1.0 + 0.5 * f64::from(half)) }
}

/// Two digits that count.
fn shown(value: f64) -> String {
    if value >= 10.0 {
        let unit = 10_f64.powf(value.log10().floor() - 1.0);
        return format!("{}", (value / unit).round() * unit);
    }
    format!("{}", (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_half_octaves() {
        for value in [0.004, 0.5, 1.0, 1.4, 1.6, 7.0, 1000.0, 1e9] {
            let bucket = bucket(value);
            assert!(edge(bucket) <= value && value < edge(bucket + 1), "{value}: {bucket}");
        }
        assert_eq!((bucket(0.0), bucket(-3.0), bucket(f64::MAX), edge(0)), (0, 0, 128, 0.0));
        assert_eq!([shown(1536.0), shown(48.0), shown(0.75), shown(0.0)], ["1500", "48", "0.75", "0"]);
    }

    #[test]
    fn quantiles_are_of_what_was_added() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|i| histogram.add(i, 1.0));
        assert_eq!((histogram.range(), histogram.quantile(0.5)), ((10, 90), 50));
        assert_eq!(histogram.above(75), 25.0);
    }
}
