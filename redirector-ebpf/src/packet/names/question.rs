//! Reads the rest of a question, and the EDNS record.

use redirector_common::packet::{
    front::unaligned, header::has_additional, question::Question, record::OPT_LEN,
};

use super::{
    read::head,
    scratch::{NameScratch, READ},
};
use crate::{opaque, packet::scratch::scratch};

/// Octets of a question's type and class.
const TYPE_AND_CLASS: u32 = 4;
/// The number of the last word that such a record may begin in, as a mask.
const LAST: u64 = 0x3f;

/// The question behind a name of `length` octets, of a message that has `left` octets from its name
/// on, as [`Question`]; 0 if the query is no plain one. Leaves the EDNS record in the scratch
/// memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_question(length: u32, left: u32) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    read(names, length + 1, left).map_or(0, Question::to_bits)
}

#[inline(always)]
fn read(names: &mut NameScratch, type_at: u32, left: u32) -> Option<Question> {
    let question_end = type_at + TYPE_AND_CLASS;
    if question_end > left || type_at > READ - 24 {
        return None;
    }
    let raw = &raw const names.raw;
    let [first, second] = unaligned(type_at, |at| {
        let at = opaque::reload(at.into()) & LAST;
        // SAFETY: the last word is number 34.
        unsafe { raw.cast::<u64>().add(at as usize).read() }
    });
    let question = Question::of(first)?;
    if !has_additional(head(names)) {
        return Some(question);
    }
    if question_end + OPT_LEN > left {
        return None;
    }
    names.opt = [first >> 32 | second << 32, second >> 32];
    question.with_additional(names.opt, left - question_end)
}
