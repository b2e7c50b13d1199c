//! Who speaks stands in brackets before what is said: `[Reader id=<*>, of=<*>] Connection lost`, `[Writer id=<*>] Connection
//! lost`. One statement tells it for all of them.

use super::{
    Miner,
    key::key_of_hashes,
    node::{Node, NodeId, Piece, SPACED},
    scan::Kind,
};

/// Words before the bracket at most; behind more of them it belongs to what is said.
const BEFORE: usize = 1;
/// Words and values beside the bracket that make it the same statement.
const SAME: usize = 3;

impl Miner {
    /// Merges a new node with the one that is the same but for what its leading bracket holds, if that is a value at least.
    pub(super) fn note_brackets(&mut self, node: NodeId) {
        let n = &self.nodes[node as usize];
        let from = self.envelope.depth(&n.hashes());
        let key = beside(n, from).unwrap_or(n.key);
        let is_same = |other: &NodeId| {
            let n = self.nodes.get(*other as usize).filter(|n| n.serial != 0);
            n.is_some_and(|n| n.key == key || beside(n, from) == Some(key))
        };
        let other = if key == n.key { None } else { self.rows.get(key).filter(is_same) };
        match other.or_else(|| self.brackets.get(key)) {
            Some(other) if is_same(&other) => {
                if other != node {
                    self.close_few(self.root(other));
                    self.merge(node, other);
                }
            }
            _ if key == n.key => {}
            known => {
                known.inspect(|_| self.brackets.remove(key));
                self.brackets.insert(key, node);
            }
        }
    }
}

/// The identity of a line without what its leading bracket holds, after `from` tokens that all lines share.
fn beside(node: &Node, from: usize) -> Option<u64> {
    let pieces: Vec<_> = node.texts().collect();
    let is_told = |i: &usize| pieces[*i].0.kind != Kind::Punct;
    let open = (from..pieces.len())
        .find(|i| opens(pieces[*i]) && (*i == from || pieces[*i].0.flags & SPACED != 0))?;
    let close = closing(&pieces, open)?;
    let before = (from..open).filter(is_told).count();
    let after = (close..pieces.len()).filter(is_told).count();
    let holds_value = pieces[open..close].iter().any(|(piece, _)| piece.kind == Kind::Var);
    if before > BEFORE || before + after < SAME || !holds_value {
        return None;
    }
    let mut hashes = node.hashes();
    // Before all else it may be missing too.
    hashes.drain(if before == 0 { open..close + 1 } else { open + 1..close });
    Some(key_of_hashes(&hashes))
}

fn opens((piece, text): (&Piece, &[u8])) -> bool {
    piece.kind == Kind::Punct && matches!(text, b"(" | b"[")
}

/// The place of the mark that closes what opens at `open`.
fn closing(pieces: &[(&Piece, &[u8])], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, (piece, text)) in pieces.iter().enumerate().skip(open) {
        if opens((piece, text)) {
            depth += 1;
        } else if piece.kind == Kind::Punct && matches!(*text, b")" | b"]") {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}
