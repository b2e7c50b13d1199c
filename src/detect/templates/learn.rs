//! Learning: what becomes of a line that was never seen, and of what the evidence proves.

use super::{
    Change, Miner,
    apart::MAX_FEW,
    evidence::{Line, Proof},
    hash::{VAR_HASH, mix},
    key::{masked, positions, shape_of},
    node::{Node, NodeId, pieces_of},
    rows::Row,
    scan::{Kind, Token},
};

/// Sets of varying positions that are tried for one line.
const MAX_MASKS: usize = 32;
/// Earlier lines of a shape that are looked at again when something is found to vary.
const MAX_LEAVES: usize = 128;

impl Miner {
    /// A node for a line never seen; and whether it is new.
    pub(super) fn learn(&mut self, key: u64, tokens: &[Token], line: &[u8]) -> (NodeId, bool) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(tokens.iter().map(|t| t.hash));
        let shape = shape_of(tokens.iter().map(|t| (t.kind == Kind::Punct).then_some(t.hash)));
        let found = match self.general(key, shape, &hashes) {
            Some((general, mask)) if !self.is_another_of_few(general, mask, &hashes) => {
                self.evidence.note_values(positions(mask).map(|i| hashes[i]));
                self.take_in(key, general);
                (general, false)
            }
            None if let Some(phrase) = self.phrase_of(&hashes) => {
                self.take_in(key, phrase);
                (phrase, false)
            }
            general => (self.create_leaf(key, shape, tokens, line, general.map(|g| g.0)), true),
        };
        self.hashes = hashes;
        found
    }

    /// The node that this line is an instance of, with the positions that vary.
    fn general(&self, key: u64, shape: u64, hashes: &[u64]) -> Option<(NodeId, u128)> {
        let shape = self.shapes.get(&shape)?;
        shape.masks.iter().find_map(|mask| {
            let general = masked(key, *mask, hashes);
            self.rows.get(general).map(|node| (node, *mask))
        })
    }

    /// From now on lines with this identity are of this node.
    fn take_in(&mut self, key: u64, node: NodeId) {
        let now = self.now();
        self.rows.alias(key, self.nodes[node as usize].key, now);
    }

    /// Does the line add a word to few? When they become many, they are values for good.
    fn is_another_of_few(&mut self, general: NodeId, mask: u128, hashes: &[u64]) -> bool {
        let one_word = mask.count_ones() == 1 && hashes[mask.trailing_zeros() as usize] != VAR_HASH;
        if !self.nodes[general as usize].few || !one_word {
            return false;
        }
        if self.few_of(general).len() < MAX_FEW {
            return true;
        }
        self.close_few(general);
        false
    }

    fn create_leaf(
        &mut self,
        key: u64,
        shape: u64,
        tokens: &[Token],
        line: &[u8],
        among: Option<NodeId>,
    ) -> NodeId {
        let (pieces, text) = pieces_of(tokens, line);
        self.envelope.note(tokens.iter().map(|t| t.hash));
        let node = Node { key, shape, public: mix(key), leaf: true, pieces, text, ..Node::default() };
        let node = self.create(node);
        if let Some(general) = among {
            self.hang(node, general);
            self.few.entry(general).or_default().push(node);
            // Too few lines to be shown apart: until it has been told more often, all are one again.
            self.decide_apart(general);
        } else {
            self.generalise(vec![node]);
            self.note_phrases(node);
            if self.serial >= self.next_review {
                self.next_review = self.serial.saturating_mul(2);
                self.review();
            }
        }
        self.make_room(node);
        node
    }

    pub(super) fn create(&mut self, mut node: Node) -> NodeId {
        self.serial = self.serial.wrapping_add(1).max(1);
        node.serial = self.serial;
        let id = self.free.pop().unwrap_or(self.nodes.len() as NodeId);
        node.parent = id;
        self.rows.insert(Row::own(node.key, id, 0, self.lines as u32));
        let shape = self.shapes.entry(node.shape).or_default();
        shape.nodes += 1;
        if node.leaf {
            if shape.leaves.len() >= MAX_LEAVES {
                // Those that were merged need no second look.
                shape.leaves.retain(|leaf| self.nodes[*leaf as usize].parent == *leaf);
            }
            if shape.leaves.len() >= MAX_LEAVES {
                shape.leaves.remove(0);
            }
            shape.leaves.push(id);
        }
        match self.nodes.get_mut(id as usize) {
            Some(slot) => *slot = node,
            None => self.nodes.push(node),
        }
        id
    }

    /// Looks again at what was seen before its words were known as values.
    pub(super) fn review(&mut self) {
        let proofs = self.evidence.review();
        let found = proofs.into_iter().filter_map(|proof| self.accept(proof)).collect();
        self.generalise(found);
    }

    /// Leaves the evidence of new nodes, and of every general node that comes of them.
    fn generalise(&mut self, mut work: Vec<NodeId>) {
        while let Some(id) = work.pop() {
            self.note_tail(id);
            self.note_brackets(id);
            self.note_groups(id);
            self.note_core(id);
            let n = &self.nodes[id as usize];
            let hashes = n.hashes();
            let envelope = self.envelope.depth(&hashes);
            let shape = self.shapes.get(&n.shape).filter(|_| n.leaf && self.envelope.is_settled());
            let masks = shape.map_or(&[][..], |shape| &shape.masks);
            let line = Line {
                node: id,
                key: n.key,
                shape: n.shape,
                pieces: &n.pieces,
                hashes: &hashes,
                masks,
                envelope,
            };
            let rows = &self.rows;
            let proofs = self.evidence.add(&line, |key| rows.get(key).is_some(), &self.nodes);
            work.extend(proofs.into_iter().filter_map(|proof| self.accept(proof)));
        }
    }

    /// Merges what differs only at the proven places; returns the general node if that is new.
    fn accept(&mut self, proof: Proof) -> Option<NodeId> {
        let Proof { key, mask, few, mut nodes } = proof;
        // A slot may have been given to another node meanwhile.
        nodes.retain(|id| self.nodes.get(*id as usize).is_some_and(|n| is_instance(n, key, mask)));
        let first = *nodes.first()?;
        let shape = self.nodes[first as usize].shape;
        self.learn_mask(shape, mask);
        let known = self.rows.get(key);
        let general = known.unwrap_or_else(|| {
            let (pieces, text) = self.nodes[first as usize].generalised(mask);
            let public = self.nodes[self.root(first) as usize].public;
            self.create(Node { key, shape, public, pieces, text, ..Node::default() })
        });
        let roots = nodes.iter().all(|n| self.nodes[*n as usize].parent == *n);
        if few && known.is_none() && roots {
            self.set_few(general, nodes.clone());
        } else {
            self.close_few(general);
        }
        for node in nodes {
            self.merge(node, general);
        }
        self.join_strays(shape);
        known.is_none().then_some(general)
    }

    fn learn_mask(&mut self, shape: u64, mask: u128) {
        let masks = &mut self.shapes.entry(shape).or_default().masks;
        if !masks.contains(&mask) && masks.len() < MAX_MASKS {
            let at = masks.partition_point(|m| m.count_ones() <= mask.count_ones());
            masks.insert(at, mask);
        }
    }

    /// Lines that came before this was known.
    fn join_strays(&mut self, shape: u64) {
        let Some(leaves) = self.shapes.get(&shape).map(|s| s.leaves.clone()) else { return };
        for leaf in leaves {
            let n = &self.nodes[leaf as usize];
            if n.parent != leaf {
                continue;
            }
            if let Some((general, _)) = self.general(n.key, shape, &n.hashes())
                && general != leaf
            {
                self.close_few(general);
                self.merge(leaf, general);
            }
        }
    }

    pub(super) fn merge(&mut self, node: NodeId, into: NodeId) {
        let (from, into) = (self.root(node), self.root(into));
        if from == into {
            return;
        }
        self.close_few(from);
        let (gone, stays) = (self.nodes[from as usize].public, self.nodes[into as usize].public);
        if gone != stays {
            self.note(Change::Merged { from: gone, into: stays });
        }
        self.hang(from, into);
    }

    pub(super) fn hang(&mut self, node: NodeId, parent: NodeId) {
        self.nodes[node as usize].parent = parent;
        self.nodes[parent as usize].children += 1;
        if self.nodes[node as usize].children > 0 {
            // What is shown for its own, too, changes.
            self.epoch = self.epoch.wrapping_add(1).max(1);
        }
        self.row_mut(node).epoch = 0;
    }
}

/// Is this the living node with that identity, or one that differs from it only where the mask says?
fn is_instance(node: &Node, key: u64, mask: u128) -> bool {
    let fits = 128 - mask.leading_zeros() as usize <= node.pieces.len();
    node.serial != 0 && fits && (node.key == key || masked(node.key, mask, &node.hashes()) == key)
}
