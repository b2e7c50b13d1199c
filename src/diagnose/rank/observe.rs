//! Turns traces and log lines into what is counted: per span its place, what happened in it, whether it failed, and its time.

use super::{
    hash::Map,
    trace::{NONE, Trace},
};
use crate::model::case::{Case, CaseLine, Gravity, Sym};

/// What can happen in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// The span itself; what happens given this happens in every span.
    Any,
    /// A line of the service, whatever it says.
    Line,
    /// A line of a template (index into `Case::templates`).
    Log(u32, Gravity),
    /// Another service is called: its name and operation.
    Call(Sym, Sym),
    /// A span of the same service.
    Inner(Sym),
    Failed,
}

impl Item {
    pub fn is_error(self) -> bool {
        matches!(self, Item::Failed | Item::Log(_, Gravity::Error))
    }
}

/// Where it happened: (service, operation) and who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub service: Sym,
    pub operation: Sym,
    pub caller: (Sym, Sym),
}

impl Place {
    /// The same place whoever calls.
    pub fn any_caller(self) -> Place {
        Place { caller: (NONE, NONE), ..self }
    }
}

/// A span as it is counted.
pub struct Seen {
    pub place: u32,
    pub service: Sym,
    /// Its service sent no span; its caller says that it was there.
    pub silent: bool,
    /// Each item once, with the time of its first occurrence.
    pub items: Vec<(u32, i64)>,
    /// It or something below it told of an error, or something else that its service did for the same call.
    pub failed: bool,
    pub end: i64,
    /// Microseconds of its own.
    pub own: i64,
    /// The other service if this span waits for one: then `own` is the gap of that edge.
    pub callee: Option<Sym>,
    /// 1 / spans of this place in the trace: a trace has one vote per place.
    pub weight: f64,
}

pub struct SeenTrace {
    pub start: i64,
    pub duration: i64,
    pub spans: Vec<Seen>,
}

/// A line that belongs to no span.
pub struct Loose {
    pub at: i64,
    pub service: Sym,
    pub item: u32,
}

pub struct Table<T> {
    by: Map<T, u32>,
    pub all: Vec<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Table<T> {
    fn new() -> Self {
        Table { by: Map::default(), all: Vec::new() }
    }

    fn id(&mut self, value: T) -> u32 {
        *self.by.entry(value).or_insert_with(|| {
            self.all.push(value);
            self.all.len() as u32 - 1
        })
    }
}

/// What is counted.
pub struct Observed {
    pub items: Table<Item>,
    pub places: Table<Place>,
    pub traces: Vec<SeenTrace>,
    pub loose: Vec<Loose>,
    /// From when on the fault is taken to be at work.
    pub onset: i64,
}

impl Observed {
    /// 0 = reference, 1 = window.
    pub fn side(&self, at: i64) -> usize {
        usize::from(at >= self.onset)
    }
}

/// Different things that count in one span, the first ones, for pairs of them are compared; errors, which come last, count up
/// to twice as many.
const MAX_ITEMS: usize = 100;
/// The id of [`Item::Any`].
pub const ANY: u32 = 0;
const LINE: u32 = 1;

pub fn observe(case: &Case, traces: &[Trace]) -> Observed {
    let mut o = Observed {
        items: Table::new(),
        places: Table::new(),
        traces: Vec::new(),
        loose: Vec::new(),
        onset: case.from,
    };
    o.items.id(Item::Any);
    o.items.id(Item::Line);
    let spans = SpansOfLines::new(case);
    let mut of_span: Map<u32, Vec<(i64, u32)>> = Map::default();
    for line in &case.lines {
        let item = o.items.id(Item::Log(line.template, line.gravity));
        match spans.of(case, line) {
            Some(span) => of_span.entry(span).or_default().push((line.at, item)),
            None => o.loose.push(Loose { at: line.at, service: line.service, item }),
        }
    }
    for t in traces {
        let seen = see(t, &of_span, &mut o);
        o.traces.push(seen);
    }
    o
}

/// Finds the span that a line was written in.
struct SpansOfLines {
    by_id: Map<u64, u32>,
    by_trace: Map<(u64, Sym), Vec<u32>>,
}

impl SpansOfLines {
    fn new(case: &Case) -> Self {
        let (mut by_id, mut by_trace): (Map<u64, u32>, Map<_, Vec<u32>>) = Default::default();
        for (i, s) in case.spans.iter().enumerate() {
            by_id.insert(s.id, i as u32);
            by_trace.entry((s.trace, s.service)).or_default().push(i as u32);
        }
        Self { by_id, by_trace }
    }

