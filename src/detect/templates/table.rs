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

    /// Like `get_mut`, in one look-up for what is young.
    pub fn copied(&mut self, key: u64) -> Option<T>
    where
        T: Copy,
    {
        if let Some(value) = self.young.get(&key) {
            return Some(*value);
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value);
        Some(value)
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

    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.young.keys().chain(self.old.keys()).copied()
    }
}

/// For very many small entries: buckets of eight, the newest first; it grows up to `max` entries, then the oldest of a full
/// bucket makes room. Keys are told apart by 32 bits: among a million entries one look-up in four thousand is mistaken.
pub struct Recent<T> {
    max: usize,
    len: usize,
    slots: Vec<(u32, T)>,
}

const BUCKET: usize = 8;

impl<T: Copy + Default> Recent<T> {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(BUCKET), len: 0, slots: Vec::new() }
    }

    pub fn get(&self, key: u64) -> Option<T> {
        let check = check(key);
        self.bucket(check).iter().find(|slot| slot.0 == check).map(|slot| slot.1)
    }

    pub fn remove(&mut self, key: u64) {
        let check = check(key);
        let bucket = self.bucket_mut(check);
        if let Some(at) = bucket.iter().position(|slot| slot.0 == check) {
            bucket[at..].rotate_left(1);
            bucket[BUCKET - 1] = Default::default();
            self.len -= 1;
        }
    }

    /// Call it only for a key that is not there.
    pub fn insert(&mut self, key: u64, value: T) {
        let may_grow = self.slots.is_empty() || self.slots.len() * 2 <= self.max.next_power_of_two();
        if may_grow && self.len * 8 >= self.slots.len() * 5 {
            self.grow();
        }
        self.put(check(key), value);
    }

    fn put(&mut self, check: u32, value: T) {
        let bucket = self.bucket_mut(check);
        let full = bucket[BUCKET - 1].0 != 0;
        bucket.rotate_right(1);
        bucket[0] = (check, value);
        self.len += usize::from(!full);
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(BUCKET);
        let before = std::mem::replace(&mut self.slots, vec![Default::default(); size]);
        self.len = 0;
        for bucket in before.chunks_exact(BUCKET) {
            // The oldest first, so that the newest are in front again.
            bucket.iter().rev().filter(|slot| slot.0 != 0).for_each(|slot| self.put(slot.0, slot.1));
        }
    }

    fn bucket(&self, check: u32) -> &[(u32, T)] {
        if self.slots.is_empty() {
            return &[];
        }
        let at = (check as usize & (self.slots.len() / BUCKET - 1)) * BUCKET;
        &self.slots[at..at + BUCKET]
    }

    fn bucket_mut(&mut self, check: u32) -> &mut [(u32, T)] {
        if self.slots.is_empty() {
            return &mut [];
        }
        let at = (check as usize & (self.slots.len() / BUCKET - 1)) * BUCKET;
        &mut self.slots[at..at + BUCKET]
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
        assert_eq!(recent.slots.len(), 1024);
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
            assert_eq!(aged.copied(7), Some("kept"));
        }
        assert_eq!(aged.peek(100), None);
        assert!(aged.keys().count() <= 20);
    }
}
