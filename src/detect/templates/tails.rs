//! A labelled field at the end that comes and goes, `…, host: "a", referrer: "b"`, does not make another template.

use super::{
    Miner,
    key::key_of_hashes,
    node::{Node, NodeId},
    scan::Kind,
};

/// Tokens that the value of the field before may have.
const MAX_VALUE: usize = 3;
/// Words before the field that tell what is said, where no other field does.
const TELLING: usize = 3;

impl Miner {
    /// Merges a new node with the one that is the same without its last field, or with one more.
    pub(super) fn note_tail(&mut self, node: NodeId) {
        let n = &self.nodes[node as usize];
        let key = n.key;
        if let Some(length) = without_last_field(n) {
            let short = key_of_hashes(&n.hashes()[..length]);
            match self.rows.get(short) {
                Some(short) => self.merge(node, short),
                None if self.tails.get(short).is_none() => self.tails.insert(short, node),
                None => {}
            }
        }
        let is_longer = |long: &NodeId| {
            self.nodes.get(*long as usize).is_some_and(|n| {
                n.serial != 0
                    && without_last_field(n).is_some_and(|length| key_of_hashes(&n.hashes()[..length]) == key)
            })
        };
        if let Some(long) = self.tails.get(key).filter(is_longer) {
            self.merge(node, long);
        }
    }
}

/// How many tokens stand before the last field, `, label: <*>`, if it is one of several with labels or follows a sentence.
fn without_last_field(node: &Node) -> Option<usize> {
    let texts: Vec<_> = node.texts().collect();
    let mark = |i: usize, of: &[u8]| {
        texts.get(i).is_some_and(|(piece, text)| piece.kind == Kind::Punct && of.contains(&text[0]))
    };
    let label = |i: &usize| {
        matches!(texts[*i].0.kind, Kind::Word | Kind::Suspect)
            && mark(*i + 1, b":=")
            && !texts[*i].0.is_numbered()
    };
    let last = texts.len().checked_sub(3)?;
    if !label(&last) || texts[last + 2].0.kind != Kind::Var {
        return None;
    }
    let end = match last.checked_sub(1)? {
        before if mark(before, b",;") => before,
        _ => return None,
    };
    let words =
        texts[..end].iter().filter(|(piece, _)| matches!(piece.kind, Kind::Word | Kind::Suspect)).count();
    if words >= TELLING {
        return Some(end);
    }
    let before = (0..end).rev().find(label)?;
    let value = end.checked_sub(before + 2)?;
    (1..=MAX_VALUE).contains(&value).then_some(end)
}
