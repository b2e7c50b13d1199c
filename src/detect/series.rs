//! One metric series: orders its samples, turns counters into rates, asks the detector, hands on onsets and ends.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    metric::{Allowed, Change, Metric, Onset},
    recent_samples::RecentSamples,
    templates::hash,
    told::ended,
};
use crate::{
    clock,
    model::{
        AnomalyEvent, AnomalyKind, Labels, Per, Sample, SeriesSummary, Severity,
        case::{CaseSeries, Sym},
    },
    redact,
};

/// State of one series, with its last samples: below a kilobyte, and its name.
#[derive(Serialize, Deserialize)]
pub struct Series {
    /// Name and labels, as JSON: a map of them would take more than all that was learned.
    name: Box<str>,
    counter: bool,
    /// How much speaks against its being a counter.
    falls: u8,
    /// Microseconds since the epoch of the last sample, `NEVER` before the first, and its raw value.
    last_us: i64,
    last_value: f64,
    metric: Metric,
    recent: RecentSamples,
    open: Option<Box<AnomalyEvent>>,
}

/// Bytes of labels that are kept: enough to tell series apart by eye, and all together they must not fill memory. Its key is of
/// all.
const MAX_LABELS: usize = 2048;
/// A sample from further ahead comes from a wrong clock.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// A fall says as much against a counter as so many rises for it: a process that begins anew every day counts on, a gauge falls
/// about as often as it rises. From so much on it is none.
const FALL: u8 = 16;
const NO_COUNTER: u8 = 5 * FALL;
/// Takes the place of a time; an `Option` would cost eight bytes.
const NEVER: i64 = i64::MIN;

/// What identifies a series within its service. The same after a restart.
pub fn key(sample: &Sample) -> u64 {
    let labels = sample.labels.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()]);
    labels.fold(hash(sample.name.as_bytes()), |key, text| key.rotate_left(17).wrapping_mul(31) ^ hash(text))
}

impl Series {
    pub fn new(sample: &Sample) -> Self {
        let counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| sample.name.ends_with(end));
        let mut room = MAX_LABELS;
        let fits = |(name, value): &(&String, &String)| {
            let bytes = name.len() + value.len();
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        let labels: BTreeMap<_, _> = sample.labels.iter().filter(fits).collect();
        Self {
            name: json!([sample.name, labels]).to_string().into(),
            counter,
            falls: 0,
            last_us: NEVER,
            last_value: 0.0,
            metric: Metric::default(),
            recent: RecentSamples::default(),
            open: None,
        }
    }

    /// Takes one sample. Returns false if it is not newer than the last one; it is not used then.
    pub fn sample(
        &mut self,
        sample: &Sample,
        now: Timestamp,
        allowed: &Allowed,
        out: &mut Vec<AnomalyEvent>,
    ) -> bool {
        let at_us = sample.at.as_microsecond();
        let (last_us, last_value) = (self.last_us, self.last_value);
        if last_us == NEVER {
            (self.last_us, self.last_value) = (at_us, sample.value);
            if !self.counter {
                self.value(sample, sample.value, allowed, out);
            }
            return true;
        }
        if at_us <= last_us {
            return self.rewind(sample, clock::from_micros(last_us), now);
        }
        let step = (at_us - last_us) as f64 / 1e6;
        (self.last_us, self.last_value) = (at_us, sample.value);
        match (self.counter, sample.value - last_value) {
            (false, _) => self.value(sample, sample.value, allowed, out),
            // The process began anew: how much came in between is unknown.
            (true, rise) if rise < 0.0 => self.fell(sample.at, out),
            (true, rise) => {
                self.falls = self.falls.saturating_sub(u8::from(rise > 0.0));
                self.value(sample, rise / step, allowed, out);
            }
        }
        true
    }

    /// Samples may have been lost.
    pub fn interrupted(&mut self) {
        self.metric.interrupted();
    }

    /// The key of the anomaly that goes on.
    pub fn open(&self) -> Option<&str> {
        self.open.as_ref().map(|event| event.key.as_str())
    }

    /// A sample from the future came from a wrong clock; the ones of the present must not wait until it is reached.
    fn rewind(&mut self, sample: &Sample, last_at: Timestamp, now: Timestamp) -> bool {
        let wrong = last_at > clock::after(now, MAX_AHEAD) && sample.at <= clock::after(now, MAX_AHEAD);
        if wrong {
            self.metric.interrupted();
            self.recent.clear();
            (self.last_us, self.last_value) = (sample.at.as_microsecond(), sample.value);
        }
        wrong
    }

    /// A counter that falls again and again was none, whatever it is called.
    fn fell(&mut self, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        self.falls = self.falls.saturating_add(FALL);
        self.metric.interrupted();
        if self.falls >= NO_COUNTER {
            self.counter = false;
            self.metric = Metric::default();
            self.recent.clear();
            // What was told of its rate would go on for ever.
            self.end(json!({ "ended": "it is no counter; what is usual is learned anew" }), at, out);
        }
    }

    fn value(&mut self, sample: &Sample, value: f64, allowed: &Allowed, out: &mut Vec<AnomalyEvent>) {
        if !value.is_finite() {
            return;
        }
        self.recent.push(sample.at.as_millisecond(), value);
        let verdict = self.metric.push(sample.at.as_microsecond(), value, allowed);
        match verdict.change {
            Some(Change::Onset(onset)) => {
                let event = self.onset(sample, &onset, verdict.score);
                out.push(event.clone());
                self.open = Some(Box::new(event));
            }
            Some(Change::End { detail }) => self.end(detail, sample.at, out),
            None => {}
        }
    }

