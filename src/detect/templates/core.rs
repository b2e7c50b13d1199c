//! What comes and goes in a line and makes no other statement of it: `offers 10.0.0.9 to a1 (desk-7) via b1, code: 7, …`.

use std::ops::Range;

use super::{
    Miner, envelope, fields,
    hash::VAR_HASH,
    key::{key_around, key_of_hashes},
    node::{LEVEL, Node, NodeId, Piece, SPACED},
    phrase::MAX_MIDDLE,
    scan::Kind,
};

/// Words besides that tell what is said.
const TELLING: usize = 3;
/// The same where words in round brackets are not looked at, and where values are among them.
const TELLING_BESIDE_WORDS: usize = 4;
const TELLING_BESIDE_TEXT: usize = 5;
/// Words of a label before a colon.
const MAX_LABEL: usize = 3;

impl Miner {
    /// Merges a new node with those that differ only in the words of a group in round brackets, which say why:
    /// `zone a.example failed (not exists)`.
    pub(super) fn note_groups(&mut self, node: NodeId) {
        let n = &self.nodes[node as usize];
        let hashes = n.hashes();
        let found: Vec<_> =
            groups(n).into_iter().map(|inside| (key_around(&hashes, inside.clone()), inside)).collect();
        for (key, inside) in found {
            if let Some(general) = self.rows.get(key) {
                self.close_few(self.root(general));
                self.merge(node, general);
                continue;
            }
            let is_same = |other: &NodeId| {
                let other = &self.nodes[*other as usize];
                let length = other.pieces.len().checked_sub(hashes.len() - inside.len());
                let around = |length| key_around(&other.hashes(), inside.start..inside.start + length);
                other.serial != 0 && length.is_some_and(|length| length > 0 && around(length) == key)
            };
            match self.groups.get(key) {
                Some(other) if is_same(&other) => {
                    let general = self.create_around(node, inside, key);
                    self.close_few(self.root(other));
                    self.merge(other, general);
                    self.merge(node, general);
                    self.note_core(general);
                }
                known => {
                    known.inspect(|_| self.groups.remove(key));
                    self.groups.insert(key, node);
                }
            }
        }
    }

    /// Merges a new node with one that has the same core.
    pub(super) fn note_core(&mut self, node: NodeId) {
        let n = &self.nodes[node as usize];
        let (own, shape) = (n.key, n.shape);
        let from = self.envelope.depth(&n.hashes()).max(envelope::head(n));
        let Some(key) = core(n, from) else { return };
        let is_same = |other: &NodeId| {
            let other = self.nodes.get(*other as usize).filter(|n| n.serial != 0);
            other.is_some_and(|n| n.key == key || core(n, from) == Some(key))
        };
        let bare = if key == own { None } else { self.rows.get(key).filter(is_same) };
        match bare.or_else(|| self.cores.get(key).filter(is_same)) {
            // Those of the same shape are the business of `Evidence`.
            Some(other) if self.nodes[other as usize].shape == shape => {}
            Some(other) => {
                self.close_few(self.root(other));
                self.merge(node, other);
            }
            None if key == own => {}
            None => {
                self.cores.remove(key);
                self.cores.insert(key, node);
            }
        }
    }
}

