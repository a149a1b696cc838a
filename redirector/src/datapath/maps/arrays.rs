//! Writes and reads elements of arrays: many with one call if the kernel has it
//! (`BPF_MAP_UPDATE_BATCH`, `BPF_MAP_LOOKUP_BATCH`, 5.6). That halves the time to write a full pool
//! of routes (bench/results/bulk.md).

use aya::maps::{Array, MapData};

use crate::datapath::{error::DatapathError, sys};

pub(crate) fn read<V: aya::Pod>(
    map: &Array<MapData, V>,
    name: &str,
    index: u32,
) -> Result<V, DatapathError> {
    map.get(&index, 0).map_err(|error| DatapathError::call(format!("read {name}[{index}]"), error))
}

pub(crate) fn write<V: aya::Pod>(
    map: &mut Array<MapData, V>,
    name: &str,
    index: u32,
    value: V,
) -> Result<(), DatapathError> {
    map.set(index, value, 0)
        .map_err(|error| DatapathError::call(format!("write {name}[{index}]"), error))
}

/// Elements to write, in order.
#[derive(Debug)]
pub(crate) struct Elements<V> {
    indices: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for Elements<V> {
    fn default() -> Self {
        Self { indices: Vec::new(), values: Vec::new() }
    }
}

impl<V: Copy> Elements<V> {
    pub(crate) fn push(&mut self, index: u32, value: V) {
        self.indices.push(index);
        self.values.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The first `count`: indices and values.
    pub(crate) fn first(&self, count: usize) -> (&[u32], &[V]) {
        (&self.indices[..count], &self.values[..count])
    }
}

/// The kernel refused an element. Those before it are written, the others are not.
#[derive(Debug)]
pub(crate) struct PartialWrite {
    /// The number of elements written.
    pub(crate) written: usize,
    /// The error of the refused element.
    pub(crate) error: DatapathError,
}

/// Writes each of `values` at its index, in order. The programs see each of them whole.
///
/// Elements that the batch did not write are written one by one: the kernel may lack the command,
/// and a refused element is then named.
pub(crate) fn write_all<V: aya::Pod>(
    map: &mut Array<MapData, V>,
    name: &str,
    (at, values): (&[u32], &[V]),
) -> Result<(), PartialWrite> {
    let batched = if at.len() > 1 { sys::update_batch(map, at, values) } else { 0 };
    let rest = at.iter().zip(values).enumerate().skip(batched);
    for (written, (&index, &value)) in rest {
        write(map, name, index, value).map_err(|error| PartialWrite { written, error })?;
    }
    Ok(())
}

/// Reading up to this many unwanted elements between two wanted ones costs less than another call.
const MAX_GAP: u32 = 4;
/// The most elements that are read with one call.
const MAX_RUN: u32 = 4096;

/// Reads the elements at `wanted`, which ascend without duplicates, and calls `each` for them in
/// order.
pub(crate) fn read_each<V: aya::Pod + Default>(
    map: &Array<MapData, V>,
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
        // Elements that the batch did not read are read one by one: the kernel may lack the
        // command, and a refused element is then named.
        let batched = if values.len() > 1 { sys::lookup_batch(map, first, &mut values) } else { 0 };
        for (number, &index) in (at..).zip(run) {
            let place = (index - first) as usize;
            each(number, if place < batched { values[place] } else { read(map, name, index)? });
        }
        at += near + 1;
        values.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(map: &Array<MapData, u64>) -> Vec<u64> {
        (0..map.len()).map(|index| map.get(&index, 0).expect("an element")).collect()
    }

    #[test]
    fn one_call_writes_every_element() {
        let mut map = Array::create(65_536, 0).expect("a map");
        let at: Vec<u32> = (0..65_536).rev().collect();
        let values: Vec<u64> = at.iter().map(|&index| u64::from(index) << 32 | 7).collect();
        // This kernel has the command.
        assert_eq!(sys::update_batch(&map, &at, &values), at.len());
        let twice: Vec<u64> = values.iter().map(|value| value + 1).collect();
        write_all(&mut map, "batch_test", (&at, &twice)).expect("written");
        assert!(
            read_all(&map)
                .into_iter()
                .enumerate()
                .all(|(index, value)| value == (index as u64) << 32 | 8)
        );
    }

    #[test]
    fn batches_read_the_same_as_single_reads() {
        let mut map = Array::create(10_000, 0).expect("a map");
        let values: Vec<u64> = (0..10_000).map(|index| index * 3 + 1).collect();
        write_all(&mut map, "batch_test", (&(0..10_000).collect::<Vec<_>>(), &values))
            .expect("written");
        // This kernel has the command.
        let mut some = [0_u64; 100];
        for first in [0, 1, 7_000, 9_900] {
            assert_eq!(sys::lookup_batch(&map, first, &mut some), 100);
            assert_eq!(some[..], values[first as usize..][..100]);
        }
        assert_eq!(sys::lookup_batch(&map, 9_950, &mut some), 50, "the map ends");
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
            read_each(&map, "batch_test", &wanted, |number, value| read[number] = value)
                .expect("read");
            assert!(
                wanted.iter().zip(&read).all(|(&index, value)| *value == values[index as usize]),
                "{wanted:?}"
            );
        }
        let error = read_each(&map, "batch_test", &[9_998, 9_999, 10_000], |_, _| {})
            .expect_err("beyond the end of the map");
        assert_eq!(error.to_string(), "failed to read batch_test[10000]");
    }

    #[test]
    fn elements_before_a_refused_one_are_written() {
        let mut map = Array::create(8, 0).expect("a map");
        let stopped = write_all(&mut map, "batch_test", (&[1, 3, 8, 5], &[10, 30, 80, 50]))
            .expect_err("8 is outside the map");
        assert_eq!(
            (stopped.written, stopped.error.to_string().as_str()),
            (2, "failed to write batch_test[8]")
        );
        assert_eq!(read_all(&map), [0, 10, 0, 30, 0, 0, 0, 0]);
    }
}
