//! What a known line touches: one row for each identity, two in a cache line. With very many templates, a line costs what
//! it misses in the caches.

use super::node::NodeId;

/// Rows of which the longest unused alias makes room.
const SAMPLE: usize = 16;
const MIN_ROWS: usize = 32;

/// What an identity stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// For nothing: the row is free.
    #[default]
    Free,
    /// It is a node's own.
    Own,
    /// A template's public id was made of it, and the node that had it is gone.
    Name,
    /// A line that a general node took in.
    Alias,
}

/// A node is named with three bytes, so that a row is half a cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub struct Row {
    pub key: u64,
    /// Of an own row: the public id that is shown for it, as of `epoch`. Else the identity of the node.
    pub shown: u64,
    pub lines: u32,
    /// When it was last used, by [`super::Miner::now`].
    pub used: u32,
    /// 0 = `shown` is not known.
    pub epoch: u32,
    node: [u8; 3],
    role: Role,
}

impl Row {
    pub fn own(key: u64, node: NodeId, lines: u32, used: u32) -> Self {
        Self { key, lines, used, node: packed(node), role: Role::Own, ..Self::default() }
    }

    pub fn is_own(&self) -> bool {
        self.role == Role::Own
    }

    pub fn node(&self) -> NodeId {
        let [a, b, c] = self.node;
        NodeId::from_le_bytes([a, b, c, 0])
    }
}

fn packed(node: NodeId) -> [u8; 3] {
    let [a, b, c, _] = node.to_le_bytes();
    [a, b, c]
}

/// Open addressing: a row is in the first free place after its home, which is a cache line.
pub struct Rows {
    rows: Vec<Row>,
    len: usize,
    aliases: usize,
    max_aliases: usize,
    /// Where the search for the longest unused alias goes on.
    hand: usize,
}

impl Rows {
    /// With at most so many aliases.
    pub fn new(max_aliases: usize) -> Self {
        Self { rows: vec![Row::default(); MIN_ROWS], len: 0, aliases: 0, max_aliases, hand: 0 }
    }

    /// The place of the row of the node that a line with this identity belongs to. Counts the line.
    pub fn count(&mut self, key: u64, now: u32) -> Option<usize> {
        let mut at = self.find(key)?;
        if self.rows[at].role != Role::Own {
            self.rows[at].used = now;
            match self.own(self.rows[at].shown) {
                Some(own) => at = own,
                // The node was forgotten.
                None => {
                    self.remove_at(at);
                    return None;
                }
            }
        }
        let row = &mut self.rows[at];
        row.used = now;
        row.lines = row.lines.saturating_add(1);
        Some(at)
    }

    /// The node with this identity, or whose public id was made of it.
    pub fn get(&self, key: u64) -> Option<NodeId> {
        let row = &self.rows[self.find(key)?];
        (row.role != Role::Alias).then(|| row.node())
    }

    /// The place of a node's own row.
    pub fn own(&self, key: u64) -> Option<usize> {
        self.find(key).filter(|at| self.rows[*at].role == Role::Own)
    }

    pub fn at(&self, at: usize) -> &Row {
        &self.rows[at]
    }

    pub fn at_mut(&mut self, at: usize) -> &mut Row {
        &mut self.rows[at]
    }

