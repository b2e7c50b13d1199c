//! Mines log templates from a stream of lines: hands on, for each line, the id of its template.
//!
//! A line is cut into tokens in one pass, obvious values masked (`scan`); its identity is a sum over token hashes (`key`). A
//! known identity is one look-up (`rows`). An unknown one is tried with the positions that lines of its shape were found to vary at;
//! else it becomes a node and leaves evidence (`evidence`). What the evidence proves to be one template is merged under a
//! general node; where the words that differ turn out to be few and each told often, they are shown apart again. What was
//! not used for longest is forgotten (`room`).

mod apart;
mod brackets;
mod core;
mod envelope;
mod evidence;
mod fields;
mod hash;
mod key;
mod learn;
mod node;
mod params;
mod phrase;
mod room;
mod rows;
mod scan;
mod state;
mod table;
mod tails;

use std::collections::HashMap;

use envelope::Envelope;
use evidence::{Evidence, MAX_NODE};
use hash::unmix;
pub use hash::{hash, mix};
use key::key_of;
use node::{Node, NodeId};
pub use params::{Params, Summary, number};
use phrase::Phrases;
use rows::{Row, Rows};
use scan::{Scanner, Token};
pub use table::KeyMap;
use table::{Aged, Recent};

/// Names a template within its service; made from its oldest line, so it is the same after a restart.
pub type TemplateId = u64;

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its template as known now.
    pub template: TemplateId,
    /// The line's own identity: [`Miner::resolve`] says later, when more is known, which template it belongs to.
    pub line: TemplateId,
    /// Nothing like it was known.
    pub new: bool,
}

/// What became of templates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// It was found to be the same as another one, which lives on.
    Merged { from: TemplateId, into: TemplateId },
    /// What was one is told apart again: `into` (which may be `from` itself) has this share of the lines so far.
    Parted { from: TemplateId, into: TemplateId, share: f64 },
    /// It made room for newer ones.
    Forgotten(TemplateId),
}

/// One source's templates: at most `max` nodes, which are templates and the lines that they were learned from.
pub struct Miner {
    max: usize,
    /// Lines so far.
    lines: u64,
    scanner: Scanner,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    serial: u32,
    /// Where the search for the longest unused goes on.
    hand: usize,
    /// By identity.
    rows: Rows,
    /// Rows know what is shown for them as of this; it turns over.
    epoch: u32,
    /// Evicted nodes that had been merged: identity of theirs and of what they were merged into.
    moved: Aged<u64>,
    shapes: KeyMap<Shape>,
    /// Of a general node: the nodes of the few words seen at its one learned variable.
    few: HashMap<NodeId, Vec<NodeId>>,
    envelope: Envelope,
    evidence: Evidence,
    /// When so many nodes were made, evidence is looked at again.
    next_review: u32,
    phrases: Phrases,
    /// By identity without the last field: a node that has one.
    tails: Recent<NodeId>,
    /// By identity without what the leading bracket holds: a node that has one.
    brackets: Recent<NodeId>,
    /// By core: a node that has it.
    cores: Recent<NodeId>,
    /// By identity without what a group in round brackets holds: a node that has one.
    groups: Recent<NodeId>,
    changes: Vec<Change>,
    hashes: Vec<u64>,
    /// The node of the last line.
    last: NodeId,
}

/// What lines of one length and punctuation have in common.
#[derive(Default)]
struct Shape {
    nodes: u32,
    /// Sets of positions that were found to vary, the smallest first.
    masks: Vec<u128>,
    /// Nodes that came of lines.
    leaves: Vec<NodeId>,
}

/// Nodes until evidence is looked at again for the first time; then when they have doubled.
const FIRST_REVIEW: u32 = 64;
/// Changes that wait for `take_changes`; of more, the newest are lost.
const MAX_CHANGES: usize = 65_536;
/// The values of the first lines of a template are summed up, later of one of so many: what a line costs is mostly memory that
/// it touches.
const ALL_SUMMED: u32 = 4;
const ONE_SUMMED_OF: u32 = 16;

impl Miner {
    pub fn new(max: usize) -> Self {
        let max = max.clamp(4, MAX_NODE / 2);
        Self {
            max,
            lines: 0,
            scanner: Scanner::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            serial: 0,
            hand: 0,
            rows: Rows::new(max),
            epoch: 1,
            moved: Aged::new(max),
            shapes: KeyMap::default(),
            few: HashMap::new(),
            envelope: Envelope::default(),
            evidence: Evidence::new(max),
            next_review: FIRST_REVIEW,
            phrases: Phrases::new(max),
            tails: Recent::new(max),
            brackets: Recent::new(max),
            cores: Recent::new(max),
            groups: Recent::new(max),
            changes: Vec::new(),
            hashes: Vec::new(),
            last: 0,
        }
    }

