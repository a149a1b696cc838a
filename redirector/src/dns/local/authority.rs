//! The decision about one query, as a pure function: reply, forward or drop.
//!
//! Our replies have AA and RA set, and never AD, since nothing was validated. AA: for a source no
//! server is more authoritative (the public DNS may even deny that the name exists), and glibc and
//! Go treat a negative answer with neither AA nor RA as a lame referral and query the next server,
//! which would leak the internal name. RA: the shim resolves every other name.

use super::{
    decision::{AnswerPolicy, Decision, ForwardInfo, ReplyKind},
    reply_builder::{LocalData, ReplyBuilder},
    zone::Zone,
};
use crate::dns::wire::{
    CLASSIC_PAYLOAD, Edns, Header, ParsedQuestion, ReplyBuffer, class, parse_edns, rcode, rtype,
};

/// Decides about the query. For [`Decision::Reply`], `reply` holds the message.
///
/// Never panics and never allocates, for any bytes.
pub fn answer(
    query: &[u8],
    zone: &Zone,
    policy: AnswerPolicy,
    reply: &mut ReplyBuffer,
) -> Decision {
    reply.clear();
    let Some(header) = Header::parse(query).filter(|header| !header.is_response()) else {
        return Decision::Drop;
    };
    let question = only_question(query, &header);
    let edns = question.as_ref().map(|question| parse_edns(query, question.end, &header));
    let builder = ReplyBuilder::new(query, header, edns.and_then(Result::ok).flatten(), reply);
    if header.opcode() != 0 {
        return builder.error(rcode::NOTIMP, question.as_ref(), ReplyKind::NotImp);
    }
    let (Some(question), Some(Ok(edns))) = (&question, edns) else {
        return builder.error(rcode::FORMERR, question.as_ref(), ReplyKind::FormErr);
    };
    let ours = if question.class == class::CHAOS {
        // Names such as version.bind describe the server, us or the upstream.
        None
    } else if let Some(entry) = zone.find(&question.name) {
        Some(LocalData::Source(entry))
    } else if let Some(source) = zone.find_reverse(&question.name) {
        Some(LocalData::Pointer(source))
    } else if matches!(question.qtype, rtype::AXFR | rtype::IXFR) {
        // A transfer is a stream of messages; its first one alone would look like a whole zone.
        None
    } else {
        return Decision::Forward(forward_info(question, edns));
    };
    match ours {
        Some(_) if edns.is_some_and(|edns| edns.version != 0) => builder.bad_version(question),
        Some(data) if question.class == class::IN => builder.answer(question, data, policy),
        _ => builder.error(rcode::REFUSED, Some(question), ReplyKind::Refused),
    }
}

/// Writes REFUSED, which is never longer than the query: the header, the question if it can be
/// parsed, an OPT record if the query had one.
pub fn refuse(query: &[u8], reply: &mut ReplyBuffer) -> Decision {
    reply.clear();
    let Some(header) = Header::parse(query).filter(|header| !header.is_response()) else {
        return Decision::Drop;
    };
    let question = only_question(query, &header);
    let edns = question
        .as_ref()
        .and_then(|question| parse_edns(query, question.end, &header).ok().flatten());
    ReplyBuilder::new(query, header, edns, reply).error(
        rcode::REFUSED,
        question.as_ref(),
        ReplyKind::Refused,
    )
}

/// Writes SERVFAIL for a query that [`answer`] decided to forward.
pub(crate) fn servfail(query: &[u8], reply: &mut ReplyBuffer) {
    reply.clear();
    let Some(header) = Header::parse(query) else { return };
    let Ok(question) = ParsedQuestion::parse(query) else { return };
    let edns = parse_edns(query, question.end, &header).ok().flatten();
    ReplyBuilder::new(query, header, edns, reply).error(
        rcode::SERVFAIL,
        Some(&question),
        ReplyKind::Refused,
    );
}

/// The name and type of the first question, escaped for a log.
pub(crate) fn describe_question(query: &[u8]) -> Option<String> {
    let question = ParsedQuestion::parse(query).ok()?;
    let mut labels = question.name.as_bytes();
    let mut name = String::new();
    while let Some((&len, rest)) = labels.split_first().filter(|(len, _)| **len > 0) {
        let (label, rest) = rest.split_at_checked(len.into())?;
        name += &format!("{}.", label.escape_ascii());
        labels = rest;
    }
    Some(format!("{name} TYPE{}", question.qtype))
}

fn only_question(query: &[u8], header: &Header) -> Option<ParsedQuestion> {
    if header.counts[0] == 1 { ParsedQuestion::parse(query).ok() } else { None }
}

fn forward_info(question: &ParsedQuestion, edns: Option<Edns>) -> ForwardInfo {
    let udp_payload = edns.map_or(CLASSIC_PAYLOAD, |edns| edns.payload.max(CLASSIC_PAYLOAD));
    ForwardInfo { question_end: question.end, udp_payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_described_by_its_name_and_type() {
        let describe = |question: &[u8]| describe_question(&[&[0; 12], question].concat());
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(describe(b"\x03wWw\x07example\0\0\x1c\0\x01"), is("www.example. TYPE28"));
        assert_eq!(describe(b"\x02\n\xff\0\x01\x02\0\x01"), is("\\n\\xff. TYPE258"));
        assert_eq!(describe(b"\x03www"), None);
    }
}
