//! Services that send no spans (databases, queues, somebody else's) or none any more: what their callers tell of them. Hands on
//! a span for each call that nobody answered.

use super::hash::Map;
use crate::model::case::{Case, CaseSpan, Sym};

/// Spans that callers vouch for: each lasts as long as its caller waited, and failed if the call did.
pub fn spans(case: &Case) -> Vec<CaseSpan> {
    let mut spans = Vec::new();
    let waits: Map<(u64, u64), u32> = case
        .spans
        .iter()
        .enumerate()
        .filter(|(_, s)| s.peer.is_some_and(|peer| peer != s.service))
        .map(|(n, s)| ((s.trace, s.id), n as u32))
        .collect();
    if waits.is_empty() {
        return spans;
    }
    let mut answered: Map<u32, ()> = Map::default();
    // What a peer is called in its own spans, and what it does for a caller's operation: what was answered most often.
    let mut names: Map<Sym, Map<Sym, u32>> = Map::default();
    let mut work: Map<(Sym, Sym, Sym), Map<Sym, u32>> = Map::default();
    for s in &case.spans {
        let Some(&n) = waits.get(&(s.trace, s.parent)) else { continue };
        let caller = &case.spans[n as usize];
        let Some(peer) = caller.peer.filter(|_| caller.service != s.service) else { continue };
        answered.insert(n, ());
        *names.entry(peer).or_default().entry(s.service).or_default() += 1;
        *work
            .entry((caller.service, caller.operation, s.service))
            .or_default()
            .entry(s.operation)
            .or_default() += 1;
    }
    let most =
        |counts: &Map<Sym, u32>| counts.iter().max_by_key(|(sym, n)| (**n, **sym)).map(|(sym, _)| *sym);
    for (n, caller) in case.spans.iter().enumerate() {
        let Some(peer) = caller.peer.filter(|peer| *peer != caller.service) else { continue };
        if answered.contains_key(&(n as u32)) {
            continue;
        }
        let service = names.get(&peer).and_then(most).unwrap_or(peer);
        let usual = work.get(&(caller.service, caller.operation, service)).and_then(most);
        spans.push(CaseSpan {
            // Nobody refers to it.
            id: caller.id.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15,
            parent: caller.id,
            service,
            operation: usual.unwrap_or(caller.operation),
            // Inside of the caller's, so that it is what failed first.
            start: caller.start + 1,
            duration: (caller.duration - 2).max(0),
            peer: None,
            ..*caller
        });
    }
    spans
}
