//! Values of several words, whose number varies: `Started Daily apt download activities.` Finds what stands around them.
//!
//! A context is a line without its middle; it has the identity of the template that it would be. Two kinds of evidence, both
//! counted by hashes: many middles of different lengths beside the same words; and middles that come back beside other words
//! (`Starting …`, `Stopped …`), as names of things do and statements do not.

use std::{collections::HashSet, ops::Range};

use super::{
    Miner, envelope,
    hash::mix,
    key::key_around,
    node::{Node, NodeId, Piece},
    scan::Kind,
    table::{Aged, Recent},
};

/// Different middles that make a phrase, of two lengths at least: as many as words that are states.
const ENOUGH: usize = 8;
/// The same of middles that came back beside other words, with as many first words: as many as words that are values.
const CROSSED: usize = 4;
/// So many of them are remembered.
const MAX_CROSSED: usize = 4 * CROSSED;
/// Words beside the middle, with no mark between, that tell what is said.
const TELLING: usize = 3;
/// Tokens that a middle may have.
pub const MAX_MIDDLE: usize = 12;
/// Runs of words, from the beginning, whose middles are looked for elsewhere.
const RUNS: usize = 2;
/// Kinds of contexts that lines are tried with.
const MAX_FORMS: usize = 32;

/// Places where contexts are counted, at first.
const FIRST_COUNTS: usize = 8192;

/// So many tokens before a middle and after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Form {
    before: u8,
    after: u8,
}

pub struct Phrases {
    /// How often each context was seen, at a place that its hash gives; some share one, so it is only a hint.
    counts: Vec<u8>,
    noted: usize,
    max: usize,
    /// By middle: the context that it was last seen in.
    middles: Recent<u32>,
    /// By context: the first and the last words of middles that were seen in another one too, each once.
    crossed: Aged<Vec<[u32; 2]>>,
    /// Those of known phrases.
    forms: Vec<Form>,
}

impl Phrases {
    /// For `max` nodes.
    pub fn new(max: usize) -> Self {
        Self {
            counts: vec![0; FIRST_COUNTS],
            noted: 0,
            max,
            middles: Recent::new(max),
            crossed: Aged::new(max / 8),
            forms: Vec::new(),
        }
    }

    pub fn know(&mut self, form: Form) {
        if self.forms.len() < MAX_FORMS && !self.forms.contains(&form) {
            self.forms.push(form);
        }
    }

    /// Counts a context; true when it is time to look who shares it.
    fn count(&mut self, context: u64) -> bool {
        self.noted += 1;
        if self.noted > self.counts.len() {
            // What was counted is forgotten: other places, or too many at each.
            let more = if self.counts.len() < self.max { 2 } else { 1 };
            self.counts = vec![0; self.counts.len() * more];
            self.noted = 0;
        }
        let place = mix(context) as usize & (self.counts.len() - 1);
        let count = &mut self.counts[place];
        *count = count.saturating_add(1);
        usize::from(*count) >= ENOUGH && count.is_power_of_two()
    }

    /// Notes a middle; true while the context has enough of them that were seen elsewhere too.
    fn cross(&mut self, middle: &[u64], context: u64) -> bool {
        let key = middle.iter().fold(1, |key, hash| mix(key ^ hash));
        let own = mix(context) as u32;
        let other = self.middles.get(key).filter(|other| *other != own);
        self.middles.remove(key);
        self.middles.insert(key, own);
        for context in other.into_iter().flat_map(|other| [other, own]) {
            let ends = self.crossed.entry(u64::from(context));
            let new = [middle[0] as u32, middle[middle.len() - 1] as u32];
            if ends.len() < MAX_CROSSED && !ends.iter().any(|old| old[0] == new[0]) {
                ends.push(new);
            }
        }
        // What most of them end with tells what is said: `received a vendor ID`, `received b vendor ID`.
        let own = self.crossed.peek(u64::from(own)).filter(|ends| ends.len() >= CROSSED);
        own.is_some_and(|ends| {
            let same = |last: u32| ends.iter().filter(|end| end[1] == last).count();
            ends.iter().all(|end| same(end[1]) * 2 <= ends.len())
        })
    }
}

impl Form {
    /// The tokens of the middle of a line of `length`.
    fn middle(self, length: usize) -> Option<Range<usize>> {
        let middle = usize::from(self.before)..length.checked_sub(usize::from(self.after))?;
        (1..=MAX_MIDDLE).contains(&middle.len()).then_some(middle)
    }

    pub fn of(node: &Node) -> Option<Self> {
        let before = node.phrase.checked_sub(1)?;
        Some(Self { before, after: (node.pieces.len() - usize::from(before) - 1) as u8 })
    }
}

impl Miner {
    /// The template with a phrase that this line is an instance of.
    pub(super) fn phrase_of(&self, hashes: &[u64]) -> Option<NodeId> {
        self.phrases.forms.iter().find_map(|form| {
            let key = key_around(hashes, form.middle(hashes.len())?);
            self.rows.get(key).filter(|node| self.nodes[*node as usize].phrase == form.before + 1)
        })
    }

