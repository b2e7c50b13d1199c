//! Collects evidence that a word is a value, from lines that are equal but for it; hands on which nodes are one.
//!
//! Four kinds: several words around the same rest; several values where values stand (skeleton); several lines whose words
//! that were never seen at their place are the only difference (novelty); and words that are known as values elsewhere.

use super::{
    fields,
    hash::{VAR_HASH, hash, mix},
    key::{masked, positions, without},
    node::{CAPS, COMPOUND, HUMPED, JOINED, LEVEL, Node, NodeId, Piece},
    scan::Kind,
    table::{Aged, Recent},
};

/// Different words around the same rest that make a value: three occur by chance in texts that people write, like the
/// parts of a message; four seldom do.
const ENOUGH: usize = 4;
/// The same where what stands before is known to be followed by names of things.
const ENOUGH_IN_OPEN_SLOT: usize = 3;
/// The same when each word is known as a value elsewhere.
const ENOUGH_KNOWN: usize = 2;
/// The same of names of things, as programs write them, beside three equal words.
const ENOUGH_NAMED: usize = 3;
/// The same of those that no sentence has, `max_open`.
const ENOUGH_JOINED: usize = 2;
/// The same of what a field holds that is one of several, and of what marks set apart in a sentence.
const ENOUGH_IN_FIELD: usize = 2;
/// The same for words in capitals: states, of which there are several by nature.
const ENOUGH_CAPITALS: usize = 8;
/// The same for the first word, and where only one other remains: they name the event.
const ENOUGH_OF_NAMES: usize = 16;
/// Other words beside which a value stands in another line, so that even what begins a line is a value like it.
const TWIN: usize = 3;
/// Nodes that one piece of evidence remembers.
const MAX_NODES: usize = 64;
/// Different followers that a slot remembers.
const MAX_FOLLOWERS: usize = 8;
const MAX_RESTS: usize = 16;

/// Nodes that are one, with variables at the places in `mask`.
pub struct Proof {
    pub key: u64,
    pub mask: u128,
    /// Only a few words were seen; they may be all there are.
    pub few: bool,
    pub nodes: Vec<NodeId>,
}

/// Most places are seen with one word only and never prove anything: what was seen once is kept apart, in little memory.
pub struct Evidence {
    /// By identity without one word: the one word seen there.
    once: Recent<Once>,
    /// The same with several words.
    several: Aged<Seen>,
    /// By identity without any suspect.
    skeleton: Aged<Vec<NodeId>>,
    /// By identity without the words never seen before at their place.
    novel: Aged<Vec<NodeId>>,
    /// Words seen at a place of a shape.
    known: Recent<()>,
    /// What followed two tokens once: the word, and the identity without it in two halves.
    followed: Recent<(u32, [u32; 2])>,
    /// What follows two tokens.
    slots: Aged<Slot>,
    /// Words that stood at places proven variable.
    values: Aged<()>,
}

/// A word, cut to 32 bits, and where it was seen.
#[derive(Clone, Copy, Default)]
struct Once {
    word: u32,
    /// The node, the position above it, and in the upper bit whether it takes more than the usual proof.
    node_at: u32,
}

impl Once {
    fn new(word: u32, node: NodeId, at: usize, hard: bool) -> Self {
        Self { word, node_at: node | (at as u32) << 24 | u32::from(hard) << 31 }
    }
    fn node(self) -> NodeId {
        self.node_at & (MAX_NODE as u32 - 1)
    }
    fn at(self) -> usize {
        (self.node_at >> 24 & 0x7f) as usize
    }
    fn is_hard(self) -> bool {
        self.node_at >> 31 == 1
    }
}

/// Nodes are numbered below this.
pub const MAX_NODE: usize = 1 << 24;

/// Words around one rest: at one position mostly, at several where the rest has values at both.
#[derive(Default)]
struct Seen {
    /// With whether its node is merged already.
    words: Vec<(Once, bool)>,
}

impl Seen {
    fn at(&self, at: usize) -> impl Iterator<Item = Once> {
        self.words.iter().map(|w| w.0).filter(move |w| w.at() == at)
    }
    /// Positions with enough words of which not all are merged, where the usual proof is enough.
    fn unproven(&self, enough: usize) -> Vec<usize> {
        let mut at: Vec<usize> =
            self.words.iter().filter(|(w, proven)| !proven && !w.is_hard()).map(|(w, _)| w.at()).collect();
        at.sort_unstable();
        at.dedup();
        at.retain(|at| self.at(*at).count() >= enough);
        at
    }
    /// The nodes of a position; empty if all are merged already.
    fn prove(&mut self, at: usize) -> Vec<NodeId> {
        let mut news = false;
        for (_, proven) in self.words.iter_mut().filter(|(word, _)| word.at() == at) {
            news |= !std::mem::replace(proven, true);
        }
        if news { self.at(at).map(Once::node).collect() } else { Vec::new() }
    }
}

