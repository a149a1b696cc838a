//! One reply, written section by section into its buffer.

use std::net::IpAddr;

use super::{
    decision::{AnswerPolicy, Decision, ReplyKind},
    zone::{Answer, ZoneEntry},
};
use crate::dns::wire::{
    EDNS_PAYLOAD, Edns, HEADER_LEN, Header, ParsedQuestion, ReplyBuffer, class, flag, rcode, rtype,
};

/// Longest time to live of a real address, in seconds: no hook sends the client to another address
/// if this one fails.
const REAL_ADDRESS_TTL: u32 = 5;
/// Most real addresses in one answer: with the longest name, this many IPv6 addresses fit the 512
/// bytes of a client without EDNS.
const MAX_REAL_ADDRESSES: usize = 8;
/// A compression pointer to the question's name.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER_LEN as u8];

/// The data that the zone has for a name.
pub(super) enum LocalData<'a> {
    Source(&'a ZoneEntry),
    /// A source in wire form.
    Pointer(&'a [u8]),
}

/// One reply under construction.
pub(super) struct ReplyBuilder<'a> {
    query: &'a [u8],
    header: Header,
    edns: Option<Edns>,
    reply: &'a mut ReplyBuffer,
    /// Records in the answer section so far.
    answers: u8,
}

impl<'a> ReplyBuilder<'a> {
    /// A reply to `query`, which has this header and this OPT record.
    pub(super) fn new(
        query: &'a [u8],
        header: Header,
        edns: Option<Edns>,
        reply: &'a mut ReplyBuffer,
    ) -> Self {
        Self { query, header, edns, reply, answers: 0 }
    }

    /// Writes the record of the question's type, or an SOA if there is none. ANY gets one record
    /// (RFC 8482 section 4.1).
    pub(super) fn answer(
        mut self,
        question: &ParsedQuestion,
        data: LocalData<'_>,
        policy: AnswerPolicy,
    ) -> Decision {
        let ttl = match data {
            LocalData::Source(ZoneEntry { answer, .. })
                if !answer.is_available(policy.real_addresses) =>
            {
                return self.error(rcode::SERVFAIL, Some(question), ReplyKind::Pending);
            }
            LocalData::Source(entry) => {
                entry.count_answer();
                if policy.real_addresses { REAL_ADDRESS_TTL.min(policy.ttl) } else { policy.ttl }
            }
            LocalData::Pointer(_) => policy.ttl,
        };
        self.start(flag::AA, Some(question));
        self.answer_section(question.qtype, ttl, (&data, policy));
        let is_empty = self.answers == 0;
        if is_empty {
            self.soa(ttl);
        }
        self.finish(0);
        Decision::Reply(if is_empty { ReplyKind::NoData } else { ReplyKind::Answered })
    }

    /// Writes an error without records.
    pub(super) fn error(
        mut self,
        code: u16,
        question: Option<&ParsedQuestion>,
        kind: ReplyKind,
    ) -> Decision {
        self.start(code, question);
        self.finish(0);
        Decision::Reply(kind)
    }

    /// Writes BADVERS (RFC 6891 section 6.1.3).
    pub(super) fn bad_version(mut self, question: &ParsedQuestion) -> Decision {
        self.start(0, Some(question));
        self.finish(rcode::BADVERS_HIGH);
        Decision::Reply(ReplyKind::FormErr)
    }

    fn answer_section(
        &mut self,
        qtype: u16,
        ttl: u32,
        (data, policy): (&LocalData<'_>, AnswerPolicy),
    ) {
        match data {
            LocalData::Source(ZoneEntry { answer: Answer::Live { real, .. }, .. })
                if policy.real_addresses =>
            {
                self.real_addresses(qtype, ttl, real)
            }
            LocalData::Source(ZoneEntry { answer: Answer::Live { vip, .. }, .. }) => match qtype {
                rtype::A | rtype::ANY => self.record(rtype::A, ttl, &vip.v4.octets()),
                rtype::AAAA => {
                    vip.v6.iter().for_each(|v6| self.record(rtype::AAAA, ttl, &v6.octets()))
                }
                _ => {}
            },
            LocalData::Pointer(source) if matches!(qtype, rtype::PTR | rtype::ANY) => {
                self.record(rtype::PTR, ttl, source)
            }
            LocalData::Pointer(_) | LocalData::Source(_) => {}
        }
    }

    /// Writes the addresses of the question's family, rotated by the query's ID so that clients
    /// spread over them.
    fn real_addresses(&mut self, qtype: u16, ttl: u32, real: &[IpAddr]) {
        let wanted = |address: &&IpAddr| match qtype {
            rtype::A | rtype::ANY => address.is_ipv4(),
            rtype::AAAA => address.is_ipv6(),
            _ => false,
        };
        let count = real.iter().filter(wanted).count();
        let first = usize::from(self.header.id).checked_rem(count).unwrap_or(0);
        let rotated = real.iter().filter(wanted).cycle().skip(first);
        for address in rotated.take(count.min(MAX_REAL_ADDRESSES)) {
            match address {
                IpAddr::V4(v4) => self.record(rtype::A, ttl, &v4.octets()),
                IpAddr::V6(v6) => self.record(rtype::AAAA, ttl, &v6.octets()),
            }
        }
    }

    /// Writes the header, and the question in the client's own bytes, which preserves its case.
    fn start(&mut self, flags: u16, question: Option<&ParsedQuestion>) {
        let copied = self.header.flags & (flag::OPCODE | flag::RD | flag::CD);
        self.reply.push_u16(self.header.id);
        self.reply.push_u16(flag::QR | flag::RA | copied | flags);
        self.reply.push(&[0; 8]);
        if let Some(question) = question {
            self.reply.set_count(0, 1);
            self.reply.push(&self.query[HEADER_LEN..question.end]);
        }
    }

    /// Writes one more record of the question's name in the answer section.
    fn record(&mut self, record_type: u16, ttl: u32, data: &[u8]) {
        self.answers += 1;
        self.reply.set_count(1, self.answers);
        self.record_header(record_type, ttl, data.len());
        self.reply.push(data);
    }

    /// Writes the SOA that lets a client cache a negative answer for `ttl` seconds (RFC 2308
    /// section 3). Its zone is the question's name, since the parent's zone is not ours. The
    /// mailbox `.` means that there is none.
    fn soa(&mut self, ttl: u32) {
        self.reply.set_count(2, 1);
        self.record_header(rtype::SOA, ttl, QUESTION_NAME.len() + 1 + 5 * 4);
        self.reply.push(&QUESTION_NAME);
        self.reply.push(&[0]);
        let (serial, refresh, retry, expire) = (1, 3600, 600, 86400);
        for value in [serial, refresh, retry, expire, ttl] {
            self.reply.push_u32(value);
        }
    }

    fn record_header(&mut self, record_type: u16, ttl: u32, len: usize) {
        self.reply.push(&QUESTION_NAME);
        self.reply.push_u16(record_type);
        self.reply.push_u16(class::IN);
        self.reply.push_u32(ttl);
        self.reply.push_u16(u16::try_from(len).expect("record data is at most a name or an SOA"));
    }

    /// Writes an OPT record if the query had one, with our payload size and the client's DO bit.
    fn finish(&mut self, rcode_high: u8) {
        let Some(edns) = self.edns else { return };
        self.reply.set_count(3, 1);
        self.reply.push(&[0]);
        self.reply.push_u16(rtype::OPT);
        self.reply.push_u16(EDNS_PAYLOAD);
        self.reply.push(&[rcode_high, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        self.reply.push_u16(0);
    }
}