    /// The template of a line. Of several lines the first counts, and the cause that a stack trace names last.
    pub fn add(&mut self, line: &[u8]) -> Found {
        self.lines += 1;
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.scan(line);
        let (tokens, line) = (scanner.tokens(), scanner.text(line));
        let key = key_of(tokens);
        let now = self.now();
        let found = match self.rows.count(key, now).map(|at| self.rows.at(at)) {
            Some(row) if row.epoch == self.epoch && !is_summed(row.lines) => {
                self.last = row.node();
                Found { template: row.shown, line: mix(row.key), new: false }
            }
            Some(row) => self.tell(row.node(), row.lines, tokens, line, false),
            None => {
                let (node, new) = self.learn(key, tokens, line);
                let at = self.rows.count(self.nodes[node as usize].key, now);
                let lines = at.map_or(1, |at| self.rows.at(at).lines);
                self.tell(node, lines, tokens, line, new)
            }
        };
        self.scanner = scanner;
        found
    }

    /// What an id handed out earlier stands for now.
    pub fn resolve(&self, id: TemplateId) -> TemplateId {
        self.find(id).map_or(id, |node| self.nodes[node as usize].public)
    }

    /// The template as people read it: `connection refused to <*>`; empty if it was forgotten.
    pub fn text(&self, id: TemplateId) -> String {
        self.find(id).map(|node| self.nodes[node as usize].shown()).unwrap_or_default()
    }

    /// What its variables were, in order.
    pub fn params(&self, id: TemplateId) -> Option<&Params> {
        self.find(id).map(|node| &self.nodes[node as usize].params)
    }

    /// The variables of the line that was added last, in order.
    pub fn values<'a>(&'a self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let shown = self.nodes.get(self.last as usize).map(|_| &self.nodes[self.top(self.last) as usize]);
        let text = self.scanner.text(line);
        shown.into_iter().flat_map(|node| node.values(self.scanner.tokens(), text))
    }

    /// What became of templates since the last call, in the order in which it happened.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Decides anew everywhere what is shown apart; for reading at the end of a file.
    pub fn settle(&mut self) {
        self.review();
        for node in 0..self.nodes.len() as NodeId {
            self.decide_apart(node);
        }
    }

    /// Nodes that are kept.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node that is shown for what an id stands for.
    fn find(&self, id: TemplateId) -> Option<NodeId> {
        let mut key = unmix(id);
        for _ in 0..64 {
            if let Some(node) = self.rows.get(key) {
                return Some(self.top(node));
            }
            key = *self.moved.peek(key)?;
        }
        None
    }

    /// Which template is shown for a line of this node, and what else follows from there being one more of its `lines`.
    fn tell(&mut self, node: NodeId, lines: u32, tokens: &[Token], line: &[u8], new: bool) -> Found {
        // A line of its own: not only the few words stand there.
        self.close_few(node);
        let n = &mut self.nodes[node as usize];
        if is_summed(lines) {
            let mut params = std::mem::take(&mut n.params);
            params.add(n.values(tokens, line));
            n.params = params;
        }
        let (key, mut at, mut parent) = (n.key, node, n.parent);
        let (mut shown, mut settled) = (node, true);
        while parent != at {
            if self.nodes[parent as usize].few {
                settled = false;
                let row = self.row_mut(parent);
                row.lines = row.lines.saturating_add(1);
                if row.lines.is_power_of_two() {
                    self.decide_apart(parent);
                }
            }
            if !self.nodes[parent as usize].apart {
                shown = parent;
            }
            at = parent;
            parent = self.nodes[at as usize].parent;
        }
        let template = self.nodes[shown as usize].public;
        if settled {
            let epoch = self.epoch;
            let row = self.row_mut(node);
            (row.shown, row.epoch) = (template, epoch);
        }
        self.last = node;
        Found { template, line: mix(key), new: new && shown == node }
    }

    fn row_mut(&mut self, node: NodeId) -> &mut Row {
        let at = self.rows.own(self.nodes[node as usize].key).expect("each node has a row");
        self.rows.at_mut(at)
    }

    /// Lines that were this node's own.
    fn lines_of(&self, node: NodeId) -> u32 {
        let at = self.rows.own(self.nodes[node as usize].key);
        at.map_or(0, |at| self.rows.at(at).lines)
    }

    /// The clock of what was not used for longest; it turns over.
    fn now(&self) -> u32 {
        self.lines as u32
    }

    /// The node that is shown for this one.
    fn top(&self, mut node: NodeId) -> NodeId {
        loop {
            let parent = self.nodes[node as usize].parent;
            if parent == node || self.nodes[parent as usize].apart {
                return node;
            }
            node = parent;
        }
    }

    fn root(&self, mut node: NodeId) -> NodeId {
        while self.nodes[node as usize].parent != node {
            node = self.nodes[node as usize].parent;
        }
        node
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(change);
        }
    }
}

/// Are the values of this line of a template, counted from one, summed up?
fn is_summed(lines: u32) -> bool {
    lines > 1 && (lines <= ALL_SUMMED || lines.is_multiple_of(ONE_SUMMED_OF))
}

#[cfg(test)]
mod tests;