    /// All that there are, free ones too.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    pub fn insert(&mut self, row: Row) {
        if let Some(at) = self.find(row.key) {
            self.aliases -= usize::from(self.rows[at].role == Role::Alias);
            self.rows[at] = row;
            return;
        }
        if self.len * 10 >= self.rows.len() * 7 {
            self.grow();
        }
        self.len += 1;
        self.put(row);
    }

    /// Remembers the identity of a line that the node with another identity took in.
    pub fn alias(&mut self, key: u64, of: u64, used: u32) {
        if self.find(key).is_some() {
            return;
        }
        while self.aliases >= self.max_aliases {
            self.forget_alias(used);
        }
        self.insert(Row { key, shown: of, used, role: Role::Alias, ..Row::default() });
        self.aliases += 1;
    }

    /// Remembers the identity that a node's public id was made of, if it stands for nothing else.
    pub fn name(&mut self, key: u64, node: NodeId, of: u64) {
        match self.find(key) {
            Some(at) if self.rows[at].role != Role::Alias => {}
            _ => {
                let row = Row { key, shown: of, node: packed(node), role: Role::Name, ..Row::default() };
                self.insert(row);
            }
        }
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(at) = self.find(key) {
            self.remove_at(at);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    fn find(&self, key: u64) -> Option<usize> {
        let mut at = self.home(key);
        loop {
            let row = self.rows.get(at)?;
            if row.role == Role::Free {
                return None;
            }
            if row.key == key {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn home(&self, key: u64) -> usize {
        let lines = (self.rows.len() / 2) as u128;
        ((u128::from(key) * lines) >> 64) as usize * 2
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.rows.len() { 0 } else { at + 1 }
    }

    fn put(&mut self, row: Row) {
        let mut at = self.home(row.key);
        while self.rows[at].role != Role::Free {
            at = self.after(at);
        }
        self.rows[at] = row;
    }

    fn grow(&mut self) {
        let more = (self.rows.len() / 2 * 3).next_multiple_of(2);
        let before = std::mem::replace(&mut self.rows, vec![Row::default(); more]);
        self.hand = 0;
        before.into_iter().filter(|row| row.role != Role::Free).for_each(|row| self.put(row));
    }

    /// Takes a row away, and moves back what stood behind it for want of a place.
    fn remove_at(&mut self, mut free: usize) {
        self.aliases -= usize::from(self.rows[free].role == Role::Alias);
        self.len -= 1;
        let n = self.rows.len();
        let mut at = self.after(free);
        while self.rows[at].role != Role::Free {
            let from = |place: usize| (at + n - place) % n;
            if from(self.home(self.rows[at].key)) >= from(free) {
                self.rows[free] = self.rows[at];
                free = at;
            }
            at = self.after(at);
        }
        self.rows[free] = Row::default();
    }

    fn forget_alias(&mut self, now: u32) {
        let (mut oldest, mut seen): (Option<usize>, usize) = (None, 0);
        let age = |row: &Row| now.wrapping_sub(row.used);
        for _ in 0..self.rows.len() {
            self.hand = self.after(self.hand);
            if self.rows[self.hand].role != Role::Alias {
                continue;
            }
            if oldest.is_none_or(|o| age(&self.rows[self.hand]) > age(&self.rows[o])) {
                oldest = Some(self.hand);
            }
            seen += 1;
            if seen == SAMPLE {
                break;
            }
        }
        if let Some(oldest) = oldest {
            self.remove_at(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hash::mix, *};

    #[test]
    fn rows_are_found_until_they_are_removed() {
        let mut rows = Rows::new(10);
        for i in 0..2000_u64 {
            rows.insert(Row::own(mix(i), i as NodeId, 0, 0));
        }
        for i in (0..2000).filter(|i| i % 3 > 0) {
            rows.remove(mix(i));
        }
        for i in 0..2000 {
            assert_eq!(rows.get(mix(i)), (i % 3 == 0).then_some(i as NodeId), "{i}");
        }
        assert_eq!(rows.len(), 667);
    }

    #[test]
    fn a_line_leads_to_the_node_that_took_it_in_as_long_as_that_is_there() {
        let mut rows = Rows::new(10);
        rows.insert(Row::own(1, 7, 0, 0));
        rows.alias(2, 1, 0);
        rows.name(3, 7, 1);
        let node = |rows: &mut Rows, key| rows.count(key, 0).map(|at| rows.at(at).node());
        assert_eq!([1, 2, 3, 4].map(|key| node(&mut rows, key)), [Some(7), Some(7), Some(7), None]);
        assert_eq!([1, 2, 3].map(|key| rows.get(key)), [Some(7), None, Some(7)]);
        rows.remove(1);
        assert_eq!(node(&mut rows, 2), None);
        assert_eq!(rows.len(), 1, "the alias went with it");
    }

    #[test]
    fn the_longest_unused_aliases_make_room() {
        let mut rows = Rows::new(10);
        rows.insert(Row::own(1, 7, 0, 0));
        for now in 2..1000_u32 {
            rows.alias(mix(u64::from(now)), 1, now);
            assert!(rows.count(mix(u64::from(now)), now).is_some());
        }
        assert_eq!(rows.len(), 11);
    }
}
