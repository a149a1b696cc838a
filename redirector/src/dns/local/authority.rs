//! The decision about one query, as a pure function: an answer of ours, the upstream's, or silence.
//!
//! An answer of ours has AA and RA set. AA, because for a source nobody knows better than we do
//! (the public DNS may even deny that the name exists), and because glibc and Go take a negative
//! answer with neither AA nor RA for a lame referral and ask the next server, which would leak the
//! internal name and bring back NXDOMAIN. RA, because we do recurse for everything else. Never AD:
//! nothing was validated.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use super::zone::{Answer, Answers, Entry};
use crate::dns::wire::{
    self, EDNS_PAYLOAD, Edns, HEADER, Header, RawQuestion, Reply, code, flag, rcode,
};

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply buffer holds the answer.
    Reply(Kind),
    /// The upstream's to answer.
    Forward(Question),
    /// No answer is due: not a query, or not even a header.
    Drop,
}

/// What kind of answer we gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One record.
    Answered,
    /// No record of that type, and an SOA.
    NoData,
    /// The query could not be read, or its EDNS version is unknown (BADVERS).
    FormErr,
    /// An opcode other than QUERY.
    NotImp,
    /// A class, a zone transfer or a client that we don't serve.
    Refused,
    /// SERVFAIL, since the source's VIP leads nowhere yet.
    Pending,
}

/// What the forwarder must know about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the question ends in the query; it starts after the 12 bytes of the header.
    pub end: usize,
    /// The UDP payload that the client takes, in bytes: what its OPT record says, else 512.
    pub payload: u16,
}

/// How a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Time to live of a virtual address, and of everything else that we say, in seconds.
    pub ttl: u32,
    /// Whether it gets the destination's own addresses.
    pub real: bool,
}

/// Time to live of a real address, in seconds: no hook moves such a client on when the address
/// dies.
const REAL_TTL: u32 = 5;
/// Real addresses in one answer: with the longest name there is, and of the larger kind, they fit
/// the 512 bytes of a client without EDNS.
const MOST_REAL: usize = 8;

/// Decides about the query and writes the answer, if it is ours, into `reply`.
///
/// Never panics and never allocates, whatever the bytes are.
pub fn answer(query: &[u8], answers: &Answers, terms: Terms, reply: &mut Reply) -> Outcome {
    reply.clear();
    let Some(header) = Header::read(query) else { return Outcome::Drop };
    if header.is_response() {
        return Outcome::Drop;
    }
    let mut builder = Builder { query, header, reply, edns: None, answers: 0 };
    let question = if header.counts[0] == 1 { RawQuestion::read(query).ok() } else { None };
    let edns = question.as_ref().map(|question| wire::edns(query, question.end, &header));
    builder.edns = edns.and_then(Result::ok).flatten();
    if header.opcode() != 0 {
        return builder.error(rcode::NOTIMP, question.as_ref(), Kind::NotImp);
    }
    let (Some(question), Some(Ok(edns))) = (&question, edns) else {
        return builder.error(rcode::FORMERR, question.as_ref(), Kind::FormErr);
    };
    let ours = if question.class == code::CLASS_CHAOS {
        // version.bind and the like would describe us or, forwarded, the upstream: nobody's
        // business in either case.
        Err(Kind::Refused)
    } else if let Some(entry) = answers.find(&question.name) {
        Ok(Data::Source(entry))
    } else if let Some(source) = answers.find_reverse(&question.name) {
        Ok(Data::Pointer(source))
    } else if matches!(question.kind, code::AXFR | code::IXFR) {
        // A transfer is a stream of messages; passing on its first one would look like a whole
        // zone.
        Err(Kind::Refused)
    } else {
        let payload =
            edns.map_or(wire::CLASSIC_PAYLOAD, |edns| edns.payload.max(wire::CLASSIC_PAYLOAD));
        return Outcome::Forward(Question { end: question.end, payload });
    };
    match ours {
        Ok(_) if edns.is_some_and(|edns| edns.version != 0) => builder.bad_version(question),
        Ok(data) if question.class == code::CLASS_IN => builder.data(question, data, terms),
        _ => builder.error(rcode::REFUSED, Some(question), Kind::Refused),
    }
}

