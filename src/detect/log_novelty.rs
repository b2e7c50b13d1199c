//! Finds a template that was never seen before, at error level.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::template_detector::{Closed, Line, TemplateDetector, Verdict, severity};
use crate::model::{LogLevel, Phrase, Span};

/// A new error says the more the longer its source is known. A source that is still warming up only teaches; a young one
/// must repeat it; so must one whose errors are so varied that a new one is nothing special (by Good and Turing's estimate:
/// the share of error lines that were the first of their kind).
#[derive(Default, Serialize, Deserialize)]
pub struct LogNovelty {
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
enum State {
    /// Not seen at error level.
    #[default]
    Quiet,
    /// Seen at error level, waiting for repeats.
    Pending {
        lines: u32,
        since: i64,
    },
    Open {
        last: i64,
        lines: u64,
    },
    /// Learned, or told and over.
    Known,
}

/// So many warm-ups old, a source needs no repeats.
const ESTABLISHED: i64 = 10;
const REPEATS: u32 = 3;
/// A share of first-of-their-kind error lines above this makes novelty ordinary, once there are enough lines to tell.
const VARIED: f64 = 0.05;
const ENOUGH_ERRORS: u64 = 50;

impl TemplateDetector for LogNovelty {
    fn line(&mut self, line: &Line<'_>) -> Option<Verdict> {
        if line.level < LogLevel::Error {
            return None;
        }
        let (lines, since) = match &mut self.state {
            State::Known => return None,
            State::Open { last, lines } => {
                (*last, *lines) = (line.second.max(*last), *lines + 1);
                return None;
            }
            State::Quiet => (1, line.second),
            State::Pending { lines, since } => (*lines + 1, *since),
        };
        if line.source.age(since) < line.warm_up() {
            self.state = State::Known;
            return None;
        }
        if lines < repeats(line) {
            self.state = State::Pending { lines, since };
            return None;
        }
        self.state = State::Open { last: line.second, lines: u64::from(lines) };
        Some(onset(line, since))
    }

    fn second(&mut self, closed: &Closed<'_>) -> Option<Verdict> {
        let quiet = closed.settings.quiet.as_secs() as i64;
        let State::Open { last, lines } = self.state else { return None };
        if closed.second - last < quiet {
            return None;
        }
        self.state = State::Known;
        let reason = format!("not seen for {quiet} s");
        Some(Verdict::End { detail: json!({ "ended": reason, "lines": lines }), adapt: false })
    }
}

impl LogNovelty {
    /// What was told of a whole is not told again of its parts.
    pub fn part(&self) -> Self {
        let state = match self.state {
            State::Quiet | State::Pending { .. } => State::Quiet,
            State::Open { .. } | State::Known => State::Known,
        };
        Self { state }
    }
}

fn repeats(line: &Line<'_>) -> u32 {
    let source = line.source;
    let young = source.age(line.second) < ESTABLISHED * line.warm_up();
    let share = (source.novel_errors as f64 + 0.5) / (source.error_lines as f64 + 1.0);
    let varied = source.error_lines >= ENOUGH_ERRORS && share > VARIED;
    if young || varied { REPEATS } else { 1 }
}

fn onset(line: &Line<'_>, since: i64) -> Verdict {
    let (text, age) = (line.template.text(), line.source.age(since));
    let known = Span(std::time::Duration::from_secs(age.max(0) as u64));
    Verdict::Onset {
        severity: severity(line.level),
        title: Phrase::LogNovelty { template: text.clone(), known, service: line.source.service.to_string() },
        detail: json!({
            "template": text, "level": line.level, "sample": line.template.sample(),
            "source_known_seconds": age, "count": line.template.total, "expected": { "low": 0, "high": 0 },
        }),
        started: since,
    }
}
