//! What requests leave behind: spans, and the log lines that name their trace. Remembered for rankings; calls between services
//! are read off them.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    sample::{OfTrace, Sample, Whole},
    templates::TemplateId,
};
use crate::model::{
    TraceSpan as Span,
    case::{Case, CaseSpan, Gravity, Names, Sym},
};

/// The requests of one partition.
#[derive(Default, Serialize, Deserialize)]
pub struct Requests {
    /// Services and operations of what is kept.
    names: Names,
    pub spans: Sample<CaseSpan>,
    pub lines: Sample<TracedLine>,
    /// New names since those of nothing kept were forgotten.
    #[serde(skip)]
    new_names: usize,
}

/// A log line that names its trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedLine {
    pub trace: u64,
    /// Microseconds.
    pub at: i64,
    pub service: Sym,
    pub template: TemplateId,
    pub gravity: Gravity,
}

impl OfTrace for CaseSpan {
    fn trace(&self) -> u64 {
        self.trace
    }
}

impl OfTrace for TracedLine {
    fn trace(&self) -> u64 {
        self.trace
    }
}

/// Once there are more names, those of nothing kept are forgotten, and what is new and finds no room is [`OTHER`]: a service
/// that puts identifiers into its operations must not fill memory.
const MAX_NAMES: usize = 20_000;
const OTHER: &str = "(other)";
/// New names after which it is worth looking for those of nothing kept again: that takes as long as all that is kept is large.
const COLLECT_AFTER: usize = MAX_NAMES / 10;
/// Minutes after which the spans of a minute have come: a parent ends after its children, and exporters wait some seconds.
const SETTLED: i64 = 2;

impl Requests {
    /// Takes one span; returns false if it is older than what is kept. Of all, `max` are kept.
    pub fn span(&mut self, span: &Span, max: usize) -> bool {
        let [service, operation] = [&span.service, &span.operation].map(|name| self.sym(name));
        let peer = span.peer.as_ref().map(|name| self.sym(name));
        let &Span { trace, id, parent, error, duration_us: duration, .. } = span;
        let start = span.at.as_microsecond();
        let kept = CaseSpan { trace, id, parent, service, operation, start, duration, error, peer };
        self.spans.add(span.at.as_second(), kept, max)
    }

    /// Takes a line that names its trace.
    pub fn line(&mut self, service: &str, line: TracedLine, max: usize) {
        let service = self.sym(service);
        self.lines.add(line.at.div_euclid(1_000_000), TracedLine { service, ..line }, max);
    }

    /// Forgets what claims to be of a later time, which was heard before the clock was set back: by it, all that comes would be
    /// too old, for as long as the clock was wrong.
    pub fn end_at(&mut self, latest: Timestamp) {
        let second = latest.as_second();
        self.spans.end_at(second);
        self.lines.end_at(second);
    }

    fn sym(&mut self, name: &str) -> Sym {
        if let Some(known) = self.names.get(name) {
            return known;
        }
        self.new_names += 1;
        if self.names.len() >= MAX_NAMES && self.new_names >= COLLECT_AFTER {
            self.collect();
            self.new_names = 0;
        }
        let name = if self.names.len() >= MAX_NAMES { OTHER } else { name };
        self.names.sym(name)
    }

    fn collect(&mut self) {
        let (old, names) = (std::mem::take(&mut self.names), &mut self.names);
        let mut again = |sym: &mut Sym| *sym = names.sym(old.text(*sym));
        for span in self.spans.minutes.iter_mut().flat_map(|m| &mut m.kept) {
            again(&mut span.service);
            again(&mut span.operation);
            if let Some(peer) = &mut span.peer {
                again(peer);
            }
        }
        self.lines.minutes.iter_mut().flat_map(|m| &mut m.kept).for_each(|line| again(&mut line.service));
    }

    /// Spans and lines that are kept.
    pub fn len(&self) -> usize {
        self.spans.len() + self.lines.len()
    }

    /// The service or operation of something kept.
    pub fn name(&self, sym: Sym) -> &str {
        self.names.text(sym)
    }

    /// Of which traces everything since `second` was kept, as far as this partition tells.
    pub fn narrow(&self, second: i64, whole: &mut Whole) {
        self.spans.narrow(second, whole);
        self.lines.narrow(second, whole);
    }

    /// Adds the spans of traces that were kept whole to a case, if they began at `from` (microseconds) or later; what was delivered
    /// twice once.
    pub fn recall(&self, case: &mut Case, from: i64, whole: &Whole) {
        let mut known = HashSet::new();
        let first = |s: &&CaseSpan| s.start >= from && known.insert((s.trace, s.id));
        for span in self.spans.of(whole).filter(first) {
            let [service, operation] =
                [span.service, span.operation].map(|sym| case.names.sym(self.names.text(sym)));
            let peer = span.peer.map(|sym| case.names.sym(self.names.text(sym)));
            case.spans.push(CaseSpan { service, operation, peer, ..*span });
        }
    }

