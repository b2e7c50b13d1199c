//! Mines log templates from a stream of lines: hands on, for each line, the id of its template.
//!
//! A line's identity is `n + Σ hash(token i) · p(i)` modulo 2⁶⁴ over its masked tokens, so "the same line with position i
//! variable" costs one subtraction and one addition. A known identity is answered by one look-up. An unknown one is matched
//! with templates that have learned variables, then becomes a template itself and leaves evidence: when the same rest has
//! been seen around four different words, that position is a variable, and the templates merge into the oldest.

mod evidence;
mod scan;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use evidence::Evidence;
use scan::{Kind, Scanner, Token, VAR_HASH};
pub use scan::{hash, mix};
use serde::{Deserialize, Serialize};

/// Names a template within its service; made from its first line, so it is the same after a restart.
pub type TemplateId = u64;

/// What a line turned out to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub id: TemplateId,
    /// Nothing like it was known.
    pub new: bool,
    /// Templates that are no more.
    pub gone: Vec<Gone>,
}

/// The end of a template.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gone {
    /// It was found to be the same as another one, which lives on.
    Merged { from: TemplateId, into: TemplateId },
    /// It made room for newer ones.
    Forgotten(TemplateId),
}

/// One service's templates, at most `max` of them.
#[derive(Serialize, Deserialize)]
pub struct Miner {
    max: usize,
    /// Lines so far; the clock of the LRU.
    lines: u64,
    #[serde(skip)]
    scanner: Scanner,
    by_key: KeyMap<TemplateId>,
    templates: KeyMap<Template>,
    /// Templates with learned variables, by token count and first word.
    groups: KeyMap<Vec<TemplateId>>,
    evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
struct Template {
    pieces: Box<[Piece]>,
    /// Identities that lead here by one look-up; at most `MAX_KEYS`.
    keys: Vec<u64>,
    born: u64,
    used: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Piece {
    kind: Kind,
    text: Box<str>,
    spaced: bool,
    hash: u64,
}

/// By a hash.
pub type KeyMap<T> = HashMap<u64, T, BuildHasherDefault<Keyed>>;

/// Keys are hashes already.
#[derive(Default)]
pub struct Keyed(u64);

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = scan::hash(bytes);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Identities of one template that are kept for the fast path; a template with a busy variable has no end of them.
const MAX_KEYS: usize = 64;
/// Templates of one group that are compared with an unknown line.
const MAX_GROUP: usize = 128;

impl Miner {
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            lines: 0,
            scanner: Scanner::default(),
            by_key: KeyMap::default(),
            templates: KeyMap::default(),
            groups: KeyMap::default(),
            evidence: Evidence::new(max.max(1) * 16),
        }
    }

    /// The template of a message.
    pub fn add(&mut self, message: &str) -> Found {
        self.lines += 1;
        let mut scanner = std::mem::take(&mut self.scanner);
        let (tokens, line) = scanner.scan(message);
        let key = key(tokens.iter().map(|token| token.hash));
        let known = self.by_key.get(&key).and_then(|id| Some((*id, self.templates.get_mut(id)?)));
        let found = match known {
            Some((id, template)) => {
                template.used = self.lines;
                Found { id, ..Found::default() }
            }
            None => self.learn(key, tokens, line),
        };
        self.scanner = scanner;
        found
    }

    /// The template as people read it: `connection refused to <*>`.
    pub fn text(&self, id: TemplateId) -> String {
        let mut out = String::new();
        for piece in self.templates.get(&id).map_or(&[][..], |t| &t.pieces) {
            if piece.spaced && !out.is_empty() {
                out.push(' ');
            }
            out.push_str(if piece.kind == Kind::Var { "<*>" } else { &piece.text });
        }
        out
    }

