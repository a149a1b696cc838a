//! Reads the rest of a question, and the EDNS record.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use redirector_common::packet::{header::has_additional, question::Question, record::OPT_LEN};

use super::scratch::NameScratch;
use crate::packet::scratch::scratch;

/// Octets of a question's type and class.
const TYPE_AND_CLASS: u32 = 4;

/// The question whose type is at this offset, as [`Question`]; 0 if the query is no plain one.
/// `end` is the end of the message.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_question(skb: *mut __sk_buff, type_at: u32, end: u32) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    read(skb, (type_at, end), names).map_or(0, Question::to_bits)
}

#[inline(always)]
fn read(
    skb: *mut __sk_buff,
    (type_at, end): (u32, u32),
    names: &mut NameScratch,
) -> Option<Question> {
    let question_end = type_at + TYPE_AND_CLASS;
    // SAFETY: the helper writes four octets of `question`, or fails.
    let read = unsafe {
        let question = (&raw mut names.question).cast();
        bpf_skb_load_bytes(skb.cast(), type_at, question, TYPE_AND_CLASS)
    };
    if question_end > end || read != 0 {
        return None;
    }
    let question = Question::of(names.question)?;
    if !has_additional(names.head) {
        return Some(question);
    }
    // SAFETY: the helper writes the octets of an OPT record without data to `opt`, or fails.
    let read = unsafe {
        let opt = (&raw mut names.opt).cast();
        bpf_skb_load_bytes(skb.cast(), question_end, opt, OPT_LEN)
    };
    if question_end + OPT_LEN > end || read != 0 {
        return None;
    }
    question.with_additional(names.opt, end - question_end)
}