#[derive(Default)]
struct Slot {
    followers: Vec<u32>,
    /// Followers that came back in lines that differ elsewhere.
    crossed: Vec<u32>,
    rests: Vec<(u64, u32)>,
}

impl Slot {
    /// Several words, of which some came back in other lines: names of things.
    fn open(&self) -> bool {
        self.crossed.len() > 2 || self.crossed.len() > 1 && self.followers.len() > 3
    }

    fn note(&mut self, word: u32, rest: u64, names: bool) {
        if self.followers.len() < MAX_FOLLOWERS && !self.followers.contains(&word) {
            self.followers.push(word);
        }
        let again = self.rests.iter().any(|(r, w)| *w == word && *r != rest);
        if again && self.crossed.len() < 3 && !self.crossed.contains(&word) {
            self.crossed.push(word);
        }
        if !self.open() && self.rests.len() < MAX_RESTS && !names {
            self.rests.push((rest, word));
        }
    }
}

/// A node as evidence sees it.
pub struct Line<'a> {
    pub node: NodeId,
    pub key: u64,
    pub shape: u64,
    pub pieces: &'a [Piece],
    pub hashes: &'a [u64],
    /// Sets of places that were found to vary in lines of its shape.
    pub masks: &'a [u128],
    /// So many tokens at the beginning are common to nearly all lines.
    pub envelope: usize,
}

/// A word among the words of a line.
#[derive(Clone, Copy)]
struct Place {
    i: usize,
    /// It is not the first.
    later: bool,
    /// It may name the event.
    names: bool,
    others: usize,
}

impl Evidence {
    /// For `max` nodes.
    pub fn new(max: usize) -> Self {
        Self {
            once: Recent::new(max * 5),
            several: Aged::new(max),
            skeleton: Aged::new(max),
            novel: Aged::new(max),
            known: Recent::new(max * 5),
            followed: Recent::new(max * 3),
            slots: Aged::new(max),
            values: Aged::new(max * 2),
        }
    }

    pub fn is_value(&self, word: u64) -> bool {
        self.values.peek(short(word)).is_some()
    }

    /// These stood at a place that varies.
    pub fn note_values(&mut self, words: impl Iterator<Item = u64>) {
        for word in words.filter(|w| *w != VAR_HASH) {
            *self.values.entry(short(word)) = ();
        }
    }

    pub fn restore_values(&mut self, values: Vec<u64>) {
        for value in values {
            self.values.insert(value, ());
        }
    }

    pub fn values(&self) -> impl Iterator<Item = u64> {
        self.values.keys()
    }

    /// Notes a new node; hands back what it proves. `exists`: is there a node with this identity? `nodes`: all of them.
    pub fn add(&mut self, line: &Line<'_>, exists: impl Fn(u64) -> bool, nodes: &[Node]) -> Vec<Proof> {
        let mut proofs = Vec::new();
        let word = |i: &usize| matches!(line.pieces[*i].kind, Kind::Word | Kind::Suspect);
        let words: Vec<usize> = (line.envelope..line.pieces.len()).filter(word).collect();
        self.value_among_words(line, &words, &mut proofs);
        for (rank, &i) in words.iter().enumerate() {
            let place =
                Place { i, later: rank > 0, names: rank == 0 || words.len() < 3, others: words.len() - 1 };
            self.one_word(line, 0, place, &exists, nodes, &mut proofs);
        }
        for &mask in line.masks {
            self.beside_values(line, mask, &words, &exists, nodes, &mut proofs);
        }
        if words.len() > 1 {
            self.suspects(line, &words, &exists, nodes, &mut proofs);
            self.several_names(line, &words, nodes, &mut proofs);
        }
        self.novelty(line, &words, nodes, &mut proofs);
        proofs
    }

