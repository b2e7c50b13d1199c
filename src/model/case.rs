//! What is known of an incident before its services are ranked: the alert, a window, and the telemetry around it, names
//! interned. Recorded cases are read into it, and so is what the detectors keep in memory.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::LogLevel;

/// A name, interned in [`Names`].
pub type Sym = u32;

/// Names and their numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Box<str>>", into = "Vec<Box<str>>")]
pub struct Names {
    by_text: HashMap<Box<str>, Sym>,
    texts: Vec<Box<str>>,
}

impl From<Vec<Box<str>>> for Names {
    fn from(texts: Vec<Box<str>>) -> Self {
        let by_text = texts.iter().zip(0..).map(|(text, sym)| (text.clone(), sym)).collect();
        Self { by_text, texts }
    }
}

impl From<Names> for Vec<Box<str>> {
    fn from(names: Names) -> Self {
        names.texts
    }
}

impl Names {
    /// The number of a name, a new one if need be.
    pub fn sym(&mut self, text: &str) -> Sym {
        if let Some(&known) = self.by_text.get(text) {
            return known;
        }
        let sym = self.texts.len() as Sym;
        self.texts.push(text.into());
        self.by_text.insert(text.into(), sym);
        sym
    }

    /// The number of a name that is known.
    pub fn get(&self, text: &str) -> Option<Sym> {
        self.by_text.get(text).copied()
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    pub fn text(&self, sym: Sym) -> &str {
        &self.texts[sym as usize]
    }
}

/// A span; all times of a case are microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseSpan {
    /// Hashes of identifiers ([`id_hash`]).
    pub trace: u64,
    pub id: u64,
    /// 0 = root.
    pub parent: u64,
    pub service: Sym,
    pub operation: Sym,
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    /// Whom it waited for, if it says so.
    pub peer: Option<Sym>,
}

/// How serious a line is, as far as ranking cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Gravity {
    Ordinary,
    Warning,
    Error,
}

impl From<LogLevel> for Gravity {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error | LogLevel::Fatal => Self::Error,
            LogLevel::Warn => Self::Warning,
            LogLevel::Trace | LogLevel::Debug | LogLevel::Info => Self::Ordinary,
        }
    }
}

/// A log line, or some of one template within one second or minute: whether it was there counts, not how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaseLine {
    pub at: i64,
    pub service: Sym,
    pub gravity: Gravity,
    /// Index into [`Case::templates`].
    pub template: u32,
    /// The span and the trace that it names; 0 = none.
    pub span: u64,
    pub trace: u64,
}

/// One metric of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseSeries {
    pub service: Sym,
    pub metric: String,
    /// Time and value, in time order.
    pub points: Vec<(i64, f64)>,
}

/// A change that was announced: a deploy, a new setting.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseChange {
    pub at: i64,
    pub service: Sym,
    pub what: String,
}

/// An incident as the ranker sees it. Everything before `from` is reference.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub names: Names,
    pub alert_service: Sym,
    pub alert_metric: Option<String>,
    pub from: i64,
    /// Included.
    pub to: i64,
    pub spans: Vec<CaseSpan>,
    pub lines: Vec<CaseLine>,
    /// What each template says.
    pub templates: Vec<String>,
    pub series: Vec<CaseSeries>,
    /// (caller, callee)
    pub topology: Vec<(Sym, Sym)>,
    pub changes: Vec<CaseChange>,
}

impl Case {
    /// Everything that is after `from` and no later than `to`.
    pub fn in_window(&self, at: i64) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

/// 64 bits of an identifier of a trace or span, which is random already (FNV-1a); 0 for none.
pub fn id_hash(id: &[u8]) -> u64 {
    if id.is_empty() {
        return 0;
    }
    let hash =
        id.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_given() {
        let mut names = Names::default();
        let (a, b) = (names.sym("a"), names.sym("b"));
        assert_eq!((names.sym("a"), names.text(b), names.get("c")), (a, "b", None));
        assert_eq!(id_hash(b""), 0);
    }
}