/// Writes REFUSED, which is never longer than the query: the header, its question if it can be
/// read, an OPT record if it had one.
pub fn refuse(query: &[u8], reply: &mut Reply) -> Outcome {
    reply.clear();
    let Some(header) = Header::read(query).filter(|header| !header.is_response()) else {
        return Outcome::Drop;
    };
    let question = if header.counts[0] == 1 { RawQuestion::read(query).ok() } else { None };
    let edns = question
        .as_ref()
        .and_then(|question| wire::edns(query, question.end, &header).ok().flatten());
    Builder { query, header, reply, edns, answers: 0 }.error(
        rcode::REFUSED,
        question.as_ref(),
        Kind::Refused,
    )
}

/// The name and type of the first question, for a log: whatever is not plain is escaped.
pub(crate) fn asked(query: &[u8]) -> Option<String> {
    let question = RawQuestion::read(query).ok()?;
    let mut labels = question.name.as_bytes();
    let mut name = String::new();
    while let Some((&len, rest)) = labels.split_first().filter(|(len, _)| **len > 0) {
        let (label, rest) = rest.split_at_checked(len.into())?;
        name += &format!("{}.", label.escape_ascii());
        labels = rest;
    }
    Some(format!("{name} TYPE{}", question.kind))
}

/// Writes SERVFAIL for a query that [`answer`] wanted forwarded.
pub(crate) fn servfail(query: &[u8], reply: &mut Reply) {
    reply.clear();
    let Some(header) = Header::read(query) else { return };
    let Ok(question) = RawQuestion::read(query) else { return };
    let edns = wire::edns(query, question.end, &header).ok().flatten();
    Builder { query, header, reply, edns, answers: 0 }.error(
        rcode::SERVFAIL,
        Some(&question),
        Kind::Refused,
    );
}

/// What is ours under a name.
enum Data<'a> {
    Source(&'a Entry),
    /// A source in wire form.
    Pointer(&'a [u8]),
}

/// One reply under construction.
struct Builder<'a> {
    query: &'a [u8],
    header: Header,
    reply: &'a mut Reply,
    edns: Option<Edns>,
    /// Records in the answer section so far.
    answers: u8,
}

/// A compression pointer to the question's name.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];

