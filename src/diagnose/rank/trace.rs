//! Puts spans together to traces: who called whom on behalf of what, and how long each span worked by itself.

use super::hash::Map;
use crate::model::case::{Case, CaseSpan, Sym};

pub const NONE: u32 = u32::MAX;
/// Clocks of root spans and of proxies are often cut to milliseconds.
const TOLERANCE: i64 = 1_000;

/// One span in its tree.
pub struct Node {
    /// Index into `Case::spans`; `NONE` = its caller vouches for it ([`super::silent`]).
    pub span: u32,
    pub service: Sym,
    pub operation: Sym,
    /// By the clock of the first service, as far as differences can be seen.
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    /// What was added to its own clock's time, in microseconds.
    pub shift: i64,
    /// Index into `Trace::nodes`; `NONE` = root.
    pub parent: u32,
    pub children: Vec<u32>,
    /// The operation by which the request came into this service.
    pub entry: Sym,
    /// The service that called, and its entry; in the first service of a trace, what the request turned out to be (the
    /// first call to another service), for what clients ask isn't the service's doing.
    pub caller: (Sym, Sym),
    /// In the first service of the trace.
    pub first: bool,
    /// Duration less the time in which something else of the trace ran inside, in microseconds.
    pub own: i64,
}

impl Node {
    pub fn end(&self) -> i64 {
        self.start + self.duration
    }

    /// Nobody sent it.
    pub fn is_silent(&self) -> bool {
        self.span == NONE
    }
}

pub struct Trace {
    pub start: i64,
    pub duration: i64,
    pub nodes: Vec<Node>,
}

/// `silent`: spans beside those of the case.
pub fn assemble(case: &Case, silent: &[CaseSpan]) -> Vec<Trace> {
    let mut at: Map<u64, usize> = Map::default();
    let mut groups: Vec<Vec<(u32, &CaseSpan)>> = Vec::new();
    let told = case.spans.iter().enumerate().map(|(i, s)| (i as u32, s));
    for (i, s) in told.chain(silent.iter().map(|s| (NONE, s))) {
        let n = *at.entry(s.trace).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[n].push((i, s));
    }
    groups.into_iter().map(tree).collect()
}

fn tree(mut spans: Vec<(u32, &CaseSpan)>) -> Trace {
    spans.sort_by_key(|(_, s)| (s.start, -s.duration));
    let at: Map<u64, u32> = spans.iter().enumerate().map(|(n, (_, s))| (s.id, n as u32)).collect();
    let mut nodes: Vec<Node> = spans
        .iter()
        .enumerate()
        .map(|(n, &(span, s))| Node {
            span,
            service: s.service,
            operation: s.operation,
            start: s.start,
            duration: s.duration,
            error: s.error,
            shift: 0,
            parent: at.get(&s.parent).copied().filter(|&p| p != n as u32).unwrap_or(NONE),
            children: Vec::new(),
            entry: s.operation,
            caller: (NONE, NONE),
            first: true,
            own: 0,
        })
        .collect();
    let lost: Vec<bool> = spans.iter().map(|(_, s)| s.parent != 0).collect();
    cut_circles(&mut nodes);
    adopt(&mut nodes, &lost);
    for n in 0..nodes.len() {
        if nodes[n].parent != NONE {
            let p = nodes[n].parent as usize;
            nodes[p].children.push(n as u32);
        }
    }
    align(&mut nodes);
    name_callers(&mut nodes);
    let by_start: Vec<Vec<u32>> = nodes.iter().map(|node| by_start(&nodes, &node.children)).collect();
    for n in 0..nodes.len() {
        let siblings = by_start.get(nodes[n].parent as usize).map_or(&[][..], Vec::as_slice);
        nodes[n].own = own_time(&nodes, n, siblings);
    }
    let root = nodes.iter().find(|n| n.parent == NONE);
    Trace { start: root.map_or(0, |n| n.start), duration: root.map_or(0, |n| n.duration), nodes }
}

fn inside(inner: &Node, outer: &Node) -> bool {
    outer.start <= inner.start + TOLERANCE && outer.end() >= inner.end() - TOLERANCE
}

