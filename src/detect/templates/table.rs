//! Maps that forget: all that the miner remembers is bounded, and what was not used for longest makes room.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// By a hash.
pub type KeyMap<T> = HashMap<u64, T, BuildHasherDefault<Keyed>>;

/// Keys are hashes already.
#[derive(Clone, Default)]
pub struct Keyed(u64);

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = super::hash::hash(bytes);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Two generations of up to `max` entries: what is asked for moves to the young one; when that is full, the old one is
/// dropped.
pub struct Aged<T> {
    max: usize,
    young: KeyMap<T>,
    old: KeyMap<T>,
}

impl<T> Aged<T> {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(8), young: KeyMap::default(), old: KeyMap::default() }
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    pub fn peek(&self, key: u64) -> Option<&T> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    pub fn insert(&mut self, key: u64, value: T) {
        if self.young.len() >= self.max {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    pub fn entry(&mut self, key: u64) -> &mut T
    where
        T: Default,
    {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_default();
            self.insert(key, value);
        }
        self.young.get_mut(&key).expect("it was just inserted")
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.young.iter_mut().chain(self.old.iter_mut()).map(|(key, value)| (*key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.young.keys().chain(self.old.keys()).copied()
    }
}

/// For very many small entries: each in one of two buckets of eight, the emptier one, the newest first. It grows up to `max`
/// entries, then the oldest of a full bucket makes room. Keys are told apart by 32 bits: among a million entries one look-up
/// in two thousand is mistaken.
pub struct Recent<T> {
    max: usize,
    len: usize,
    slots: Vec<(u32, T)>,
}

const BUCKET: usize = 8;

impl<T: Copy + Default> Recent<T> {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(2 * BUCKET), len: 0, slots: vec![Default::default(); 2 * BUCKET] }
    }

    pub fn get(&self, key: u64) -> Option<T> {
        self.find(check(key)).map(|at| self.slots[at].1)
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(at) = self.find(check(key)) {
            let end = at / BUCKET * BUCKET + BUCKET;
            self.slots[at..end].rotate_left(1);
            self.slots[end - 1] = Default::default();
            self.len -= 1;
        }
    }

    /// Call it only for a key that is not there.
    pub fn insert(&mut self, key: u64, value: T) {
        if self.slots.len() < self.max && self.len * 8 >= self.slots.len() * 7 {
            self.grow();
        }
        self.put(check(key), value);
    }

    fn put(&mut self, check: u32, value: T) {
        let used = |at: &usize| self.slots[*at..*at + BUCKET].iter().take_while(|slot| slot.0 != 0).count();
        let [one, other] = self.homes(check);
        let at = if used(&other) < used(&one) { other } else { one };
        let bucket = &mut self.slots[at..at + BUCKET];
        let full = bucket[BUCKET - 1].0 != 0;
        bucket.rotate_right(1);
        bucket[0] = (check, value);
        self.len += usize::from(!full);
    }

    fn grow(&mut self) {
        // By a quarter: little stands empty.
        let more = (self.slots.len() / 4 * 5).min(self.max).next_multiple_of(BUCKET);
        let size = more.max(self.slots.len() + BUCKET);
        let before = std::mem::replace(&mut self.slots, vec![Default::default(); size]);
        self.len = 0;
        for bucket in before.chunks_exact(BUCKET) {
            // The oldest first, so that the newest are in front again.
            bucket.iter().rev().filter(|slot| slot.0 != 0).for_each(|slot| self.put(slot.0, slot.1));
        }
    }

    fn find(&self, check: u32) -> Option<usize> {
        self.homes(check).into_iter().find_map(|home| {
            let at = self.slots[home..home + BUCKET].iter().position(|slot| slot.0 == check)?;
            Some(home + at)
        })
    }

    /// Where the two buckets of an entry begin.
    fn homes(&self, check: u32) -> [usize; 2] {
        let buckets = (self.slots.len() / BUCKET) as u64;
        let other = super::hash::mix(u64::from(check)) >> 32;
        [u64::from(check), other].map(|of| ((of * buckets) >> 32) as usize * BUCKET)
    }
}

/// 32 bits of a key; never 0, which marks an empty slot.
fn check(key: u64) -> u32 {
    (super::hash::mix(key) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_entries_are_found_and_the_oldest_make_room() {
        let mut recent = Recent::new(1000);
        for key in 0..10_000_u64 {
            assert_eq!(recent.get(key), None);
            recent.insert(key, key as u32);
            assert_eq!(recent.get(key), Some(key as u32));
        }
        assert_eq!(recent.slots.len(), 1000);
        let kept = (9_800..10_000_u64).filter(|key| recent.get(*key) == Some(*key as u32)).count();
        assert!(kept > 190, "{kept}");
        let before = recent.len;
        recent.remove(9_999);
        assert_eq!((recent.get(9_999), recent.len), (None, before - 1));
    }

    #[test]
    fn what_is_asked_for_stays_young() {
        let mut aged = Aged::new(10);
        aged.insert(7, "kept");
        for key in 100..200 {
            aged.insert(key, "passing");
            assert_eq!(aged.get_mut(7), Some(&mut "kept"));
        }
        assert_eq!(aged.peek(100), None);
        assert!(aged.keys().count() <= 20);
    }
}
