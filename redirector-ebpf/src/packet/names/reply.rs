//! Rewrites a query into its reply.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_change_tail};
use redirector_common::packet::{
    answer::{Answer, ReplyRecord, answer},
    checksum::{at_offset, negated, sum},
    found::{Found, NameKind},
    header::{
        Counts, HEAD_LEN, QueryHead, ReplyCode, head_difference, length_difference, reply_head,
    },
    question::Question,
    record::{OPT_LEN, opt},
};

use super::{
    frame::rd_turn_back,
    origin::udp_at,
    records::{rd_put_record, rd_target, record_words},
    scratch::NameScratch,
    settings::settings,
    tail::{UNREADABLE, rd_tail_sum},
};
use crate::{
    packet::{checksum, scratch::scratch, skb::store},
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
    let old = rd_tail_sum(skb, udp + end, query.length.wrapping_sub(end));
    if old == UNREADABLE {
        return None;
    }
    let record_end = end + answer.record.length(target);
    let length = record_end + if question.has_edns() { OPT_LEN } else { 0 };
    // SAFETY: the context. The packet is as it was if this fails.
    if unsafe { bpf_skb_change_tail(skb, udp + length, 0) } != 0 {
        return None;
    }
    let record = rd_put_record(skb, udp + end, answer.record as u32, target);
    if record == UNREADABLE {
        return Some(Outcome::Broken);
    }
    let mut difference = at_offset(record, end.into()) + at_offset(negated(old), end.into());
    if question.has_edns() {
        names.opt = opt((answer.code == ReplyCode::BadVersion).into(), question.dnssec_ok());
        if !store(skb, udp + record_end, &names.opt, OPT_LEN) {
            return Some(Outcome::Broken);
        }
        difference += at_offset(sum(names.opt[0]), record_end.into());
    }
    if !put_head(skb, (udp, length), (answer, question), (names, difference)) {
        return Some(Outcome::Broken);
    }
    if rd_turn_back(skb, query.origin, length) == 0 {
        return Some(Outcome::Broken);
    }
    Some(outcome(found.kind, answer))
}

/// Writes the UDP and DNS headers, and adjusts the checksum.
#[inline(always)]
fn put_head(
    skb: *mut __sk_buff,
    (udp, length): (u32, u32),
    (answer, question): (Answer, Question),
    (names, difference): (&mut NameScratch, u64),
) -> bool {
    let counts = Counts {
        answers: match answer.record {
            ReplyRecord::A | ReplyRecord::Aaaa | ReplyRecord::Ptr => 1,
            ReplyRecord::None | ReplyRecord::Soa => 0,
        },
        authorities: (answer.record == ReplyRecord::Soa).into(),
        additional: question.has_edns().into(),
    };
    let query: QueryHead = names.head;
    names.head = reply_head(query, length, answer.code, counts);
    let data = difference + head_difference(query, names.head);
    store(skb, udp, &names.head, HEAD_LEN)
        && checksum::add(skb, udp + CHECKSUM_AT, data)
        && checksum::add_to_pseudo_header(
            skb,
            udp + CHECKSUM_AT,
            length_difference(query, names.head),
        )
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
