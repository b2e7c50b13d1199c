//! Puts spans together to traces: who called whom on behalf of what, and how long each span worked by itself.

use super::hash::Map;
use crate::model::case::{Case, CaseSpan, Sym};

pub const NONE: u32 = u32::MAX;
/// Clocks of root spans and of proxies are often cut to milliseconds.
const TOLERANCE: i64 = 1_000;

/// One span in its tree.
pub struct Node {
    /// Index into `Case::spans`.
    pub span: u32,
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

pub struct Trace {
    pub start: i64,
    pub duration: i64,
    pub nodes: Vec<Node>,
}

pub fn assemble(case: &Case) -> Vec<Trace> {
    let mut at: Map<u64, usize> = Map::default();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (i, s) in case.spans.iter().enumerate() {
        let n = *at.entry(s.trace).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[n].push(i as u32);
    }
    groups.into_iter().map(|g| tree(case, g)).collect()
}

fn tree(case: &Case, mut spans: Vec<u32>) -> Trace {
    let span = |i: u32| &case.spans[i as usize];
    spans.sort_by_key(|&i| (span(i).start, -span(i).duration));
    let at: Map<u64, u32> = spans.iter().enumerate().map(|(n, &i)| (span(i).id, n as u32)).collect();
    let mut nodes: Vec<Node> = spans
        .iter()
        .enumerate()
        .map(|(n, &i)| Node {
            span: i,
            parent: at.get(&span(i).parent).copied().filter(|&p| p != n as u32).unwrap_or(NONE),
            children: Vec::new(),
            entry: span(i).operation,
            caller: (NONE, NONE),
            first: true,
            own: 0,
        })
        .collect();
    adopt(case, &mut nodes);
    for n in 0..nodes.len() {
        if nodes[n].parent != NONE {
            let p = nodes[n].parent as usize;
            nodes[p].children.push(n as u32);
        }
    }
    name_callers(case, &mut nodes);
    for n in 0..nodes.len() {
        nodes[n].own = own_time(case, &nodes, n);
    }
    let root = spans.first().map(|&i| span(i));
    Trace { start: root.map_or(0, |s| s.start), duration: root.map_or(0, |s| s.duration), nodes }
}

fn inside(inner: &CaseSpan, outer: &CaseSpan) -> bool {
    outer.start <= inner.start + TOLERANCE
        && outer.start + outer.duration >= inner.start + inner.duration - TOLERANCE
}

/// A span whose parent was lost goes below the shortest span that it ran inside.
fn adopt(case: &Case, nodes: &mut [Node]) {
    let span = |n: &Node| &case.spans[n.span as usize];
    for n in 0..nodes.len() {
        let me = span(&nodes[n]);
        if nodes[n].parent != NONE || me.parent == 0 {
            continue;
        }
        let mut best: Option<usize> = None;
        for (m, other) in nodes.iter().enumerate() {
            let s = span(other);
            let longer = s.duration > me.duration || (s.duration == me.duration && m < n);
            if m == n
                || !longer
                || !inside(me, s)
                || best.is_some_and(|b| span(&nodes[b]).duration <= s.duration)
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

fn name_callers(case: &Case, nodes: &mut [Node]) {
    let service = |n: &Node| case.spans[n.span as usize].service;
    let mut stack: Vec<u32> = (0..nodes.len() as u32).filter(|&n| nodes[n as usize].parent == NONE).collect();
    let mut first_call: Option<(i64, (Sym, Sym))> = None;
    while let Some(n) = stack.pop() {
        let (me, entry, caller, first) = {
            let node = &nodes[n as usize];
            (service(node), node.entry, node.caller, node.first)
        };
        for c in nodes[n as usize].children.clone() {
            let other = service(&nodes[c as usize]);
            let start = case.spans[nodes[c as usize].span as usize].start;
            let child = &mut nodes[c as usize];
            if other == me {
                (child.entry, child.caller, child.first) = (entry, caller, first);
            } else {
                (child.caller, child.first) = ((me, entry), false);
                if first && first_call.is_none_or(|f| start < f.0) {
                    first_call = Some((start, (other, child.entry)));
                }
            }
            stack.push(c);
        }
    }
    if let Some((_, call)) = first_call {
        nodes.iter_mut().filter(|n| n.first).for_each(|n| n.caller = call);
    }
}

/// The span's duration less the union of what ran inside it: its children, and its own service's siblings (reactive servers
/// end their handler's span beside the client span that it started).
fn own_time(case: &Case, nodes: &[Node], n: usize) -> i64 {
    let me = &case.spans[nodes[n].span as usize];
    let (from, to) = (me.start, me.start + me.duration);
    let mut cover: Vec<(i64, i64)> = Vec::new();
    let mut take = |s: &CaseSpan| cover.push((s.start, s.start + s.duration));
    for &c in &nodes[n].children {
        take(&case.spans[nodes[c as usize].span as usize]);
    }
    if nodes[n].parent != NONE {
        for &c in &nodes[nodes[n].parent as usize].children {
            let s = &case.spans[nodes[c as usize].span as usize];
            if c as usize != n
                && s.service == me.service
                && s.start >= from
                && inside(s, me)
                && s.duration < me.duration
            {
                take(s);
            }
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