    /// Notes the contexts of a new line; merges those that share one, when it is proven to stand around values.
    pub(super) fn note_phrases(&mut self, node: NodeId) {
        let n = &self.nodes[node as usize];
        let hashes = n.hashes();
        let from = self.envelope.depth(&hashes).max(envelope::head(n));
        let (length, mut runs) = (hashes.len(), 0);
        let mut found = Vec::new();
        for run in runs_of(&n.pieces, from) {
            for middle in tellings(&n.pieces, run.clone()) {
                let key = key_around(&hashes, middle.clone());
                if self.phrases.count(key) {
                    found.push((middle, key, ENOUGH));
                }
            }
            if run.len() > 1 && runs < RUNS {
                runs += 1;
                // After one word only: `Failed to …` and `Unable to …` are followed by statements.
                let (start, end) = (run.start + 1, trimmed(&n.pieces));
                // One word is the business of `Evidence`.
                if end < start + 2 || end > start + MAX_MIDDLE {
                    continue;
                }
                let key = key_around(&hashes, start..end);
                if self.phrases.cross(&hashes[start..end], key) {
                    found.push((start..end, key, CROSSED));
                }
            }
        }
        for (middle, key, enough) in found {
            let form = Form { before: middle.start as u8, after: (length - middle.end) as u8 };
            self.open_phrase(form, key, enough);
        }
    }

    /// Merges all lines around a context, if they are enough.
    fn open_phrase(&mut self, form: Form, key: u64, enough: usize) {
        if self.rows.get(key).is_some_and(|node| self.nodes[node as usize].phrase > 0) {
            return;
        }
        let lines = self.sharing(form, key);
        if lines.len() < enough || !is_varied(&lines) {
            return;
        }
        let first = lines[0].node;
        let general = self.create_around(first, lines[0].middle.clone(), key);
        for line in lines {
            self.merge(line.node, general);
        }
    }

    /// The template with one variable instead of a range of a line's tokens; `key` is its identity.
    pub(super) fn create_around(&mut self, line: NodeId, middle: Range<usize>, key: u64) -> NodeId {
        let length = self.nodes[line as usize].pieces.len();
        let form = Form { before: middle.start as u8, after: (length - middle.end) as u8 };
        let known = self.rows.get(key).filter(|node| self.nodes[*node as usize].key == key);
        let general = known.unwrap_or_else(|| {
            let (pieces, text) = self.nodes[line as usize].around(middle);
            let public = self.nodes[self.root(line) as usize].public;
            let mut node = Node { key, public, pieces, text, ..Node::default() };
            node.shape = node.shape_of();
            self.create(node)
        });
        self.nodes[general as usize].phrase = form.before + 1;
        self.phrases.know(form);
        general
    }

    /// The lines around a context.
    fn sharing(&self, form: Form, key: u64) -> Vec<Sharing> {
        let of = |(id, n): (usize, &Node)| {
            let middle = form.middle(n.pieces.len()).filter(|_| n.leaf && n.serial != 0)?;
            let hashes = n.hashes();
            let ends = (hashes[middle.start], hashes[middle.end - 1]);
            (key_around(&hashes, middle.clone()) == key).then_some(Sharing {
                node: id as NodeId,
                middle,
                ends,
            })
        };
        self.nodes.iter().enumerate().filter_map(of).collect()
    }
}

/// A line around a context, with the first and the last token of its middle.
struct Sharing {
    node: NodeId,
    middle: Range<usize>,
    ends: (u64, u64),
}

/// Are the middles of different lengths, and do they begin and end with different words? If not, more belongs to the context.
fn is_varied(lines: &[Sharing]) -> bool {
    let different = |of: &dyn Fn(&Sharing) -> u64| lines.iter().map(of).collect::<HashSet<_>>().len();
    different(&|line| line.middle.len() as u64) > 1
        && different(&|line| line.ends.0) >= CROSSED
        && different(&|line| line.ends.1) >= CROSSED
}

/// Sequences of words and values, with no mark between.
fn runs_of(pieces: &[Piece], from: usize) -> impl Iterator<Item = Range<usize>> {
    let marks = (from..=pieces.len()).filter(|i| pieces.get(*i).is_none_or(|p| p.kind == Kind::Punct));
    marks
        .scan(from, |start, mark| Some(std::mem::replace(start, mark + 1)..mark))
        .filter(|run| !run.is_empty())
}

/// The middles of a run beside which enough words stand.
fn tellings(pieces: &[Piece], run: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let word = |i: &usize| pieces[*i].kind == Kind::Word;
    let before = run.clone().take_while(word).count().min(TELLING);
    let after = run.clone().rev().take_while(word).count().min(TELLING);
    let sides = (TELLING - after..=before).map(|before| (before, TELLING - before));
    sides
        .map(move |(before, after)| run.start + before..run.end.saturating_sub(after))
        .filter(|middle| (1..=MAX_MIDDLE).contains(&middle.len()))
}

/// The end of a line without the marks that end its sentence.
fn trimmed(pieces: &[Piece]) -> usize {
    pieces.iter().rposition(|p| p.kind != Kind::Punct).map_or(0, |last| last + 1)
}
