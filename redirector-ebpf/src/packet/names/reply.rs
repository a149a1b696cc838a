//! Rewrites a query into its reply.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_change_tail};
use redirector_common::packet::{
    answer::{Answer, ReplyRecord, answer},
    checksum::{at_offset, fold, negated},
    found::{Found, NameKind},
    header::{Counts, HEAD_LEN, ReplyCode, head_difference, length_difference, reply_head},
    question::Question,
    record::OPT_LEN,
};

use super::{
    front::put_front,
    origin::udp_at,
    read::head,
    records::{HAS_EDNS, rd_put_records, rd_target, record_words},
    scratch::NameScratch,
    settings::settings,
    tail::{UNREADABLE, rd_tail_sum},
};
use crate::{
    packet::{checksum, scratch::scratch},
    pools,
};

/// Octets behind a name in a question: its final zero, the type and the class.
const BEHIND_NAME: u32 = 5;
/// The offset of the checksum in a UDP header.
const CHECKSUM_AT: u32 = 6;

/// The outcome of a query.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Outcome {
    /// It is as it was.
    Untouched = 0,
    /// It is neither the query nor its reply.
    Broken = 1,
    /// The reply has the VIP.
    Answered = 2,
    /// The reply has no record of the type.
    NoData = 3,
    /// The reply has the source of a VIP.
    Reverse = 4,
    /// The reply is SERVFAIL.
    ServFail = 5,
}

/// Rewrites the query whose datagram has `length` octets into its reply. Returns an [`Outcome`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_reply(
    skb: *mut __sk_buff,
    origin: u32,
    length: u32,
    found: u64,
    question: u64,
) -> u32 {
    let (Some(found), Some(question)) = (Found::from_bits(found), Question::from_bits(question))
    else {
        return Outcome::Untouched as u32;
    };
    let query = Query { origin, length, found, question };
    let outcome = reply(skb, query).unwrap_or(Outcome::Untouched);
    outcome as u32
}

/// A query for a mapped name.
#[derive(Clone, Copy)]
struct Query {
    origin: u32,
    length: u32,
    found: Found,
    question: Question,
}

impl Query {
    /// The end of the question in the datagram.
    #[inline(always)]
    fn question_end(self) -> u32 {
        HEAD_LEN + self.found.length + BEHIND_NAME
    }
}

/// None: the query is as it was.
#[inline(always)]
fn reply(skb: *mut __sk_buff, query: Query) -> Option<Outcome> {
    let ttl = settings()?.ttl;
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch()?).names };
    let Query { found, question, .. } = query;
    let answer = answer(found.kind, question, pools::pool6().is_some());
    let mut target = 0;
    if answer.record == ReplyRecord::Ptr {
        target = rd_target(found.index);
        if target == 0 {
            return None;
        }
    }
    record_words(names, (answer.record, found.index, target), ttl);
    let udp = udp_at(query.origin);
    let end = query.question_end();
    let edns = edns(answer, question);
    let old = rd_tail_sum(skb, udp + end, query.length.wrapping_sub(end), edns);
    if old == UNREADABLE {
        return None;
    }
    let record_end = end + answer.record.length(target);
    let length = record_end + if question.has_edns() { OPT_LEN } else { 0 };
    // SAFETY: the context. The packet is as it was if this fails.
    if unsafe { bpf_skb_change_tail(skb, udp + length, 0) } != 0 {
        return None;
    }
    let new = rd_put_records(skb, udp + end, answer.record as u32, target, edns);
    if new == UNREADABLE {
        return Some(Outcome::Broken);
    }
    let difference = at_offset(fold(new) + negated(old), end.into());
    let HeadAnswer(bits) = HeadAnswer::of(answer, question);
    if rd_put_head(skb, query.origin, length, bits, difference) == 0 {
        return Some(Outcome::Broken);
    }
    Some(outcome(found.kind, answer))
}

/// The reply's EDNS record for [`rd_put_records`]; 0 if it has none.
#[inline(always)]
fn edns(answer: Answer, question: Question) -> u32 {
    let bad_version = u32::from(answer.code == ReplyCode::BadVersion);
    let bits = HAS_EDNS | bad_version << 8 | u32::from(question.dnssec_ok()) << 16;
    if question.has_edns() { bits } else { 0 }
}

/// Writes the headers, and adjusts the checksum. Returns 0 if it failed. A function of its own: all
/// paths of [`reply`] come here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_put_head(
    skb: *mut __sk_buff,
    origin: u32,
    length: u32,
    answer: u32,
    difference: u64,
) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: the scratch memory is this program's alone.
    let names: &mut NameScratch = unsafe { &mut (*scratch).names };
    let checksum_at = udp_at(origin) + CHECKSUM_AT;
    let old = head(names);
    let new = reply_head(old, length, HeadAnswer(answer).code(), HeadAnswer(answer).counts());
    let data = difference + head_difference(old, new);
    let is_put = put_front(skb, names, new, (origin, length))
        && checksum::add(skb, checksum_at, data)
        && checksum::add_to_pseudo_header(skb, checksum_at, length_difference(old, new));
    is_put.into()
}

/// What a reply's header says, in one number.
struct HeadAnswer(u32);

impl HeadAnswer {
    const RECORD: u32 = 1;
    const AUTHORITY: u32 = 2;
    const EDNS: u32 = 4;
    const BAD_VERSION: u32 = 8;
    const SERV_FAIL: u32 = 16;

    #[inline(always)]
    fn of(answer: Answer, question: Question) -> Self {
        let record = match answer.record {
            ReplyRecord::A | ReplyRecord::Aaaa | ReplyRecord::Ptr => Self::RECORD,
            ReplyRecord::Soa => Self::AUTHORITY,
            ReplyRecord::None => 0,
        };
        let code = match answer.code {
            ReplyCode::NoError => 0,
            ReplyCode::BadVersion => Self::BAD_VERSION,
            ReplyCode::ServFail => Self::SERV_FAIL,
        };
        let edns = if question.has_edns() { Self::EDNS } else { 0 };
        Self(record | code | edns)
    }

    #[inline(always)]
    fn code(&self) -> ReplyCode {
        if self.0 & Self::SERV_FAIL != 0 {
            ReplyCode::ServFail
        } else if self.0 & Self::BAD_VERSION != 0 {
            ReplyCode::BadVersion
        } else {
            ReplyCode::NoError
        }
    }

    #[inline(always)]
    fn counts(&self) -> Counts {
        let bits = u64::from(self.0);
        Counts { answers: bits & 1, authorities: bits >> 1 & 1, additional: bits >> 2 & 1 }
    }
}

#[inline(always)]
fn outcome(kind: NameKind, answer: Answer) -> Outcome {
    match (answer.code, answer.record) {
        (ReplyCode::ServFail, _) => Outcome::ServFail,
        (_, ReplyRecord::A | ReplyRecord::Aaaa) => Outcome::Answered,
        _ if matches!(kind, NameKind::Pointer) => Outcome::Reverse,
        _ => Outcome::NoData,
    }
}
