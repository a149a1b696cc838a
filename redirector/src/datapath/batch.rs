//! Writing many elements of one table: with one call where the kernel has it (`BPF_MAP_UPDATE_BATCH`, 5.6). A pool full of routes is in the kernel in half
//! the time of a call for each (bench/results/bulk.md).

use aya::maps::{Array, MapData};

use super::{DatapathError, sys, tables::write};

/// Elements of a table that are to be written, in this order.
#[derive(Debug)]
pub(super) struct Elements<V> {
    at: Vec<u32>,
    values: Vec<V>,
}

impl<V> Default for Elements<V> {
    fn default() -> Self {
        Self { at: Vec::new(), values: Vec::new() }
    }
}

impl<V: Copy> Elements<V> {
    pub(super) fn push(&mut self, at: u32, value: V) {
        self.at.push(at);
        self.values.push(value);
    }

    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// The first `count`: where, and what.
    pub(super) fn first(&self, count: usize) -> (&[u32], &[V]) {
        (&self.at[..count], &self.values[..count])
    }
}

/// The kernel refused an element. Those before it are written, those after it are not.
#[derive(Debug)]
pub(super) struct Stopped {
    /// How many are written.
    pub(super) written: usize,
    /// About the one that was refused.
    pub(super) error: DatapathError,
}

/// Writes each of `values` at the index beside it, in this order. Each is one store for the programs, as by itself.
///
/// What the kernel does not take together goes one by one: it may lack the command, and the element that it refuses is named then.
pub(super) fn write_all<V: aya::Pod>(table: &mut Array<MapData, V>, name: &str, (at, values): (&[u32], &[V])) -> Result<(), Stopped> {
    let together = if at.len() > 1 { sys::update_elements(table, at, values) } else { 0 };
    let rest = at.iter().zip(values).enumerate().skip(together);
    for (written, (&index, &value)) in rest {
        write(table, name, index, value).map_err(|error| Stopped { written, error })?;
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
        assert_eq!(sys::update_elements(&table, &at, &values), at.len());
        let twice: Vec<u64> = values.iter().map(|value| value + 1).collect();
        write_all(&mut table, "batch_test", (&at, &twice)).expect("written");
        assert!(read_all(&table).into_iter().enumerate().all(|(index, value)| value == (index as u64) << 32 | 8));
    }

    #[test]
    fn a_refused_element_is_named_and_those_before_it_are_written() {
        let mut table = Array::create(8, 0).expect("a table");
        let stopped = write_all(&mut table, "batch_test", (&[1, 3, 8, 5], &[10, 30, 80, 50])).expect_err("8 is outside the table");
        assert_eq!((stopped.written, stopped.error.to_string().as_str()), (2, "failed to write batch_test[8]"));
        assert_eq!(read_all(&table), [0, 10, 0, 30, 0, 0, 0, 0]);
    }
}
