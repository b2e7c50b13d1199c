//! What is remembered of a service's log stream, and of each of its templates.

use serde::{Deserialize, Serialize};

use super::{
    clock::at_second,
    counts::{Baseline, Ring},
    season::Season,
};
use crate::{
    config::Detect,
    model::{AnomalyEvent, AnomalyKind, LogLevel, LogRecord, TemplateActivity},
};

/// Seconds that a template must be known for before its quiet hours are kept.
const SEASON_AFTER: i64 = 3600;

const MAX_SAMPLE: usize = 512;

/// What was seen of one template.
#[derive(Serialize, Deserialize)]
pub struct History {
    pub first_second: i64,
    pub last_second: i64,
    /// The worst level that it was logged at.
    pub level: LogLevel,
    /// One line of it, unmasked, cut to 512 bytes.
    pub sample: String,
    pub total: u64,
    pub seconds: Ring,
    pub minutes: Ring,
    pub baseline: Baseline,
    /// What is usual at this hour of the day, once it is known for an hour.
    pub season: Option<Season>,
}

/// What is known of the source as a whole.
#[derive(Serialize, Deserialize)]
pub struct About {
    pub service: String,
    /// The first second of event time.
    pub first_second: i64,
    pub error_lines: u64,
    /// Error lines that were the first of their template.
    pub novel_errors: u64,
    pub templates: usize,
    pub seconds: Ring,
    /// By kind: anomalies told, fading within a day, and when that was brought up to date.
    told: [(f64, i64); AnomalyKind::ALL.len()],
}

impl About {
    pub fn new(service: &str, first_second: i64) -> Self {
        Self {
            service: service.to_owned(),
            first_second,
            error_lines: 0,
            novel_errors: 0,
            templates: 0,
            seconds: Ring::seconds(),
            told: Default::default(),
        }
    }

    /// Lines in the seconds `from..=to`.
    pub fn lines(&self, from: i64, to: i64) -> u64 {
        self.seconds.sum(from, to)
    }

    /// The budget of a day for one kind of anomaly. Whatever is told beyond it halves what the next one may cost by chance:
    /// where the assumptions do not hold, thresholds rise until the budget does.
    pub fn false_alarms(&self, kind: AnomalyKind, second: i64, settings: &Detect) -> f64 {
        let budget = settings.false_alarms_per_day;
        budget * 0.5_f64.powf((self.told(kind, second) - budget.max(1.0)).max(0.0))
    }

    fn told(&self, kind: AnomalyKind, second: i64) -> f64 {
        let (told, at) = self.told[kind as usize];
        told * (-((second - at).max(0) as f64) / 86_400.0).exp()
    }

    pub fn tell(&mut self, events: &[AnomalyEvent], second: i64) {
        for event in events.iter().filter(|event| event.ended_at.is_none()) {
            self.told[event.kind as usize] = (self.told(event.kind, second) + 1.0, second);
        }
    }

    /// Seconds that the source was known at `second`.
    pub fn age(&self, second: i64) -> i64 {
        second - self.first_second
    }
    /// True if the source said anything within the five seconds up to `second`.
    pub fn alive(&self, second: i64) -> bool {
        self.seconds.sum(second - 4, second) > 0
    }
}

impl History {
    pub fn merge(&mut self, other: &History) {
        self.first_second = self.first_second.min(other.first_second);
        self.last_second = self.last_second.max(other.last_second);
        self.level = self.level.max(other.level);
        self.total += other.total;
        self.seconds.merge(&other.seconds);
        self.minutes.merge(&other.minutes);
        self.baseline.merge(&other.baseline);
    }

    /// The season of a template is kept once it is known for long, or a window was loud enough for a burst.
    pub fn note_season(&mut self, second: i64, settings: &Detect) {
        let count = self.seconds.at(second);
        if count == 0 {
            return;
        }
        let window = self.seconds.sum(second + 1 - settings.window.as_secs() as i64, second);
        let old = second - self.first_second >= SEASON_AFTER;
        if self.season.is_some() || old || window >= u64::from(settings.min_count) {
            self.season.get_or_insert_with(|| Season::new(second)).fold(second, count, window);
        }
    }

    /// The same with this share of the lines. At which level they were is not known.
    pub fn part(&self, share: f64) -> Self {
        Self {
            first_second: self.first_second,
            last_second: self.last_second,
            level: LogLevel::Trace,
            sample: self.sample.clone(),
            total: (self.total as f64 * share).round() as u64,
            seconds: self.seconds.part(share),
            minutes: self.minutes.part(share),
            baseline: self.baseline.part(share),
            season: None,
        }
    }

    pub fn activity(&self, template: String, count: u64, seconds: f64) -> TemplateActivity {
        let usual = (self.baseline.seconds() > 0.0).then(|| self.baseline.usual(seconds));
        TemplateActivity {
            template,
            level: self.level,
            count,
            usual,
            first_seen_at: at_second(self.first_second),
            last_seen_at: at_second(self.last_second),
            sample: self.sample.clone(),
        }
    }
}

/// One line, cut to `MAX_SAMPLE` bytes.
pub fn sample(record: &LogRecord) -> String {
    cut(&record.message).to_owned()
}

pub fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_SAMPLE)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{detect::told::ended, model::Severity};

    #[test]
    fn what_is_told_beyond_the_budget_raises_the_threshold_for_a_day() {
        let settings = Detect::default();
        let mut about = About::new("shop", 0);
        let event = AnomalyEvent {
            kind: AnomalyKind::LogBurst,
            key: String::new(),
            service: "shop".into(),
            severity: Severity::Info,
            title: "burst".into(),
            detail: json!({}),
            started_at: at_second(0),
            ended_at: None,
        };
        let over = ended(event.clone(), json!({}), at_second(9));
        about.tell(&[event.clone(), over], 100);
        assert_eq!(about.false_alarms(AnomalyKind::LogBurst, 100, &settings), 1.0, "it is in the budget");
        about.tell(&[event.clone(), event], 100);
        assert_eq!(about.false_alarms(AnomalyKind::LogBurst, 100, &settings), 0.25);
        assert_eq!(about.false_alarms(AnomalyKind::LogSilence, 100, &settings), 1.0);
        assert_eq!(about.false_alarms(AnomalyKind::LogBurst, 100 + 2 * 86_400, &settings), 1.0);
    }
}
