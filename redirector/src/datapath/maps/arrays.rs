//! Writing and reading many elements of one table: with one call where the kernel has it
//! (`BPF_MAP_UPDATE_BATCH`, `BPF_MAP_LOOKUP_BATCH`, 5.6). A pool full of routes is in the kernel in
//! half the time of a call for each (bench/results/bulk.md).

use aya::maps::{Array, MapData};

use crate::datapath::{error::DatapathError, sys};

pub(crate) fn read<V: aya::Pod>(
    table: &Array<MapData, V>,
    name: &str,
    index: u32,
) -> Result<V, DatapathError> {
    table
        .get(&index, 0)
        .map_err(|error| DatapathError::call(format!("read {name}[{index}]"), error))
}

pub(crate) fn write<V: aya::Pod>(
    table: &mut Array<MapData, V>,
    name: &str,
    index: u32,
    value: V,
) -> Result<(), DatapathError> {
    table
        .set(index, value, 0)
        .map_err(|error| DatapathError::call(format!("write {name}[{index}]"), error))
}

/// Elements of a table that are to be written, in this order.
#[derive(Debug)]
pub(crate) struct Elements<V> {
    at: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for Elements<V> {
    fn default() -> Self {
        Self { at: Vec::new(), values: Vec::new() }
    }
}

impl<V: Copy> Elements<V> {
    pub(crate) fn push(&mut self, at: u32, value: V) {
        self.at.push(at);
        self.values.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// The first `count`: where, and what.
    pub(crate) fn first(&self, count: usize) -> (&[u32], &[V]) {
        (&self.at[..count], &self.values[..count])
    }
}

/// The kernel refused an element. Those before it are written, those after it are not.
#[derive(Debug)]
pub(crate) struct PartialWrite {
    /// How many are written.
    pub(crate) written: usize,
    /// About the one that was refused.
    pub(crate) error: DatapathError,
}

/// Writes each of `values` at the index beside it, in this order. Each is one store for the
/// programs, as by itself.
///
/// What the kernel does not take together goes one by one: it may lack the command, and the element
/// that it refuses is named then.
pub(crate) fn write_all<V: aya::Pod>(
    table: &mut Array<MapData, V>,
    name: &str,
    (at, values): (&[u32], &[V]),
) -> Result<(), PartialWrite> {
    let together = if at.len() > 1 { sys::update_batch(table, at, values) } else { 0 };
    let rest = at.iter().zip(values).enumerate().skip(together);
    for (written, (&index, &value)) in rest {
        write(table, name, index, value).map_err(|error| PartialWrite { written, error })?;
    }
    Ok(())
}

/// Elements between two wanted ones that are read along: that many cost less than another call.
const MAX_GAP: u32 = 4;
/// Elements that are read with one call at most.
const MAX_RUN: u32 = 4096;

/// Reads the elements at each of `wanted`, which ascend and don't repeat, and tells `each` of them,
/// in this order.
pub(crate) fn read_each<V: aya::Pod + Default>(
    table: &Array<MapData, V>,
    name: &str,
    wanted: &[u32],
    mut each: impl FnMut(usize, V),
) -> Result<(), DatapathError> {
    let mut values = Vec::new();
    let mut at = 0;
    while let Some(&first) = wanted.get(at) {
        let near = wanted[at..]
            .windows(2)
            .take_while(|two| two[1] - two[0] <= MAX_GAP && two[1] - first < MAX_RUN)
            .count();
        let run = &wanted[at..=at + near];
        values.resize((run[near] - first + 1) as usize, V::default());
        // What the kernel does not give together goes one by one: it may lack the command, and the
        // element that it refuses is named then.
        let together =
            if values.len() > 1 { sys::lookup_batch(table, first, &mut values) } else { 0 };
        for (number, &index) in (at..).zip(run) {
            let place = (index - first) as usize;
            each(number, if place < together { values[place] } else { read(table, name, index)? });
        }
        at += near + 1;
        values.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(table: &Array<MapData, u64>) -> Vec<u64> {
        (0..table.len()).map(|index| table.get(&index, 0).expect("an element")).collect()
    }

    #[test]
    fn one_call_writes_every_element() {
        // Nobody else sees these tables.
        let mut table = Array::create(65_536, 0).expect("a table");
        let at: Vec<u32> = (0..65_536).rev().collect();
        let values: Vec<u64> = at.iter().map(|&index| u64::from(index) << 32 | 7).collect();
        // This kernel has the command, so it is the command that did it.
        assert_eq!(sys::update_batch(&table, &at, &values), at.len());
        let twice: Vec<u64> = values.iter().map(|value| value + 1).collect();
        write_all(&mut table, "batch_test", (&at, &twice)).expect("written");
        assert!(
            read_all(&table)
                .into_iter()
                .enumerate()
                .all(|(index, value)| value == (index as u64) << 32 | 8)
        );
    }

    #[test]
    fn any_elements_are_read_as_they_are_one_by_one() {
        let mut table = Array::create(10_000, 0).expect("a table");
        let values: Vec<u64> = (0..10_000).map(|index| index * 3 + 1).collect();
        write_all(&mut table, "batch_test", (&(0..10_000).collect::<Vec<_>>(), &values))
            .expect("written");
        // This kernel has the command, so it is the command that does it.
        let mut some = [0_u64; 100];
        for first in [0, 1, 7_000, 9_900] {
            assert_eq!(sys::lookup_batch(&table, first, &mut some), 100);
            assert_eq!(some[..], values[first as usize..][..100]);
        }
        assert_eq!(sys::lookup_batch(&table, 9_950, &mut some), 50, "the table ends");
        let spread = |step: u32| (0..10_000).step_by(step as usize).collect::<Vec<u32>>();
        for wanted in [
            vec![],
            vec![0],
            vec![9_999],
            vec![3, 4, 5, 8_000],
            spread(1),
            spread(2),
            spread(5),
            spread(6),
            spread(4_999),
        ] {
            let mut read = vec![0; wanted.len()];
            read_each(&table, "batch_test", &wanted, |number, value| read[number] = value)
                .expect("read");
            assert!(
                wanted.iter().zip(&read).all(|(&index, value)| *value == values[index as usize]),
                "{wanted:?}"
            );
        }
        let error = read_each(&table, "batch_test", &[9_998, 9_999, 10_000], |_, _| {})
            .expect_err("outside the table");
        assert_eq!(error.to_string(), "failed to read batch_test[10000]");
    }

    #[test]
    fn a_refused_element_is_named_and_those_before_it_are_written() {
        let mut table = Array::create(8, 0).expect("a table");
        let stopped = write_all(&mut table, "batch_test", (&[1, 3, 8, 5], &[10, 30, 80, 50]))
            .expect_err("8 is outside the table");
        assert_eq!(
            (stopped.written, stopped.error.to_string().as_str()),
            (2, "failed to write batch_test[8]")
        );
        assert_eq!(read_all(&table), [0, 10, 0, 30, 0, 0, 0, 0]);
    }
}
