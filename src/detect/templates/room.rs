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
        let rows = self.rows.all();
        let (mut oldest, mut age, mut seen): (Option<NodeId>, u32, usize) = (None, 0, 0);
        for _ in 0..rows.len() {
            self.hand = (self.hand + 1) % rows.len();
            let row = &rows[self.hand];
            if !row.is_own() {
                continue;
            }
            seen += 1;
            let (id, unused) = (row.node(), now.wrapping_sub(row.used));
            // What others are merged into lives as long as they do.
            let better = oldest.is_none() || unused > age;
            if better && id != keep && self.nodes[id as usize].children == 0 {
                (oldest, age) = (Some(id), unused);
            }
            if seen >= SAMPLE && oldest.is_some() {
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
        let used = self.row_mut(id).used;
        let Node { key, shape, public, .. } = std::mem::take(&mut self.nodes[id as usize]);
        self.nodes[id as usize].parent = id;
        self.free.push(id);
        self.rows.remove(key);
        self.leave_shape(shape, id);
        let name = unmix(public);
        if self.rows.get(name) == Some(id) {
            self.rows.remove(name);
        }
        if parent == id {
            return self.note(Change::Forgotten(public));
        }
        let p = &mut self.nodes[parent as usize];
        p.children -= 1;
        self.moved.insert(key, p.key);
        let now = self.now();
        let above = self.row_mut(parent);
        // It was used when its own were.
        if now.wrapping_sub(used) < now.wrapping_sub(above.used) {
            above.used = used;
        }
        self.keep_name(self.root(parent));
    }

    /// A template is found by its public id as long as it lives, though the line of which that was made is forgotten.
    pub(super) fn keep_name(&mut self, id: NodeId) {
        let n = &self.nodes[id as usize];
        if n.serial != 0 && n.parent == id {
            self.rows.name(unmix(n.public), id, n.key);
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
