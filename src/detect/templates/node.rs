//! One template, or one line's part of it, in little memory.

use std::ops::Range;

use super::{
    hash::{self, VAR_HASH},
    key::shape_of,
    params::Params,
    scan::{Kind, Token, exception_name, is_humped, is_level},
};

pub type NodeId = u32;

/// Whitespace comes before it.
pub const SPACED: u8 = 1;
/// All capitals in a line that has others: the name of a state.
pub const CAPS: u8 = 2;
/// A key whose number does not count.
pub const NUMBERED: u8 = 4;
/// A word of several parts, like names of things: `libpam-modules`, `ssh.service`, `RamFilter`.
pub const COMPOUND: u8 = 8;
/// A compound that no sentence has: `feature.x`, `max_open`.
pub const JOINED: u8 = 16;
/// How grave a line is: `warn`.
pub const LEVEL: u8 = 32;
/// A compound in humps: `RamFilter`.
pub const HUMPED: u8 = 64;

/// One token of a template.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub kind: Kind,
    pub flags: u8,
    /// Of its text, in bytes; 0 for a variable.
    pub length: u16,
}

impl Piece {
    pub fn is_numbered(&self) -> bool {
        self.flags & NUMBERED != 0
    }
}

/// A line that was seen, or what several of them have in common (general).
#[derive(Default)]
pub struct Node {
    pub key: u64,
    /// Under which it is known outside.
    pub public: u64,
    /// Tells this use of the slot from later ones; 0 = free.
    pub serial: u32,
    /// Itself, for a root.
    pub parent: NodeId,
    pub children: u32,
    /// Few words were seen at its one learned variable: `Miner::few` has their nodes.
    pub few: bool,
    /// The children are shown, not this: its few words are names of events.
    pub apart: bool,
    /// Came of a line, not of a merge.
    pub leaf: bool,
    /// One more than the place of the variable that stands for several tokens; 0 = none does.
    pub phrase: u8,
    pub shape: u64,
    pub pieces: Box<[Piece]>,
    /// The texts of the constant pieces, one after the other.
    pub text: Box<[u8]>,
    pub params: Params,
}

impl Node {
    pub fn texts(&self) -> impl Iterator<Item = (&Piece, &[u8])> {
        let mut rest = &self.text[..];
        self.pieces.iter().map(move |piece| {
            let (text, after) = rest.split_at(usize::from(piece.length));
            rest = after;
            (piece, text)
        })
    }

    pub fn hashes(&self) -> Vec<u64> {
        let hash = |(piece, text): (&Piece, &[u8])| match piece.kind {
            Kind::Var => VAR_HASH,
            _ if piece.flags & NUMBERED != 0 => hash::numbered(text),
            _ => hash::hash(text),
        };
        self.texts().map(hash).collect()
    }

    /// As people read it: `connection refused to <*>`.
    pub fn shown(&self) -> String {
        let mut out = Vec::new();
        for (piece, text) in self.texts() {
            if piece.flags & SPACED != 0 && !out.is_empty() {
                out.push(b' ');
            }
            out.extend_from_slice(if piece.kind == Kind::Var { b"<*>" } else { text });
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// What its variables are in a line, in order.
    pub fn values<'a>(&self, tokens: &[Token], line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let (phrase, more) = match self.phrase {
            0 => (usize::MAX, 0),
            phrase => (usize::from(phrase) - 1, tokens.len().saturating_sub(self.pieces.len())),
        };
        let variables = self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Var);
        variables.filter_map(move |(i, _)| {
            let first = tokens.get(if i > phrase { i + more } else { i })?;
            let last = tokens.get(if i < phrase { i } else { i + more })?;
            line.get(first.start as usize..last.end as usize)
        })
    }

    /// Pieces and text with one variable instead of a range of pieces.
    pub fn around(&self, middle: Range<usize>) -> (Box<[Piece]>, Box<[u8]>) {
        let (mut pieces, mut kept) = (Vec::new(), Vec::new());
        for (i, (piece, text)) in self.texts().enumerate() {
            if i == middle.start {
                pieces.push(Piece { kind: Kind::Var, flags: piece.flags & SPACED, length: 0 });
            }
            if !middle.contains(&i) {
                pieces.push(*piece);
                kept.extend_from_slice(text);
            }
        }
        (pieces.into(), kept.into())
    }

    /// Length and punctuation.
    pub fn shape_of(&self) -> u64 {
        shape_of(self.texts().map(|(piece, text)| (piece.kind == Kind::Punct).then(|| hash::hash(text))))
    }

    /// Pieces and text with variables at the positions in `mask`.
    pub fn generalised(&self, mask: u128) -> (Box<[Piece]>, Box<[u8]>) {
        let mut kept = Vec::with_capacity(self.text.len());
        let pieces = self.texts().enumerate().map(|(i, (piece, text))| {
            if mask >> i & 1 == 1 {
                return Piece { kind: Kind::Var, flags: piece.flags & SPACED, length: 0 };
            }
            kept.extend_from_slice(text);
            *piece
        });
        let pieces = pieces.collect();
        (pieces, kept.into())
    }
}

/// What kinds of compound it is. The names of exceptions say what happened.
fn compound(word: &[u8]) -> u8 {
    let joined = |marks: &[u8]| {
        let by = |w: &[u8]| marks.contains(&w[1]) && w[0].is_ascii_alphabetic() && w[2].is_ascii_alphabetic();
        word.windows(3).any(by)
    };
    match () {
        () if exception_name(word) => 0,
        () if joined(b"._") => COMPOUND | JOINED,
        () if is_humped(word) => COMPOUND | HUMPED,
        () if joined(b"-") => COMPOUND,
        () => 0,
    }
}

/// Pieces and text of a line.
pub fn pieces_of(tokens: &[Token], line: &[u8]) -> (Box<[Piece]>, Box<[u8]>) {
    let lower = |t: &Token| matches!(t.kind, Kind::Word | Kind::Suspect) && !t.caps && t.end > t.start + 1;
    let mixed = tokens.iter().any(lower);
    let mut text = Vec::new();
    let pieces = tokens.iter().map(|t| {
        let length = if t.kind == Kind::Var { 0 } else { t.end - t.start };
        let word = &line[t.start as usize..t.end as usize];
        if length > 0 {
            text.extend_from_slice(word);
        }
        let flag = |on, bit| if on { bit } else { 0 };
        let flags = flag(t.spaced, SPACED)
            | flag(t.caps && mixed, CAPS)
            | flag(t.numbered, NUMBERED)
            | compound(word)
            | flag(is_level(word), LEVEL);
        Piece { kind: t.kind, flags, length: length as u16 }
    });
    let pieces = pieces.collect();
    (pieces, text.into())
}