    /// Calls between services in the minutes that are complete by `now` (seconds) and were not told of before: caller, callee,
    /// and how many there were, as far as the sample tells.
    pub fn calls(&mut self, now: i64) -> Vec<(String, String, f64)> {
        let until = now.div_euclid(60) - SETTLED;
        let mut found: BTreeMap<(Sym, Sym), f64> = BTreeMap::new();
        let mut silent: BTreeMap<(Sym, Sym), f64> = BTreeMap::new();
        let mut speaks: HashSet<Sym> = HashSet::new();
        let fresh = self.spans.minutes.iter_mut().filter(|m| !m.told && m.number <= until);
        for minute in fresh {
            minute.told = true;
            let of: HashMap<(u64, u64), Sym> =
                minute.kept.iter().map(|s| ((s.trace, s.id), s.service)).collect();
            let each = u64::MAX as f64 / (minute.bound as f64).max(1.0);
            let mut answered: HashSet<(u64, u64)> = HashSet::new();
            for s in &minute.kept {
                if let Some(caller) = of.get(&(s.trace, s.parent)).filter(|caller| **caller != s.service) {
                    *found.entry((*caller, s.service)).or_default() += each;
                    answered.insert((s.trace, s.parent));
                    speaks.insert(s.service);
                }
            }
            for s in &minute.kept {
                let Some(peer) = s.peer.filter(|peer| *peer != s.service) else { continue };
                if answered.contains(&(s.trace, s.id)) {
                    // By whatever name its own spans call it.
                    speaks.insert(peer);
                } else {
                    *silent.entry((s.service, peer)).or_default() += each;
                }
            }
        }
        // Whose spans come is counted by them; of others, who waits for them tells.
        found.extend(silent.into_iter().filter(|((_, peer), _)| !speaks.contains(peer)));
        let text = |sym: Sym| self.names.text(sym).to_owned();
        found.into_iter().map(|((a, b), n)| (text(a), text(b), n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn span(minute: i64, trace: u64, id: u64, parent: u64, service: &str) -> Span {
        Span {
            at: clock::from_micros(minute * 60_000_000 + 5),
            service: service.into(),
            operation: format!("op of {service}"),
            trace,
            id,
            parent,
            duration_us: 10,
            error: false,
            peer: None,
        }
    }

    #[test]
    fn calls_to_what_sends_no_spans_are_counted_by_who_waits_for_it() {
        let mut requests = Requests::default();
        for trace in 1..=20 {
            let to = |peer: &str, span: Span| Span { peer: Some(peer.into()), ..span };
            let id = trace * 10;
            requests.span(&to("bank", span(100, trace, id, 0, "shop")), 6000);
            requests.span(&span(100, trace, id + 1, id, "bank"), 6000);
            requests.span(&to("db", span(100, trace, id + 2, id + 1, "bank")), 6000);
        }
        let calls = requests.calls(102 * 60);
        let pairs: Vec<_> = calls.iter().map(|(a, b, n)| (a.as_str(), b.as_str(), *n)).collect();
        assert_eq!(pairs, [("shop", "bank", 20.0), ("bank", "db", 20.0)]);
    }

    #[test]
    fn calls_are_counted_once_per_minute_and_scaled_to_what_came() {
        let mut requests = Requests::default();
        for trace in 1..=1000 {
            assert!(requests.span(&span(100, trace, trace * 10, 0, "shop"), 6000));
            assert!(requests.span(&span(100, trace, trace * 10 + 1, trace * 10, "db"), 6000));
        }
        assert_eq!(requests.calls(101 * 60), [], "the minute may not be complete");
        let calls = requests.calls(102 * 60);
        assert_eq!((calls.len(), calls[0].0.as_str(), calls[0].1.as_str()), (1, "shop", "db"));
        assert!((500.0..2000.0).contains(&calls[0].2), "{}", calls[0].2);
        assert_eq!(requests.calls(103 * 60), []);
    }

    #[test]
    fn what_is_delivered_twice_is_recalled_once() {
        let mut requests = Requests::default();
        for _ in 0..2 {
            requests.span(&span(100, 1, 10, 0, "shop"), 6000);
            requests.span(&span(100, 1, 11, 10, "bank"), 6000);
        }
        let mut case = Case::default();
        requests.recall(&mut case, 0, &Whole::default());
        assert_eq!(case.spans.iter().map(|s| s.id).collect::<Vec<_>>(), [10, 11]);
    }

    /// It would take hours, were all that is kept looked through for each new name.
    #[test]
    fn a_flood_of_names_that_are_all_in_use_is_taken() {
        let mut requests = Requests::default();
        for i in 1..=3 * MAX_NAMES as u64 {
            let span = span(100, i, i, 0, "shop");
            requests.span(&Span { operation: format!("op {i}"), ..span }, 60_000_000);
        }
        assert_eq!((requests.len(), requests.names.len()), (3 * MAX_NAMES, MAX_NAMES + 1));
        requests.spans.minutes.clear();
        for i in 1..=2 * COLLECT_AFTER as u64 {
            let span = span(101, i, i, 0, "shop");
            requests.span(&Span { operation: format!("new {i}"), ..span }, 60_000_000);
        }
        let named = |s: &&CaseSpan| requests.names.text(s.operation).starts_with("new ");
        assert!(
            requests.spans.of(&Whole::default()).filter(named).count() > COLLECT_AFTER / 2,
            "there is room again"
        );
    }

    #[test]
    fn names_of_what_is_gone_are_forgotten() {
        let mut requests = Requests::default();
        for i in 1..=MAX_NAMES as u64 + 10 {
            let span = span(100 + i as i64 / 300, i, i, 0, "shop");
            requests.span(&Span { operation: format!("op {i}"), ..span }, 60);
        }
        assert!(requests.names.len() <= MAX_NAMES, "{}", requests.names.len());
        let mut case = Case::default();
        requests.recall(&mut case, 0, &Whole::default());
        assert!(!case.spans.is_empty() && case.spans.len() <= 60);
        assert!(case.names.text(case.spans[0].operation).starts_with("op "));
    }
}