    fn onset(&self, sample: &Sample, onset: &Onset, score: f32) -> AnomalyEvent {
        let (name, series) = (self.name().0, self.title());
        let per = if self.counter { Per::Second } else { Per::Nothing };
        let direction = match onset.direction {
            1 => Some("up"),
            -1 => Some("down"),
            _ => None,
        };
        let detail = json!({
            "reason": onset.word(), "direction": direction, "value": onset.value,
            "expected": { "low": onset.low, "high": onset.high },
            "score": (f64::from(score) * 1e3).round() / 1e3, "series": series, "name": name,
        });
        AnomalyEvent {
            kind: AnomalyKind::Metric,
            key: format!("{}/{}/{:016x}", AnomalyKind::Metric, sample.service, key(sample)),
            service: sample.service.clone(),
            severity: Severity::Warning,
            title: onset.title(series, per).into(),
            detail,
            started_at: sample.at,
            ended_at: None,
        }
    }

    /// Ends an anomaly whose series has been silent for so long that nobody will tell us more.
    pub fn tick(&mut self, now: Timestamp, adapt_after: Duration, out: &mut Vec<AnomalyEvent>) {
        let Some(last_at) = self.last_at().filter(|_| self.open.is_some()) else { return };
        if clock::between(last_at, now) > adapt_after
            && let Some(Change::End { detail }) = self.metric.abandon()
        {
            self.end(detail, now, out);
        }
    }

    /// Ends what goes on because the series is forgotten.
    pub fn forgotten(&mut self, why: &str, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        self.end(json!({ "ended": why }), at, out);
    }

    fn end(&mut self, detail: Value, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        if let Some(open) = self.open.take() {
            out.push(ended(*open, detail, at));
        }
    }

    /// True if samples that should be there by `now` are not.
    pub fn missing(&self, now: Timestamp) -> bool {
        let Some(last_at) = self.last_at() else { return false };
        clock::between(last_at, now) > Duration::from_secs_f64(self.metric.gap_s())
    }

    /// Since its last sample.
    pub fn silent_for(&self, now: Timestamp) -> Option<Duration> {
        self.last_at().map(|at| clock::between(at, now))
    }

    pub fn last_at(&self) -> Option<Timestamp> {
        (self.last_us != NEVER).then(|| clock::from_micros(self.last_us))
    }

    fn name(&self) -> (String, Labels) {
        serde_json::from_str(&self.name).unwrap_or_default()
    }

    /// The name with its labels, as Prometheus writes it; secrets masked, for it is shown.
    pub fn title(&self) -> String {
        let (name, labels) = self.name();
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        let title = match labels.is_empty() {
            true => name,
            false => format!("{name}{{{}}}", labels.join(",")),
        };
        redact::mask(&title)
    }

    /// What is kept of it since `from` (microseconds), for a ranking.
    pub fn recall(&self, service: Sym, from: i64) -> Option<CaseSeries> {
        let at_us = self.recent.iter().map(|(at_ms, value)| (at_ms * 1000, value));
        let points: Vec<_> = at_us.filter(|point| point.0 >= from).collect();
        (!points.is_empty()).then(|| CaseSeries { service, metric: self.title(), points })
    }

    /// What it did in a window; none if it did nothing.
    pub fn summary(&self, from: Timestamp, to: Timestamp) -> Option<SeriesSummary> {
        let (from, to) = (from.as_millisecond(), to.as_millisecond());
        let inside: Vec<_> = self.recent.iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let (last_ms, last) = *inside.last()?;
        // What people are shown is what came.
        let newest = !self.counter && last_ms * 1000 == self.last_us - self.last_us.rem_euclid(1000);
        let last = if newest { self.last_value } else { last };
        let values = || inside.iter().map(|(_, value)| *value);
        let (name, labels) = self.name();
        Some(SeriesSummary {
            name,
            labels,
            count: inside.len(),
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
            mean: values().map(|value| value / inside.len() as f64).sum(),
            last,
            last_at: clock::from_micros(last_ms * 1000),
            usual: self.metric.range(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_take_no_more_room_than_they_may() {
        let label = |i: usize| (format!("label_{i:02}"), "x".repeat(500));
        let sample = |last: &str| Sample {
            at: Timestamp::UNIX_EPOCH,
            name: "up".into(),
            service: "shop".into(),
            labels: (0..40).map(label).chain([("zone".into(), last.into())]).collect(),
            value: 1.0,
        };
        let title = Series::new(&sample("a")).title();
        assert!((1500..2500).contains(&title.len()) && title.ends_with(r#"zone="a"}"#), "{title}");
        assert_ne!(key(&sample("a")), key(&sample("b")));
    }

    #[test]
    fn what_is_learned_of_a_series_takes_a_kilobyte() {
        let sample = Sample {
            at: Timestamp::UNIX_EPOCH,
            name: "http_request_duration_seconds".into(),
            service: "shop".into(),
            labels: [("instance".into(), "10.0.0.17:8080".into()), ("path".into(), "/cart".into())].into(),
            value: 1.0,
        };
        let series = Series::new(&sample);
        // Elsewhere it holds its name, and of its first hundred values what they need.
        let bytes = size_of::<Series>() + Metric::MOST_ELSEWHERE;
        assert!(bytes <= 1024, "{bytes} bytes");
        assert_eq!(
            series.title(),
            r#"http_request_duration_seconds{instance="10.0.0.17:8080",path="/cart"}"#
        );
    }
}
