//! Allocates slots and backend IDs. The most recently freed are reused last: a program may still
//! read an old block, and a connection may still count for an old backend.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use redirector_common::backend::BackendId;

/// Free ranges of the slot map. Allocation is circular (next fit).
#[derive(Debug)]
pub(crate) struct SlotAllocator {
    /// Start and length of each free range; adjacent ranges are merged.
    free: BTreeMap<u32, u32>,
    /// Where the search continues: after the last allocated block.
    cursor: u32,
}

impl SlotAllocator {
    pub(crate) fn new(slots: u32) -> Self {
        Self { free: BTreeMap::from([(0, slots)]), cursor: 0 }
    }

    /// A block of `length` slots; `None` if no free range is long enough. A block without slots is
    /// always available.
    pub(crate) fn allocate(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let fits = |(&start, &free): (&u32, &u32)| (free >= length).then_some(start);
        let cursor = self.cursor;
        // The rest of the range that contains the cursor, then the ranges after it, then those
        // before it.
        let here = self
            .free
            .range(..cursor)
            .next_back()
            .filter(|&(&start, &free)| start + free >= cursor + length)
            .map(|_| cursor);
        let start = here
            .or_else(|| self.free.range(cursor..).find_map(fits))
            .or_else(|| self.free.range(..cursor).find_map(fits))?;
        self.reserve(start..start + length);
        self.cursor = start + length;
        Some(start)
    }

    /// Allocates exactly this block, which an earlier agent allocated. False if it is not free.
    pub(crate) fn reserve(&mut self, block: Range<u32>) -> bool {
        if block.is_empty() {
            return true;
        }
        let Some((&start, &length)) = self.free.range(..=block.start).next_back() else {
            return false;
        };
        let end = start + length;
        if block.end > end {
            return false;
        }
        self.free.remove(&start);
        if start < block.start {
            self.free.insert(start, block.start - start);
        }
        if block.end < end {
            self.free.insert(block.end, end - block.end);
        }
        true
    }

    /// Frees a block.
    pub(crate) fn release(&mut self, block: Range<u32>) {
        if block.is_empty() {
            return;
        }
        let (mut start, mut end) = (block.start, block.end);
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(length) = self.free.remove(&end) {
            end += length;
        }
        self.free.insert(start, end - start);
    }
}

/// Free backend IDs.
#[derive(Debug)]
pub(crate) struct IdAllocator {
    freed: VecDeque<u32>,
    /// IDs from here to the limit were never used.
    next_unused: u32,
    limit: u32,
}

impl IdAllocator {
    /// The IDs from 1 to `limit` (exclusive), except those in `taken`.
    pub(crate) fn new(limit: u32, taken: impl IntoIterator<Item = u32>) -> Self {
        let mut taken: Vec<u32> = taken.into_iter().collect();
        taken.sort_unstable();
        let next_unused = taken.last().map_or(1, |last| last + 1);
        let freed = (1..next_unused).filter(|id| taken.binary_search(id).is_err()).collect();
        Self { freed, next_unused, limit }
    }

    /// An ID that was never used, else the one that has been free for longest.
    pub(crate) fn allocate(&mut self) -> Option<BackendId> {
        if self.next_unused < self.limit {
            self.next_unused += 1;
            return Some(BackendId(self.next_unused - 1));
        }
        self.freed.pop_front().map(BackendId)
    }

    /// Frees an ID.
    pub(crate) fn release(&mut self, id: BackendId) {
        self.freed.push_back(id.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_freed_block_is_reused_after_all_others() {
        let mut blocks = SlotAllocator::new(12);
        let first = blocks.allocate(4).expect("room");
        blocks.release(first..first + 4);
        assert_eq!(blocks.allocate(4), Some(4));
        assert_eq!(blocks.allocate(4), Some(8));
        assert_eq!(blocks.allocate(4), Some(0));
        assert_eq!(blocks.allocate(1), None);
    }

    #[test]
    fn adjacent_free_ranges_are_merged() {
        let mut blocks = SlotAllocator::new(9);
        for expected in [0, 3, 6] {
            assert_eq!(blocks.allocate(3), Some(expected));
        }
        for start in [0, 6, 3] {
            blocks.release(start..start + 3);
        }
        assert_eq!(blocks.allocate(9), Some(0));
    }

    #[test]
    fn the_most_recently_freed_id_is_reused_last() {
        let mut ids = IdAllocator::new(4, [2]);
        assert_eq!(ids.allocate(), Some(BackendId(3)));
        assert_eq!(ids.allocate(), Some(BackendId(1)));
        assert_eq!(ids.allocate(), None);
        ids.release(BackendId(3));
        ids.release(BackendId(1));
        assert_eq!((ids.allocate(), ids.allocate()), (Some(BackendId(3)), Some(BackendId(1))));
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_nothing_is_lost(
            steps in proptest::collection::vec(
                (any::<bool>(), 0u32..20, any::<prop::sample::Index>()),
                0..200,
            )
        ) {
            const SLOTS: u32 = 300;
            let mut blocks = SlotAllocator::new(SLOTS);
            let mut taken: Vec<Range<u32>> = Vec::new();
            for (take, length, which) in steps {
                if take || taken.is_empty() {
                    if let Some(start) = blocks.allocate(length) && length > 0 {
                        taken.push(start..start + length);
                    }
                } else {
                    blocks.release(taken.swap_remove(which.index(taken.len())));
                }
                let used: BTreeSet<u32> = taken.iter().cloned().flatten().collect();
                prop_assert_eq!(used.len(), taken.iter().map(|block| block.len()).sum::<usize>());
                prop_assert!(used.iter().all(|&slot| slot < SLOTS));
                let free: u32 = blocks.free.values().sum();
                prop_assert_eq!(free as usize + used.len(), SLOTS as usize);
            }
            for block in taken {
                blocks.release(block);
            }
            prop_assert_eq!(blocks.free, BTreeMap::from([(0, SLOTS)]));
        }
    }
}