/// A span that is its own ancestor, as only damaged data has it, has lost its parent: else nothing would lead to it from a root.
fn cut_circles(nodes: &mut [Node]) {
    // Where the walk that reached a node began.
    let mut walks = vec![NONE; nodes.len()];
    for n in 0..nodes.len() {
        let mut at = n;
        while walks[at] == NONE {
            walks[at] = n as u32;
            match nodes[at].parent {
                NONE => break,
                p if walks[p as usize] == n as u32 => nodes[p as usize].parent = NONE,
                p => at = p as usize,
            }
        }
    }
}

/// A span whose parent was lost goes below the shortest span that it ran inside. `named`: it has a parent.
fn adopt(nodes: &mut [Node], named: &[bool]) {
    // Nodes are in the order of their beginnings: which of them had begun and may not have ended yet.
    let (mut open, mut next) = (Vec::new(), 0);
    for n in 0..nodes.len() {
        let me = &nodes[n];
        if me.parent != NONE || !named[n] {
            continue;
        }
        while nodes.get(next).is_some_and(|other| other.start <= me.start + TOLERANCE) {
            open.push(next);
            next += 1;
        }
        open.retain(|&m| nodes[m].end() >= me.start - TOLERANCE);
        let mut best: Option<usize> = None;
        for &m in &open {
            let other = &nodes[m];
            let longer = other.duration > me.duration || (other.duration == me.duration && m < n);
            if m == n
                || !longer
                || !inside(me, other)
                || best.is_some_and(|b| nodes[b].duration <= other.duration)
            {
                continue;
            }
            if !below(nodes, m, n) {
                best = Some(m);
            }
        }
        nodes[n].parent = best.map_or(NONE, |b| b as u32);
    }
}

/// Whether `n` is an ancestor of `m`.
fn below(nodes: &[Node], m: usize, n: usize) -> bool {
    let mut at = m;
    for _ in 0..nodes.len() {
        if at == n {
            return true;
        }
        match nodes[at].parent {
            NONE => return false,
            p => at = p as usize,
        }
    }
    true
}

/// The nodes, parents first.
fn from_the_roots(nodes: &[Node]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..nodes.len() as u32).filter(|&n| nodes[n as usize].parent == NONE).collect();
    let mut next = 0;
    while let Some(&n) = order.get(next) {
        order.extend_from_slice(&nodes[n as usize].children);
        next += 1;
    }
    order
}

/// Clocks of hosts differ: a callee that seems to have worked at a time when its caller did not wait is put into the middle of
/// the caller's time, as Jaeger does it, and what its service did for this call goes with it. What lasts longer than its caller
/// goes on without it.
fn align(nodes: &mut [Node]) {
    for n in from_the_roots(nodes) {
        let (p, n) = (nodes[n as usize].parent, n as usize);
        if p == NONE {
            continue;
        }
        let parent = &nodes[p as usize];
        let shift = if parent.service == nodes[n].service {
            parent.shift
        } else if inside(&nodes[n], parent) {
            0
        } else if nodes[n].duration <= parent.duration {
            parent.start + (parent.duration - nodes[n].duration) / 2 - nodes[n].start
        } else {
            (parent.start - nodes[n].start).max(0)
        };
        nodes[n].shift = shift;
        nodes[n].start += shift;
    }
}

fn name_callers(nodes: &mut [Node]) {
    let mut first_call: Option<(i64, (Sym, Sym))> = None;
    for n in from_the_roots(nodes) {
        let Node { service: me, entry, caller, first, .. } = nodes[n as usize];
        for c in nodes[n as usize].children.clone() {
            let child = &mut nodes[c as usize];
            if child.service == me {
                (child.entry, child.caller, child.first) = (entry, caller, first);
            } else {
                (child.caller, child.first) = ((me, entry), false);
                if first && first_call.is_none_or(|f| child.start < f.0) {
                    first_call = Some((child.start, (child.service, child.entry)));
                }
            }
        }
    }
    if let Some((_, call)) = first_call {
        nodes.iter_mut().filter(|n| n.first).for_each(|n| n.caller = call);
    }
}