impl Builder<'_> {
    /// The record of the asked type, or none and an SOA. ANY gets the one record that there is (RFC
    /// 8482 section 4.1).
    fn data(mut self, question: &RawQuestion, data: Data<'_>, terms: Terms) -> Outcome {
        let (answer, ttl) = match &data {
            Data::Source(Entry { answer: Answer::Pending, .. }) => {
                return self.error(rcode::SERVFAIL, Some(question), Kind::Pending);
            }
            Data::Source(Entry { answer: Answer::Live { real, .. }, .. })
                if terms.real && real.is_empty() =>
            {
                return self.error(rcode::SERVFAIL, Some(question), Kind::Pending);
            }
            Data::Source(entry) => {
                entry.answered.fetch_add(1, Relaxed);
                (Some(&entry.answer), if terms.real { REAL_TTL.min(terms.ttl) } else { terms.ttl })
            }
            Data::Pointer(_) => (None, terms.ttl),
        };
        self.start(flag::AA, Some(question));
        match (answer, &data, question.kind) {
            (Some(Answer::Live { real, .. }), _, kind) if terms.real => {
                self.real_addresses(kind, ttl, real)
            }
            (Some(Answer::Live { vip, .. }), _, code::A | code::ANY) => {
                self.record(code::A, ttl, &vip.v4.octets())
            }
            (Some(Answer::Live { vip, .. }), _, code::AAAA) => {
                vip.v6.iter().for_each(|v6| self.record(code::AAAA, ttl, &v6.octets()))
            }
            (_, Data::Pointer(source), code::PTR | code::ANY) => {
                self.record(code::PTR, ttl, source)
            }
            _ => {}
        }
        let empty = self.answers == 0;
        if empty {
            self.soa(ttl);
        }
        self.finish(0);
        Outcome::Reply(if empty { Kind::NoData } else { Kind::Answered })
    }

    /// Those of the asked family, beginning anywhere, so that clients spread over them.
    fn real_addresses(&mut self, kind: u16, ttl: u32, real: &[IpAddr]) {
        let wanted = |address: &&IpAddr| match kind {
            code::A | code::ANY => address.is_ipv4(),
            code::AAAA => address.is_ipv6(),
            _ => false,
        };
        let number = real.iter().filter(wanted).count();
        let first = usize::from(self.header.id).checked_rem(number).unwrap_or(0);
        for address in real.iter().filter(wanted).cycle().skip(first).take(number.min(MOST_REAL)) {
            match address {
                IpAddr::V4(v4) => self.record(code::A, ttl, &v4.octets()),
                IpAddr::V6(v6) => self.record(code::AAAA, ttl, &v6.octets()),
            }
        }
    }

    fn error(mut self, code: u16, question: Option<&RawQuestion>, kind: Kind) -> Outcome {
        self.start(code, question);
        self.finish(0);
        Outcome::Reply(kind)
    }

    fn bad_version(mut self, question: &RawQuestion) -> Outcome {
        self.start(0, Some(question));
        self.finish(rcode::BADVERS_HIGH);
        Outcome::Reply(Kind::FormErr)
    }

    /// The header, and the question in the client's own bytes, whose case is thereby kept.
    fn start(&mut self, flags: u16, question: Option<&RawQuestion>) {
        let kept = self.header.flags & (flag::OPCODE | flag::RD | flag::CD);
        self.reply.push_u16(self.header.id);
        self.reply.push_u16(flag::QR | flag::RA | kept | flags);
        self.reply.push(&[0; 8]);
        if let Some(question) = question {
            self.reply.set_count(0, 1);
            self.reply.push(&self.query[HEADER..question.end]);
        }
    }

    /// One more answer record, of the question's name.
    fn record(&mut self, kind: u16, ttl: u32, data: &[u8]) {
        self.answers += 1;
        self.reply.set_count(1, self.answers);
        self.record_header(kind, ttl, data.len());
        self.reply.push(data);
    }

    /// The SOA that lets a negative answer be cached for `ttl` seconds (RFC 2308 section 3). The
    /// asked name is its own zone: a name with a parent's SOA would claim a zone that is not ours.
    /// `.` says that no mailbox is responsible.
    fn soa(&mut self, ttl: u32) {
        self.reply.set_count(2, 1);
        self.record_header(code::SOA, ttl, QUESTION_NAME.len() + 1 + 5 * 4);
        self.reply.push(&QUESTION_NAME);
        self.reply.push(&[0]);
        let (serial, refresh, retry, expire) = (1, 3600, 600, 86400);
        for value in [serial, refresh, retry, expire, ttl] {
            self.reply.push_u32(value);
        }
    }

    fn record_header(&mut self, kind: u16, ttl: u32, len: usize) {
        self.reply.push(&QUESTION_NAME);
        self.reply.push_u16(kind);
        self.reply.push_u16(code::CLASS_IN);
        self.reply.push_u32(ttl);
        self.reply
            .push_u16(u16::try_from(len).expect("our record data is at most a name or an SOA"));
    }

    /// An OPT record when the query had one, with our payload size and the client's DO bit.
    fn finish(&mut self, rcode_high: u8) {
        let Some(edns) = self.edns else { return };
        self.reply.set_count(3, 1);
        self.reply.push(&[0]);
        self.reply.push_u16(code::OPT);
        self.reply.push_u16(EDNS_PAYLOAD);
        self.reply.push(&[rcode_high, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        self.reply.push_u16(0);
    }
}