    pub fn len(&self) -> usize {
        self.templates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    fn learn(&mut self, key: u64, tokens: &[Token], line: &str) -> Found {
        let known = self.general(tokens).or_else(|| self.masked_twin(key, tokens));
        if let Some(id) = known {
            self.lead(key, id);
            return Found { id, ..Found::default() };
        }
        let piece = |t: &Token| Piece {
            kind: t.kind,
            text: if t.kind == Kind::Var { "".into() } else { line[t.start..t.end].into() },
            spaced: t.spaced,
            hash: t.hash,
        };
        let pieces = tokens.iter().map(piece).collect();
        let id = mix(key);
        let template = Template { pieces, keys: vec![key], born: self.lines, used: self.lines };
        self.templates.insert(id, template);
        self.by_key.insert(key, id);
        let mut found = Found { id, new: true, gone: Vec::new() };
        found.id = self.generalise(key, id, &mut found.gone);
        found.new = found.id == id;
        self.make_room(&mut found);
        found
    }

    /// The template with learned variables that fits, the most specific one.
    fn general(&self, tokens: &[Token]) -> Option<TemplateId> {
        let group = self.groups.get(&group(tokens.iter().map(|t| (t.kind, t.hash))))?;
        let fits = |id: &&TemplateId| self.templates.get(*id).is_some_and(|t| t.fits(tokens));
        group.iter().filter(fits).max_by_key(|id| self.templates[*id].constants()).copied()
    }

    /// The template of the same line with an obvious variable where this one has a word.
    fn masked_twin(&self, key: u64, tokens: &[Token]) -> Option<TemplateId> {
        let constants = tokens.iter().filter(|t| t.kind == Kind::Word).count();
        let words = tokens.iter().enumerate().filter(|(_, t)| t.kind == Kind::Word && constants > 2);
        words.skip(1).find_map(|(i, t)| self.by_key.get(&without(key, i, t.hash)).copied())
    }

    /// Lets the line of `key` lead to `id`.
    fn lead(&mut self, key: u64, id: TemplateId) {
        let Some(template) = self.templates.get_mut(&id) else { return };
        template.used = self.lines;
        if template.keys.len() < MAX_KEYS {
            template.keys.push(key);
            self.by_key.insert(key, id);
        }
    }

    /// Leaves evidence for a new identity and merges what it proves to be one; returns the id that lives on.
    fn generalise(&mut self, mut key: u64, mut id: TemplateId, gone: &mut Vec<Gone>) -> TemplateId {
        while let Some((position, members)) = self.evidence.add(key, id, &self.templates[&id].words()) {
            let living = members.into_iter().filter(|m| self.templates.contains_key(m));
            let members: Vec<TemplateId> = living.collect();
            let oldest = members.iter().copied().min_by_key(|m| self.templates[m].born).unwrap_or(id);
            key = without(key, position, self.templates[&id].pieces[position].hash);
            for member in members.into_iter().filter(|m| *m != oldest) {
                self.absorb(member, oldest);
                gone.push(Gone::Merged { from: member, into: oldest });
            }
            id = oldest;
            self.set_variable(id, position, key);
        }
        id
    }

    fn absorb(&mut self, from: TemplateId, into: TemplateId) {
        let Some(template) = self.templates.remove(&from) else { return };
        self.leave_group(from, template.group());
        for key in template.keys {
            self.by_key.remove(&key);
            self.lead(key, into);
        }
    }

    fn set_variable(&mut self, id: TemplateId, position: usize, key: u64) {
        let Some(template) = self.templates.get_mut(&id) else { return };
        let before = template.group();
        if let Some(piece) = template.pieces.get_mut(position) {
            *piece = Piece { kind: Kind::Var, text: "".into(), spaced: piece.spaced, hash: VAR_HASH };
        }
        let after = template.group();
        if before != after {
            self.leave_group(id, before);
        }
        let group = self.groups.entry(after).or_default();
        if !group.contains(&id) && group.len() < MAX_GROUP {
            group.push(id);
        }
        self.lead(key, id);
    }

    fn leave_group(&mut self, id: TemplateId, group: u64) {
        if let Some(members) = self.groups.get_mut(&group) {
            members.retain(|member| *member != id);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Forgets the tenth that was unused longest once there are too many; a tenth at a time makes it cheap.
    fn make_room(&mut self, found: &mut Found) {
        if self.templates.len() <= self.max {
            return;
        }
        let mut ages: Vec<(u64, TemplateId)> = self.templates.iter().map(|(id, t)| (t.used, *id)).collect();
        ages.sort_unstable();
        for (_, id) in ages.into_iter().take((self.max / 10).max(1)).filter(|(_, id)| *id != found.id) {
            if let Some(template) = self.templates.remove(&id) {
                self.leave_group(id, template.group());
                for key in &template.keys {
                    self.by_key.remove(key);
                }
                found.gone.push(Gone::Forgotten(id));
            }
        }
    }
}

impl Template {
    fn fits(&self, tokens: &[Token]) -> bool {
        self.pieces.len() == tokens.len()
            && self.pieces.iter().zip(tokens).all(|(piece, token)| match piece.kind {
                Kind::Var => token.kind != Kind::Punct,
                kind => kind == token.kind && piece.hash == token.hash,
            })
    }

    fn constants(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.kind == Kind::Word).count()
    }

    /// Positions and hashes of the constant words.
    fn words(&self) -> Vec<(usize, u64)> {
        let words = self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Word);
        words.map(|(position, piece)| (position, piece.hash)).collect()
    }

    fn group(&self) -> u64 {
        group(self.pieces.iter().map(|piece| (piece.kind, piece.hash)))
    }
}

/// Token count and the first token, if that is a word.
fn group(tokens: impl ExactSizeIterator<Item = (Kind, u64)>) -> u64 {
    let count = tokens.len() as u64;
    let first = tokens.into_iter().next().filter(|(kind, _)| *kind == Kind::Word).map_or(0, |(_, hash)| hash);
    mix(first ^ count)
}

fn key(hashes: impl Iterator<Item = u64>) -> u64 {
    hashes.enumerate().fold(0x51_7cc1_b727, |sum: u64, (i, hash)| sum.wrapping_add(term(i, hash)))
}

/// The identity with a variable instead of the word at `position`.
fn without(key: u64, position: usize, hash: u64) -> u64 {
    key.wrapping_sub(term(position, hash)).wrapping_add(term(position, VAR_HASH))
}

fn term(position: usize, hash: u64) -> u64 {
    // An odd factor for each position makes the order of words count.
    hash.wrapping_mul(mix(position as u64 + 1) | 1)
}

#[cfg(test)]
mod tests;
