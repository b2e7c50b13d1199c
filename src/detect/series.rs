//! One metric series: orders its samples, turns counters into rates, asks the detector, hands on onsets and ends.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    metric::{Metric, MetricVerdict},
    source::ended,
    templates::hash,
};
use crate::{
    clock,
    config::Detect,
    model::{
        AnomalyEvent, AnomalyKind, Labels, Per, Phrase, Sample, SeriesSummary, Severity,
        case::{CaseSeries, Sym},
    },
    redact,
};

/// State of one series, about 4 KB.
#[derive(Serialize, Deserialize)]
pub struct Series {
    name: String,
    labels: Labels,
    counter: bool,
    falls: u32,
    last: Option<(Timestamp, f64)>,
    /// The usual time between samples.
    interval: f64,
    metric: Metric,
    recent: VecDeque<(Timestamp, f64)>,
    open: Option<Box<AnomalyEvent>>,
}

const KEPT: usize = 64;
/// Silence of fewer seconds, or of fewer usual intervals, is not yet a gap.
const MIN_GAP: f64 = 15.0;
const MISSED: f64 = 5.0;
/// A sample from further ahead comes from a wrong clock.
const MAX_AHEAD: Duration = Duration::from_secs(60);
const FALLS_OF_NO_COUNTER: u32 = 5;

/// What identifies a series within its service. The same after a restart.
pub fn key(sample: &Sample) -> u64 {
    let labels = sample.labels.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()]);
    labels.fold(hash(sample.name.as_bytes()), |key, text| key.rotate_left(17).wrapping_mul(31) ^ hash(text))
}

