//! Replaces the calls of a helper that this kernel lacks.
//!
//! A branch on a load-time constant is not enough. Without CAP_PERFMON a verifier before 6.17 also
//! follows the branch that is never taken, as the processor might speculatively, and refuses the
//! call there: "invalid func unknown#187" (5.10). libbpf edits programs for the same reason.

use object::{Object as _, ObjectSection as _, SectionKind};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;

/// The instruction `call HELPER`: class JMP, operation CALL. Both registers are 0, unlike in the
/// call of another function.
fn call(helper: u32) -> [u8; INSTRUCTION] {
    let [a, b, c, d] = helper.to_le_bytes();
    [0x85, 0, 0, 0, a, b, c, d]
}

/// `r0 = 0`: the return value of a helper that succeeds.
const SUCCESS: [u8; INSTRUCTION] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// A copy of `object` in which each call of `helper` is replaced by the return value 0.
pub(crate) fn without(object: &[u8], helper: u32) -> Vec<u8> {
    let mut copy = object.to_vec();
    for range in code_ranges(object) {
        for instruction in copy[range].chunks_exact_mut(INSTRUCTION) {
            if instruction == call(helper) {
                instruction.copy_from_slice(&SUCCESS);
            }
        }
    }
    copy
}

/// The ranges of the code in the file. Empty for a file that is not an object: the loader reports
/// it.
fn code_ranges(object: &[u8]) -> Vec<std::ops::Range<usize>> {
    let Ok(file) = object::File::parse(object) else { return Vec::new() };
    let ranges = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range());
    ranges
        .filter_map(|(start, size)| {
            Some(usize::try_from(start).ok()?..usize::try_from(start + size).ok()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::load::object::{BPF_SET_RETVAL, OBJECT};

    fn calls(object: &[u8], helper: u32) -> usize {
        let ranges = code_ranges(object);
        ranges
            .into_iter()
            .flat_map(|range| object[range].chunks_exact(INSTRUCTION))
            .filter(|&at| at == call(helper))
            .count()
    }

    #[test]
    fn only_the_calls_are_replaced() {
        const KTIME_GET_NS: u32 = 5;
        let without = without(OBJECT, BPF_SET_RETVAL);
        assert!(calls(OBJECT, BPF_SET_RETVAL) > 0, "the programs set no errno");
        assert_eq!(calls(&without, BPF_SET_RETVAL), 0);
        assert_eq!(calls(&without, KTIME_GET_NS), calls(OBJECT, KTIME_GET_NS));
        let changed = without
            .chunks(INSTRUCTION)
            .zip(OBJECT.chunks(INSTRUCTION))
            .filter(|(new, old)| new != old)
            .count();
        assert_eq!(changed, calls(OBJECT, BPF_SET_RETVAL));
    }
}
