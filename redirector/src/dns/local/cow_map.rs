//! A copy-on-write map in parts. A clone shares all parts; a change copies only the part with the
//! key. So the cost of replacing a whole table depends on the number of changes, not on its size.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A full pool of routes has 256 routes in each part.
const PARTS: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct CowMap<K, V> {
    parts: Box<[Arc<HashMap<K, V>>]>,
    len: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Default for CowMap<K, V> {
    fn default() -> Self {
        // All parts share one empty map.
        Self { parts: vec![Arc::default(); PARTS].into(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> CowMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts[part_of(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = Arc::make_mut(&mut self.parts[part_of(&key)]).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = Arc::make_mut(&mut self.parts[part_of(key)]).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Copies every part that is still shared.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.parts
            .iter_mut()
            .filter(|part| !part.is_empty())
            .flat_map(|part| Arc::make_mut(part).iter_mut())
    }

    /// All elements.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

fn part_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let mut hasher = PartHasher(0);
    key.hash(&mut hasher);
    // The high bits depend on every byte.
    (hasher.finish() >> 56) as usize % PARTS
}

/// A fast hash to select the part, which every query does. It need not resist chosen keys, since
/// the operator writes them; within a part the map uses the standard library's hash.
struct PartHasher(u64);

impl Hasher for PartHasher {
    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_original_and_copies_one_part() {
        let mut one: CowMap<u32, u32> = CowMap::default();
        for key in 0..10_000 {
            assert_eq!(one.insert(key, key), None);
        }
        let mut other = one.clone();
        assert_eq!(
            (other.insert(7, 8), other.remove(&9), other.remove(&9)),
            (Some(7), Some(9), None)
        );
        assert_eq!((one.len(), one.get(&7), one.get(&9)), (10_000, Some(&7), Some(&9)));
        assert_eq!(
            (other.len(), other.get(&7), other.get(&9), other.iter().count()),
            (9_999, Some(&8), None, 9_999)
        );
        let shared = one
            .parts
            .iter()
            .zip(&other.parts)
            .filter(|(one, other)| Arc::ptr_eq(one, other))
            .count();
        assert!(shared >= PARTS - 2, "{shared}");
    }

    #[test]
    fn names_that_differ_in_a_number_spread_over_all_parts() {
        let mut sizes = [0_usize; PARTS];
        for number in 0..65_536 {
            let name = format!("\x06r{number:05}\x08internal\x07company\x03net\0");
            sizes[part_of(name.as_bytes())] += 1;
        }
        assert!(sizes.iter().all(|size| (64..1024).contains(size)), "{sizes:?}");
    }
}