/// The insides of groups in round brackets that hold words, beside words enough.
fn groups(node: &Node) -> Vec<Range<usize>> {
    let pieces: Vec<_> = node.texts().collect();
    let words = |of: &[Text<'_>]| of.iter().filter(|(piece, _)| is_word(piece)).count();
    let all = words(&pieces);
    let insides = (0..pieces.len()).filter_map(|open| {
        let inside = open + 1..group(&pieces, open)? - 1;
        if inside.len() > MAX_MIDDLE {
            return None;
        }
        let of = &pieces[inside.clone()];
        why(of).filter(|telling| all - words(of) >= *telling).map(|_| inside)
    });
    insides.collect()
}

/// The identity of a line's core: of what is left, behind `from` tokens that stand before all messages, without values before
/// all words, labelled fields, and values in round brackets. `None` if it says too little. Fields that end a line without
/// marks between stay: they tell statements apart.
fn core(node: &Node, from: usize) -> Option<u64> {
    let pieces: Vec<_> = node.texts().collect();
    let hashes = node.hashes();
    let last = pieces.iter().rposition(|(piece, _)| is_word(piece))?;
    let mut kept = hashes[..from.min(hashes.len())].to_vec();
    let (mut words, mut telling, mut i) = (0, TELLING, leading(&pieces, from));
    while i < pieces.len() {
        if let Some(end) = field(&pieces, i).filter(|end| *end <= last || is_mark(&pieces, i, b",;")) {
            i = end;
        } else if let Some(end) = group(&pieces, i) {
            let besides = why(&pieces[i + 1..end - 1]);
            if besides.is_some() || end == pieces.len() {
                kept.extend([hashes[i], VAR_HASH, hashes[end - 1]]);
            }
            telling = telling.max(besides.unwrap_or(0));
            i = end;
        } else {
            if is_mark(&pieces, i + 1, b"=") && fields::NAMES.contains(&pieces[i].1) {
                // What is said is in a field.
                return None;
            }
            words += usize::from(is_word(pieces[i].0));
            kept.push(hashes[i]);
            i += 1;
        }
    }
    (words >= telling).then(|| key_of_hashes(&kept))
}

type Text<'a> = (&'a Piece, &'a [u8]);

fn is_word(piece: &Piece) -> bool {
    matches!(piece.kind, Kind::Word | Kind::Suspect)
}

/// If a group holds words: how many there must be besides.
fn why(inside: &[Text<'_>]) -> Option<usize> {
    let has = |is: fn(&Piece) -> bool| inside.iter().any(|(piece, _)| is(piece));
    match (has(is_word), has(|piece| piece.kind == Kind::Var)) {
        (false, _) => None,
        (true, false) => Some(TELLING_BESIDE_WORDS),
        (true, true) => Some(TELLING_BESIDE_TEXT),
    }
}

fn is_mark(pieces: &[Text<'_>], i: usize, of: &[u8]) -> bool {
    pieces.get(i).is_some_and(|(piece, text)| piece.kind == Kind::Punct && of.contains(&text[0]))
}

/// Behind the values before all words: `10.0.0.7:80 …`, `[7] a1: …`.
fn leading(pieces: &[Text<'_>], from: usize) -> usize {
    let told = |i: &usize| pieces[*i].0.kind != Kind::Var && !is_mark(pieces, *i, b"[]():");
    let Some(first) = (from..pieces.len()).find(told) else { return from };
    let has_value = pieces[from..first].iter().any(|(piece, _)| piece.kind == Kind::Var);
    let (word, _) = pieces[first];
    if has_value && is_word(word) && word.flags & (SPACED | LEVEL) == SPACED { first } else { from }
}

/// Where a labelled field ends that begins here: `id=<*>`, `, check duration: <*>`.
fn field(pieces: &[Text<'_>], from: usize) -> Option<usize> {
    let parted = is_mark(pieces, from, b",;");
    let label = from + usize::from(parted);
    let (first, name) = pieces.get(label)?;
    if !is_word(first) || first.is_numbered() || first.flags & SPACED == 0 && label > 0 {
        return None;
    }
    if is_mark(pieces, label + 1, b"=") {
        let told = fields::NAMES.contains(name);
        let has_value = matches!(pieces.get(label + 2)?.0.kind, Kind::Var | Kind::Suspect);
        return (has_value && !told).then(|| value_end(pieces, label + 3));
    }
    let words = pieces[label..].iter().take_while(|(piece, _)| piece.kind == Kind::Word).count();
    let colon = label + words;
    let has_value = is_mark(pieces, colon, b":") && pieces.get(colon + 1)?.0.kind == Kind::Var;
    if !parted || words > MAX_LABEL || !has_value {
        return None;
    }
    let end = value_end(pieces, colon + 2);
    (end == pieces.len() || is_mark(pieces, end, b",;.")).then_some(end)
}

/// Where a value ends of which all up to `from` was read, `<*> [<*>]:<*>`: before a word, or a mark that parts.
fn value_end(pieces: &[Text<'_>], mut from: usize) -> usize {
    let mut depth = 0_usize;
    while let Some((piece, text)) = pieces.get(from) {
        match (piece.kind, *text) {
            (Kind::Var, _) | (Kind::Punct, b":") => {}
            (Kind::Punct, b"(" | b"[" | b"<") => depth += 1,
            (Kind::Punct, b")" | b"]" | b">") if depth > 0 => depth -= 1,
            _ => break,
        }
        from += 1;
    }
    from
}

/// Where a group in round brackets ends that begins here, after a blank.
fn group(pieces: &[Text<'_>], from: usize) -> Option<usize> {
    if from == 0 || !is_mark(pieces, from, b"(") || pieces[from].0.flags & SPACED == 0 {
        return None;
    }
    let mut depth = 0_usize;
    for i in from..pieces.len() {
        if is_mark(pieces, i, b"(") {
            depth += 1;
        } else if is_mark(pieces, i, b")") {
            depth -= 1;
            if depth == 0 {
                return Some(i + 1);
            }
        }
    }
    None
}
