//! The memory in which a query is parsed and a reply is built. Whole words, at constant offsets:
//! the verifier follows neither a variable index in a loop nor half a word on the stack.

use redirector_common::packet::{front::BEFORE_WORDS, name_filter::Tail};

/// Octets of a message that are read from its name on: the longest name, its type and class, and
/// an EDNS record without data.
pub(crate) const READ: u32 = 280;

/// The most octets behind the question that a reply replaces.
pub(crate) const MAX_TAIL: u32 = 508;

/// See the module.
#[repr(C)]
pub(crate) struct NameScratch {
    /// The frame up to the name, behind octets that mean nothing.
    pub(crate) before: [u64; BEFORE_WORDS],
    /// The message from its name on. What is beyond the message is of earlier ones.
    pub(crate) raw: [u64; READ as usize / 8],
    /// The name in lower case, up to its first zero.
    pub(crate) lower: [u64; 32],
    /// The octets before that zero.
    pub(crate) length: u64,
    /// The name's hash.
    pub(crate) hash: u64,
    /// The last octets before that zero, in lower case.
    pub(crate) last: Tail,
    /// A bit for each octet of the name that starts a label.
    pub(crate) starts: [u64; 4],
    /// 1 if the first zero is the end of the name.
    pub(crate) has_one_zero: u64,
    /// Some octets of the name.
    pub(crate) chunk: [u64; 4],
    /// A word of the filter.
    pub(crate) filter_word: u32,
    /// The key of wildcards: how many bits count, and the name in reverse order.
    pub(crate) bits: u32,
    pub(crate) reversed: [u64; 32],
    /// The query's EDNS record.
    pub(crate) opt: [u64; 2],
    /// Records of the reply.
    pub(crate) records: [u64; 8],
    /// The name of a PTR record.
    pub(crate) target: [u64; 32],
    /// The frame of the reply up to the name.
    pub(crate) front: [u64; BEFORE_WORDS],
    /// What is behind the question, in 32-bit words.
    pub(crate) tail: [u32; MAX_TAIL as usize / 4 + 1],
}
