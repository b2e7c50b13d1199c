//! Forgetting: what was not used for longest makes room.

use super::{
    Change, Miner,
    hash::unmix,
    node::{Node, NodeId},
};

/// Candidates among which the longest unused is evicted.
const SAMPLE: usize = 16;

impl Miner {
    /// Evicts the longest unused of a few, so that it costs the same however many there are.
    pub(super) fn make_room(&mut self, keep: NodeId) {
        while self.len() > self.max {
            let Some(oldest) = self.oldest(keep) else { return };
            self.evict(oldest);
        }
    }

    fn oldest(&mut self, keep: NodeId) -> Option<NodeId> {
        let now = self.now();
        let age = |n: &Node| now.wrapping_sub(n.used);
        let mut oldest: Option<NodeId> = None;
        let mut seen = 0;
        for _ in 0..self.nodes.len() {
            self.hand = (self.hand + 1) % self.nodes.len();
            let n = &self.nodes[self.hand];
            let id = self.hand as NodeId;
            // What others are merged into lives as long as they do.
            if n.serial == 0 || n.children > 0 || id == keep {
                continue;
            }
            if oldest.is_none_or(|o| age(n) > age(&self.nodes[o as usize])) {
                oldest = Some(id);
            }
            seen += 1;
            if seen >= SAMPLE {
                break;
            }
        }
        oldest
    }

    fn evict(&mut self, id: NodeId) {
        let parent = self.nodes[id as usize].parent;
        self.close_few(id);
        if parent != id {
            self.close_few(parent);
        }
        let Node { key, shape, public, .. } = std::mem::take(&mut self.nodes[id as usize]);
        self.nodes[id as usize].parent = id;
        self.free.push(id);
        self.by_key.remove(&key);
        self.leave_shape(shape, id);
        let name = unmix(public);
        if self.by_key.get(&name) == Some(&id) {
            self.by_key.remove(&name);
        }
        if parent == id {
            return self.note(Change::Forgotten(public));
        }
        let p = &mut self.nodes[parent as usize];
        p.children -= 1;
        self.moved.insert(key, p.key);
        self.keep_name(self.root(parent));
    }

    /// A template is found by its public id as long as it lives, though the line of which that was made is forgotten.
    pub(super) fn keep_name(&mut self, id: NodeId) {
        let n = &self.nodes[id as usize];
        if n.serial != 0 && n.parent == id {
            self.by_key.entry(unmix(n.public)).or_insert(id);
        }
    }

    fn leave_shape(&mut self, shape: u64, id: NodeId) {
        let Some(left) = self.shapes.get_mut(&shape) else { return };
        left.nodes -= 1;
        left.leaves.retain(|leaf| *leaf != id);
        if left.nodes == 0 {
            self.shapes.remove(&shape);
        }
    }
}