    /// The span of its service that the line names; or of the trace that it names the shortest one at that time, or else the
    /// last one that had begun (lines are written late, too).
    fn of(&self, case: &Case, line: &CaseLine) -> Option<u32> {
        let span = |i: &u32| &case.spans[*i as usize];
        let named = self.by_id.get(&line.span).filter(|i| line.span != 0 && span(i).service == line.service);
        named.copied().or_else(|| {
            let all = self.by_trace.get(&(line.trace, line.service)).filter(|_| line.trace != 0)?;
            let begun = || all.iter().filter(|i| span(i).start <= line.at);
            let around = begun().filter(|i| span(i).start + span(i).duration >= line.at);
            let shortest = around.min_by_key(|i| span(i).duration);
            shortest.or_else(|| begun().max_by_key(|i| span(i).start)).or(all.first()).copied()
        })
    }
}

fn see(t: &Trace, of_span: &Map<u32, Vec<(i64, u32)>>, o: &mut Observed) -> SeenTrace {
    let mut spans = Vec::with_capacity(t.nodes.len());
    let mut times: Map<u32, f64> = Map::default();
    let mut bad = Vec::with_capacity(t.nodes.len());
    for node in &t.nodes {
        let place =
            o.places.id(Place { service: node.service, operation: node.operation, caller: node.caller });
        *times.entry(place).or_default() += 1.0;
        let end = node.end();
        let lines = of_span.get(&node.span).into_iter().flatten();
        let mut course: Vec<(i64, u32)> = lines.map(|(at, item)| (at + node.shift, *item)).collect();
        if let Some(first) = course.iter().map(|c| c.0).min() {
            course.push((first, LINE));
        }
        for &c in &node.children {
            course.push((t.nodes[c as usize].start, o.items.id(called(t, c, node.service))));
        }
        if node.error {
            course.push((end, o.items.id(Item::Failed)));
        }
        course.sort_unstable();
        let mut items: Vec<(u32, i64)> = Vec::with_capacity(course.len());
        for (at, item) in course {
            let most = if o.items.all[item as usize].is_error() { 2 * MAX_ITEMS } else { MAX_ITEMS };
            if items.len() < most && !items.iter().any(|i| i.0 == item) {
                items.push((item, at));
            }
        }
        bad.push(items.iter().any(|i| o.items.all[i.0 as usize].is_error()));
        let callee = node.children.iter().map(|&c| t.nodes[c as usize].service).find(|&s| s != node.service);
        spans.push(Seen {
            place,
            service: node.service,
            silent: node.is_silent(),
            items,
            failed: false,
            end,
            own: node.own,
            callee,
            weight: 1.0,
        });
    }
    mark_failed(t, &bad, &mut spans);
    for s in &mut spans {
        s.weight = 1.0 / times[&s.place];
    }
    SeenTrace { start: t.start, duration: t.duration, spans }
}

/// Failed is what has an error below it, and everything that a service did for one call in which it told of an error.
fn mark_failed(t: &Trace, bad: &[bool], spans: &mut [Seen]) {
    let mut run: Vec<usize> = (0..spans.len()).collect();
    let mut stack: Vec<usize> = (0..spans.len()).filter(|&n| t.nodes[n].parent == NONE).collect();
    while let Some(n) = stack.pop() {
        for &c in &t.nodes[n].children {
            let c = c as usize;
            if spans[c].service == spans[n].service {
                run[c] = run[n];
            }
            stack.push(c);
        }
    }
    let mut bad_run = vec![false; spans.len()];
    for n in (0..spans.len()).filter(|&n| bad[n]) {
        bad_run[run[n]] = true;
        let mut at = n;
        while !spans[at].failed {
            spans[at].failed = true;
            match t.nodes[at].parent {
                NONE => break,
                p => at = p as usize,
            }
        }
    }
    for n in 0..spans.len() {
        spans[n].failed |= bad_run[run[n]];
    }
}

/// What a child span is to its parent: a call, through a client span of its own if there is one.
fn called(t: &Trace, child: u32, service: Sym) -> Item {
    let node = &t.nodes[child as usize];
    if node.service != service {
        return Item::Call(node.service, node.operation);
    }
    node.children
        .iter()
        .map(|&c| &t.nodes[c as usize])
        .find(|s| s.service != service)
        .map_or(Item::Inner(node.operation), |s| Item::Call(s.service, s.operation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diagnose::rank::trace::assemble, model::case::CaseSpan};

    #[test]
    fn that_a_span_failed_counts_however_much_else_happened_in_it() {
        let below = |n: u32| CaseSpan {
            trace: 1,
            id: u64::from(n) + 2,
            parent: 1,
            service: 0,
            operation: n,
            start: i64::from(n),
            duration: 1,
            error: false,
            peer: None,
        };
        let mut spans: Vec<_> = (0..500).map(below).collect();
        spans.push(CaseSpan { id: 1, parent: 0, duration: 1000, error: true, ..below(0) });
        let case = Case { spans, ..Case::default() };
        let seen = observe(&case, &assemble(&case, &[]));
        let whole = seen.traces[0].spans.iter().max_by_key(|s| s.items.len()).expect("spans");
        assert!(whole.items.len() > MAX_ITEMS && whole.failed, "{:?}", whole.items.last());
    }
}