fn by_start(nodes: &[Node], some: &[u32]) -> Vec<u32> {
    let mut all = some.to_vec();
    all.sort_by_key(|&n| nodes[n as usize].start);
    all
}

/// The span's duration less the union of what ran inside it: its children, and its own service's siblings (reactive servers
/// end their handler's span beside the client span that it started). Of a silent callee's time nobody knows how much was on the
/// way to it: all of it belongs to the edge. `siblings`: by their beginnings, itself too.
fn own_time(nodes: &[Node], n: usize, siblings: &[u32]) -> i64 {
    let me = &nodes[n];
    if me.is_silent() {
        return 0;
    }
    let (from, to) = (me.start, me.end());
    let mut cover: Vec<(i64, i64)> = Vec::new();
    let mut take = |s: &Node| cover.push((s.start, s.end()));
    me.children.iter().map(|&c| &nodes[c as usize]).filter(|c| !c.is_silent()).for_each(&mut take);
    let begun = siblings.partition_point(|&c| nodes[c as usize].start < from);
    for &c in &siblings[begun..] {
        let s = &nodes[c as usize];
        if s.start > to + TOLERANCE {
            break;
        }
        if c as usize != n && s.service == me.service && inside(s, me) && s.duration < me.duration {
            take(s);
        }
    }
    cover.sort_unstable();
    let (mut covered, mut reached) = (0, from);
    for (a, b) in cover {
        let (a, b) = (a.max(reached), b.min(to));
        if b > a {
            covered += b - a;
            reached = b;
        }
    }
    (me.duration - covered).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u64, parent: u64, start: i64, duration: i64) -> CaseSpan {
        let service = id as Sym;
        CaseSpan { trace: 1, id, parent, service, operation: 0, start, duration, error: false, peer: None }
    }

    fn tree_of(spans: &[CaseSpan]) -> Trace {
        let case = Case { spans: spans.to_vec(), ..Case::default() };
        assemble(&case, &[]).pop().expect("one trace")
    }

    /// What [`adopt`] looks for among the open ones, looked for among all.
    fn shortest_around(nodes: &[Node], n: usize) -> Option<i64> {
        let order = |n: usize| (nodes[n].duration, std::cmp::Reverse(n));
        let around = (0..nodes.len()).filter(|&m| order(m) > order(n) && inside(&nodes[n], &nodes[m]));
        around.map(|m| nodes[m].duration).min()
    }

    proptest::proptest! {
        #[test]
        fn what_lost_its_parent_goes_below_the_shortest_around_it(
            spans in proptest::collection::vec((0..50_000_i64, 1..20_000_i64), 1..40),
        ) {
            let lost = |(i, (start, duration)): (usize, &(i64, i64))| span(i as u64 + 1, 1000, *start, *duration);
            let spans: Vec<_> = spans.iter().enumerate().map(lost).collect();
            let nodes = tree_of(&spans).nodes;
            // Clocks were aligned afterwards.
            let before: Vec<Node> =
                nodes.iter().map(|x| Node { start: x.start - x.shift, children: Vec::new(), ..*x }).collect();
            for (n, node) in nodes.iter().enumerate() {
                let found = Some(node.parent).filter(|p| *p != NONE).map(|p| nodes[p as usize].duration);
                proptest::prop_assert_eq!(found, shortest_around(&before, n));
            }
        }
    }

    #[test]
    fn spans_that_are_their_own_ancestors_stay_in_their_time() {
        let own = tree_of(&[span(7, 7, 1000, 50)]);
        assert_eq!((own.start, own.duration), (1000, 50));
        let two = tree_of(&[span(1, 2, 1000, 50), span(2, 1, 1010, 20)]);
        assert_eq!((two.start, two.nodes[0].parent, two.nodes[1].parent), (1000, NONE, 0));
        // A circle of three, a span below it, and a sound tree beside it.
        let many = [(5, 6), (6, 7), (7, 5), (8, 6), (1, 0), (2, 1)];
        let many: Vec<_> = many.iter().map(|(id, parent)| span(*id, *parent, *id as i64, 3)).collect();
        let trace = tree_of(&many);
        assert_eq!(from_the_roots(&trace.nodes).len(), many.len(), "each can be reached");
    }
}