    /// Notes the words of a line at which others, with values at the places in `mask`, differ.
    fn beside_values(
        &mut self,
        line: &Line<'_>,
        mask: u128,
        words: &[usize],
        exists: &impl Fn(u64) -> bool,
        nodes: &[Node],
        proofs: &mut Vec<Proof>,
    ) {
        let others: Vec<usize> = words.iter().copied().filter(|i| mask >> i & 1 == 0).collect();
        let fits = 128 - mask.leading_zeros() as usize <= line.pieces.len();
        if others.len() == words.len() || others.len() < 2 || !fits {
            return;
        }
        let key = masked(line.key, mask, line.hashes);
        for &i in &others {
            let rest = without(key, i, line.hashes[i]);
            if self.several.peek(rest).is_some() || self.once.get(rest).is_some_and(|once| once.at() == i) {
                let first = words[0] == i;
                let place =
                    Place { i, later: !first, names: first || others.len() < 3, others: others.len() - 1 };
                self.one_word(line, mask, place, exists, nodes, proofs);
            }
        }
    }

    /// What is proven by words that became known as values since they were seen.
    pub fn review(&mut self) -> Vec<Proof> {
        let values = &self.values;
        let is_value = |w: Once| values.peek(short(u64::from(w.word))).is_some();
        let mut proofs = Vec::new();
        for (key, seen) in self.several.iter_mut() {
            for at in seen.unproven(ENOUGH_KNOWN) {
                if seen.at(at).all(is_value) {
                    proofs.push(Proof { key, mask: 1 << at, few: false, nodes: seen.prove(at) });
                }
            }
        }
        proofs
    }

    /// This line has a value where others have a word.
    fn value_among_words(&mut self, line: &Line<'_>, words: &[usize], proofs: &mut Vec<Proof>) {
        if words.len() < 2 {
            return;
        }
        if self.once.get(line.key).is_some() {
            self.promote(line.key);
        }
        let Some(seen) = self.several.get_mut(line.key) else { return };
        for at in seen.unproven(1) {
            let mut nodes = seen.prove(at);
            if !nodes.contains(&line.node) {
                nodes.push(line.node);
                proofs.push(Proof { key: line.key, mask: 1 << at, few: false, nodes });
            }
        }
    }

    /// Makes room for several words where one was seen.
    fn promote(&mut self, rest: u64) {
        let Some(once) = self.once.get(rest) else { return };
        self.once.remove(rest);
        self.several.insert(rest, Seen { words: vec![(once, false)] });
    }

    /// Notes a word around a rest; how many were seen there so far?
    fn see(&mut self, rest: u64, new: Once) -> usize {
        let same = |old: Once| old.word == new.word && old.at() == new.at();
        if let Some(seen) = self.several.get_mut(rest) {
            if seen.words.len() < MAX_NODES && !seen.words.iter().any(|old| same(old.0)) {
                seen.words.push((new, false));
            }
            return seen.at(new.at()).count();
        }
        match self.once.get(rest) {
            Some(once) if same(once) => 1,
            Some(_) => {
                self.promote(rest);
                self.see(rest, new)
            }
            None => {
                self.once.insert(rest, new);
                1
            }
        }
    }

