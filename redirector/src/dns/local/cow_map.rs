//! A map in many parts: a copy shares them all, and a change of the copy makes anew the one part
//! that it is about. So a table that is swapped whole for each change costs what the change does,
//! not what the table does.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// In a pool full of routes each part has 256 of them.
const PARTS: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Shards<K, V> {
    parts: Box<[Arc<HashMap<K, V>>]>,
    len: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Default for Shards<K, V> {
    fn default() -> Self {
        // One empty part in every place.
        Self { parts: vec![Arc::default(); PARTS].into(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shards<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts[part(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = Arc::make_mut(&mut self.parts[part(&key)]).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = Arc::make_mut(&mut self.parts[part(key)]).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// For a table that nobody shares yet.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.parts
            .iter_mut()
            .filter(|part| !part.is_empty())
            .flat_map(|part| Arc::make_mut(part).iter_mut())
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

fn part<Q: Hash + ?Sized>(key: &Q) -> usize {
    let mut folded = Folded(0);
    key.hash(&mut folded);
    // The high bits depend on every byte.
    (folded.0 >> 56) as usize % PARTS
}

/// A hash for choosing the part, of eight bytes at a time: it stands before each look-up, on the
/// way of every query. The keys of the table are the operator's, so that nobody can choose them to
/// fall into one part; within a part std's own hash decides.
struct Folded(u64);

impl Hasher for Folded {
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
    fn a_copy_is_changed_by_itself_and_shares_what_is_not() {
        let mut one: Shards<u32, u32> = Shards::default();
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
            sizes[part(format!("\x06r{number:05}\x08internal\x07company\x03net\0").as_bytes())] +=
                1;
        }
        assert!(sizes.iter().all(|size| (64..1024).contains(size)), "{sizes:?}");
    }
}