impl Series {
    pub fn new(sample: &Sample) -> Self {
        let counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| sample.name.ends_with(end));
        Self {
            name: sample.name.clone(),
            labels: sample.labels.clone(),
            counter,
            falls: 0,
            last: None,
            interval: 0.0,
            metric: Metric::default(),
            recent: VecDeque::new(),
            open: None,
        }
    }

    /// Takes one sample. Returns false if it is not newer than the last one; it is not used then.
    pub fn sample(
        &mut self,
        sample: &Sample,
        now: Timestamp,
        settings: &Detect,
        out: &mut Vec<AnomalyEvent>,
    ) -> bool {
        let Some((last_at, last_value)) = self.last else {
            self.last = Some((sample.at, sample.value));
            if !self.counter {
                self.value(sample, sample.value, settings, out);
            }
            return true;
        };
        if sample.at <= last_at {
            return self.rewind(sample, last_at, now);
        }
        if self.missing(sample.at) {
            self.metric.interrupted();
        }
        let step = clock::between(last_at, sample.at).as_secs_f64();
        self.interval = if self.interval == 0.0 {
            step
        } else {
            self.interval + (step.min(4.0 * self.interval) - self.interval) / 8.0
        };
        self.metric.fade((step * 1e6) as i64);
        self.last = Some((sample.at, sample.value));
        match (self.counter, sample.value - last_value) {
            (false, _) => self.value(sample, sample.value, settings, out),
            // The process began anew: how much came in between is unknown.
            (true, rise) if rise < 0.0 => self.fell(),
            (true, rise) => self.value(sample, rise / step, settings, out),
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
            self.last = Some((sample.at, sample.value));
        }
        wrong
    }

    /// A counter that falls again and again was none, whatever it is called.
    fn fell(&mut self) {
        self.falls += 1;
        self.metric.interrupted();
        if self.falls >= FALLS_OF_NO_COUNTER {
            self.counter = false;
            self.metric = Metric::default();
            self.recent.clear();
        }
    }

    fn value(&mut self, sample: &Sample, value: f64, settings: &Detect, out: &mut Vec<AnomalyEvent>) {
        if !value.is_finite() {
            return;
        }
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back((sample.at, value));
        let adapt = i64::try_from(settings.adapt_after.as_micros()).unwrap_or(i64::MAX);
        let verdict =
            self.metric.push(sample.at.as_microsecond(), value, adapt, settings.false_alarms_per_day);
        match verdict {
            Some(MetricVerdict::Onset { value, low, high, detail }) => {
                let event = self.onset(sample, value, (low, high), detail);
                out.push(event.clone());
                self.open = Some(Box::new(event));
            }
            Some(MetricVerdict::End { detail }) => self.end(detail, sample.at, out),
            None => {}
        }
    }

    fn onset(&self, sample: &Sample, value: f64, (low, high): (f64, f64), mut detail: Value) -> AnomalyEvent {
        let (series, value) = (self.title(), short(value));
        let per = if self.counter { Per::Second } else { Per::Nothing };
        let (low, high) = (short(low), short(high));
        let title = match low == high {
            true => Phrase::MetricUsuallyConstant { series, value, usual: low, per },
            false => Phrase::MetricUsuallyBetween { series, value, low, high, per },
        };
        if let Value::Object(detail) = &mut detail {
            detail.insert("series".into(), json!(self.title()));
            detail.insert("name".into(), json!(self.name));
        }
        AnomalyEvent {
            kind: AnomalyKind::Metric,
            key: format!("{}/{}/{:016x}", AnomalyKind::Metric, sample.service, key(sample)),
            service: sample.service.clone(),
            severity: Severity::Warning,
            title: title.into(),
            detail,
            started_at: sample.at,
            ended_at: None,
        }
    }

    /// Ends an anomaly whose series has been silent for so long that nobody will tell us more.
    pub fn tick(&mut self, now: Timestamp, settings: &Detect, out: &mut Vec<AnomalyEvent>) {
        let Some((last_at, _)) = self.last else { return };
        if clock::between(last_at, now) > settings.adapt_after
            && let Some(MetricVerdict::End { detail }) = self.metric.abandon()
        {
            self.end(detail, now, out);
        }
    }

    fn end(&mut self, detail: Value, at: Timestamp, out: &mut Vec<AnomalyEvent>) {
        if let Some(open) = self.open.take() {
            out.push(ended(*open, detail, at));
        }
    }

    /// True if samples that should be there by `now` are not.
    pub fn missing(&self, now: Timestamp) -> bool {
        let Some((last_at, _)) = self.last else { return false };
        let limit = (MISSED * self.interval).max(MIN_GAP);
        clock::between(last_at, now) > Duration::from_secs_f64(limit)
    }

    pub fn last_at(&self) -> Option<Timestamp> {
        self.last.map(|(at, _)| at)
    }

    /// The name with its labels, as Prometheus writes it; secrets masked, for it is shown.
    pub fn title(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        let title = match labels.is_empty() {
            true => self.name.clone(),
            false => format!("{}{{{}}}", self.name, labels.join(",")),
        };
        redact::mask(&title)
    }

    /// What is kept of it since `from` (microseconds), for a ranking.
    pub fn recall(&self, service: Sym, from: i64) -> Option<CaseSeries> {
        let points: Vec<_> = self
            .recent
            .iter()
            .map(|(at, value)| (at.as_microsecond(), *value))
            .filter(|p| p.0 >= from)
            .collect();
        (!points.is_empty()).then(|| CaseSeries { service, metric: self.title(), points })
    }

    /// What it did in a window; none if it did nothing.
    pub fn summary(&self, from: Timestamp, to: Timestamp) -> Option<SeriesSummary> {
        let inside: Vec<_> = self.recent.iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let (last_at, last) = **inside.last()?;
        let values = || inside.iter().map(|(_, value)| *value);
        Some(SeriesSummary {
            name: self.name.clone(),
            labels: self.labels.clone(),
            count: inside.len(),
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
            mean: values().map(|value| value / inside.len() as f64).sum(),
            last,
            last_at,
            usual: self.metric.range(),
        })
    }
}

/// Three significant digits, without a tail of zeros.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = value.abs().log10().floor();
    if !(-5.0..15.0).contains(&digits) {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - digits).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short() {
        let texts: Vec<_> = [0.0, 1.0, 0.123456, 12.3456, 1234.5, -0.5, 1e-9, 1e20, 100.0]
            .iter()
            .map(|v| short(*v))
            .collect();
        assert_eq!(texts, ["0", "1", "0.123", "12.3", "1234", "-0.5", "1.00e-9", "1.00e20", "100"]);
    }
}