    fn one_word(
        &mut self,
        line: &Line<'_>,
        mask: u128,
        place: Place,
        exists: &impl Fn(u64) -> bool,
        nodes: &[Node],
        proofs: &mut Vec<Proof>,
    ) {
        let Place { i, later, names, others } = place;
        let hash = line.hashes[i];
        let capitals = line.pieces[i].flags & CAPS != 0;
        let suspect = line.pieces[i].kind == Kind::Suspect;
        let rest = without(masked(line.key, mask, line.hashes), i, hash);
        let open = i >= 2 && mask == 0 && self.slot(line, i, rest, names, proofs);
        let count = self.see(rest, Once::new(hash as u32, line.node, i, names || capitals));
        if others == 0 {
            return;
        }
        let several = self.several.peek(rest);
        let known = || {
            let is_value = |w: Once| self.values.peek(short(u64::from(w.word))).is_some();
            count > 1 && several.is_some_and(|seen| seen.at(i).all(is_value))
        };
        let named = |kinds: u8| {
            let is_name = |piece: &Piece| piece.flags & kinds != 0 && piece.flags & CAPS == 0;
            let of = |w: &Once| nodes.get(w.node() as usize)?.pieces.get(w.at());
            let names = |seen: &Seen| seen.at(i).filter(|w| of(w).is_some_and(is_name)).count();
            if is_name(&line.pieces[i]) { several.map_or(1, names) } else { 0 }
        };
        let name = if later { JOINED | HUMPED } else { COMPOUND };
        let amid = others >= TWIN;
        let grave = line.pieces[i].flags & LEVEL != 0;
        let (enough, few) = match () {
            () if (later || amid && !grave) && is_field(line, i, later && amid) => {
                (if exists(rest) { 1 } else { ENOUGH_IN_FIELD }, false)
            }
            () if (!names || others >= TWIN || later && suspect) && exists(rest) => (1, false),
            () if amid && later && named(JOINED) >= ENOUGH_JOINED => (ENOUGH_JOINED, false),
            () if amid && named(name) >= ENOUGH_NAMED => (ENOUGH_NAMED, false),
            () if names && others >= TWIN && line.pieces[i].flags & COMPOUND != 0 && !capitals => {
                (ENOUGH, false)
            }
            () if names && !(later && known()) => (ENOUGH_OF_NAMES, false),
            () if capitals && amid && line.pieces[i].flags & JOINED != 0 => (ENOUGH, true),
            () if capitals => (ENOUGH_CAPITALS, true),
            () if known() => (ENOUGH_KNOWN, false),
            () if open => (ENOUGH_IN_OPEN_SLOT, false),
            () => (ENOUGH, true),
        };
        if count < enough {
            return;
        }
        let mask = mask | 1 << i;
        let Some(seen) = self.several.get_mut(rest) else {
            return proofs.push(Proof { key: rest, mask, few, nodes: vec![line.node] });
        };
        let nodes = seen.prove(i);
        if nodes.is_empty() {
            return;
        }
        if count > 1 && !few {
            for word in seen.at(i) {
                *self.values.entry(short(u64::from(word.word))) = ();
            }
        }
        proofs.push(Proof { key: rest, mask, few, nodes });
    }

    /// Notes what follows the two tokens before `i`; are names of things known to follow?
    fn slot(&mut self, line: &Line<'_>, i: usize, rest: u64, names: bool, proofs: &mut Vec<Proof>) -> bool {
        let place = mix(line.hashes[i - 1] ^ mix(line.hashes[i - 2]));
        let word = line.hashes[i] as u32;
        if self.slots.peek(place).is_none() {
            let halves = [rest as u32, (rest >> 32) as u32];
            match self.followed.get(place) {
                None if names => return false,
                None => {
                    self.followed.insert(place, (word, halves));
                    return false;
                }
                Some(before) if before == (word, halves) => return false,
                Some((word, [low, high])) => {
                    self.followed.remove(place);
                    self.slots.entry(place).note(word, u64::from(low) | u64::from(high) << 32, false);
                }
            }
        }
        let slot = self.slots.entry(place);
        slot.note(word, rest, names);
        if !slot.open() {
            return false;
        }
        // What was seen before the slot was known to be open.
        for (rest, _) in slot.rests.drain(..) {
            let Some(seen) = self.several.get_mut(rest) else { continue };
            for at in seen.unproven(ENOUGH_IN_OPEN_SLOT) {
                proofs.push(Proof { key: rest, mask: 1 << at, few: false, nodes: seen.prove(at) });
            }
        }
        true
    }

    /// Where values stand, several different ones at a time are no obstacle.
    fn suspects(
        &mut self,
        line: &Line<'_>,
        words: &[usize],
        exists: &impl Fn(u64) -> bool,
        nodes: &[Node],
        proofs: &mut Vec<Proof>,
    ) {
        let suspect = |i: &&usize| line.pieces[**i].kind == Kind::Suspect;
        let suspects: u128 = words.iter().filter(suspect).map(|i| 1 << i).sum();
        if suspects == 0 {
            return;
        }
        let skeleton = masked(line.key, suspects, line.hashes);
        if exists(skeleton) {
            proofs.push(Proof { key: skeleton, mask: suspects, few: false, nodes: vec![line.node] });
        }
        let entry = self.skeleton.entry(skeleton);
        if entry.len() >= MAX_NODES {
            return;
        }
        entry.push(line.node);
        if entry.len() == 1 {
            return;
        }
        let all = hashes_of(entry, line, nodes);
        let varied = |i: &usize| {
            let mut values: Vec<u64> = all.iter().map(|(_, _, h)| h[*i]).collect();
            values.sort_unstable();
            values.dedup();
            let enough = if is_field(line, *i, false) { ENOUGH_IN_FIELD } else { ENOUGH };
            values.len() >= enough || values.contains(&VAR_HASH)
        };
        let mask = positions(suspects).filter(varied).map(|i| 1 << i).sum();
        agreeing(&all, mask, proofs);
    }

    /// Names that no sentence has are values at several places at a time as they are at one:
    /// `a.service: merged a.service/start into installed a.service/start`.
    fn several_names(&mut self, line: &Line<'_>, words: &[usize], nodes: &[Node], proofs: &mut Vec<Proof>) {
        let is_name = |i: &&usize| line.pieces[**i].flags & JOINED != 0;
        let names: u128 = words.iter().filter(is_name).map(|i| 1 << i).sum();
        let n = names.count_ones() as usize;
        if n < 2 || words.len() < n + TWIN {
            return;
        }
        let entry = self.skeleton.entry(mix(masked(line.key, names, line.hashes)));
        if entry.len() >= MAX_NODES {
            return;
        }
        entry.push(line.node);
        if entry.len() >= ENOUGH_JOINED {
            let all = hashes_of(entry, line, nodes);
            let varied = |i: &usize| all.iter().any(|(_, _, h)| h[*i] != line.hashes[*i]);
            agreeing(&all, positions(names).filter(varied).map(|i| 1 << i).sum(), proofs);
        }
    }

    /// Lines that share all the words that were seen before, and differ in those that were not.
    fn novelty(&mut self, line: &Line<'_>, words: &[usize], nodes: &[Node], proofs: &mut Vec<Proof>) {
        let mut novel = 0_u128;
        for (rank, &i) in words.iter().enumerate() {
            let place = mix(line.shape ^ mix(line.hashes[i] ^ i as u64));
            if self.known.get(place).is_none() {
                self.known.insert(place, ());
                if rank > 0 && line.pieces[i].flags & CAPS == 0 {
                    novel |= 1 << i;
                }
            }
        }
        let n = novel.count_ones() as usize;
        // One alone is the business of `one_word`; more than half new is no known sentence.
        if n < 2 || words.len() < 2 * n {
            return;
        }
        let entry = self.novel.entry(masked(line.key, novel, line.hashes));
        entry.push(line.node);
        // One more made the rest known.
        if entry.len() >= ENOUGH - 1 {
            agreeing(&hashes_of(entry, line, nodes), novel, proofs);
            entry.clear();
        }
    }
}

/// Do marks set this word apart, as what a field holds? `state=ready, …`, `[ready]`; in a sentence (`amid`) what stands behind
/// is enough: `(ready)`, `as ready, …`. What is said may be a field, too: `event=login`.
fn is_field(line: &Line<'_>, i: usize, amid: bool) -> bool {
    let mark =
        |i: usize, of: &[&[u8]]| line.hashes.get(i).is_some_and(|h| of.iter().any(|mark| *h == hash(mark)));
    let Some(before) = i.checked_sub(1) else { return false };
    let tells = i.checked_sub(2).is_some_and(|label| mark(label, &fields::NAMES));
    mark(before, &[b"="]) && i + 1 < line.hashes.len() && !tells
        || mark(before, &[b"["]) && mark(i + 1, &[b"]"])
        || mark(before, &[b":"]) && mark(i + 1, &[b",", b";", b"|"])
        || amid && mark(i + 1, &[b",", b")", b"]", b"}"])
}

/// Evidence keeps 32 bits of a word.
fn short(word: u64) -> u64 {
    mix(word & 0xffff_ffff)
}

type Hashes = (NodeId, u64, Vec<u64>);

/// The living among the nodes, with their hashes.
fn hashes_of(ids: &[NodeId], line: &Line<'_>, nodes: &[Node]) -> Vec<Hashes> {
    let same = |id: &&NodeId| {
        nodes
            .get(**id as usize)
            .is_some_and(|n| n.serial != 0 && n.shape == line.shape && n.pieces.len() == line.pieces.len())
    };
    let hashes = |id: &NodeId| {
        let node = &nodes[*id as usize];
        (*id, node.key, node.hashes())
    };
    ids.iter().filter(same).map(hashes).collect()
}

/// Groups those that differ at most where the mask says.
fn agreeing(all: &[Hashes], mask: u128, proofs: &mut Vec<Proof>) {
    if mask == 0 {
        return;
    }
    let keyed = all.iter().map(|(id, key, hashes)| (masked(*key, mask, hashes), *id));
    let mut keyed: Vec<(u64, NodeId)> = keyed.collect();
    keyed.sort_unstable();
    for group in keyed.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
        let nodes = group.iter().map(|g| g.1).collect();
        proofs.push(Proof { key: group[0].0, mask, few: false, nodes });
    }
}
