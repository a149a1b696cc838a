//! The parsers of the DNS shim.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use redirector::dns::{
    Answer, AnswerPolicy, Decision, ForwardInfo, ReplyBuffer, Vip, Zone, answer, refuse,
    reply_matches,
};

const HEADER: usize = 12;

/// Sources of each kind.
static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let live = |index, v6| Answer::Live {
        vip: Vip { v4: Ipv4Addr::new(198, 18, 0, index), v6 },
        real: (1..=9)
            .map(|n| IpAddr::from([203, 0, 113, n]))
            .chain((1..=9).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])))
            .collect(),
    };
    let entries = [
        ("a.test", live(1, None)),
        ("*.a.test", live(2, Some([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()))),
        ("*.b.c.a.test", Answer::Pending),
        ("six", live(3, Some([0xfd00, 0, 0, 0, 0, 0, 0, 3].into()))),
    ];
    Zone::new(entries.map(|(source, answer)| (source.parse().expect("a source"), answer)))
});

/// A query: the first byte selects the kind of client, the rest is the packet.
pub fn query(data: &[u8]) {
    let Some((&choice, query)) = data.split_first() else { return };
    let policy = AnswerPolicy { ttl: 30, real_addresses: choice & 1 == 1 };
    let mut reply = ReplyBuffer::new();
    let is_query = query.len() >= HEADER && query[2] & 0x80 == 0;
    match answer(query, &ZONE, policy, &mut reply) {
        Decision::Drop => assert!(!is_query, "a query was dropped"),
        Decision::Reply(_) => {
            assert!(is_query);
            check_reply(query, reply.as_bytes());
            assert!(reply.as_bytes().len() <= 512);
        }
        Decision::Forward(info) => assert!(
            is_query && query.get(HEADER..info.question_end).is_some() && info.udp_payload >= 512
        ),
    }
    match refuse(query, &mut reply) {
        Decision::Reply(_) => {
            check_reply(query, reply.as_bytes());
            assert!(reply.as_bytes().len() <= query.len(), "a refusal is longer than its query");
        }
        other => assert!(other == Decision::Drop && !is_query),
    }
}

/// An upstream's reply: the first two bytes are the length of the query, then follow the query and
/// the reply.
pub fn reply(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((query, reply)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
        return;
    };
    let Decision::Forward(info) = answer(
        query,
        &ZONE,
        AnswerPolicy { ttl: 30, real_addresses: false },
        &mut ReplyBuffer::new(),
    ) else {
        return;
    };
    if !reply_matches(query, &info, reply) {
        return;
    }
    assert_eq!(reply[..2], query[..2], "another ID");
    assert!(reply[2] & 0x80 != 0, "not a reply");
    assert!(reply[4..6] == [0; 2] || same_question(query, reply, &info), "another question");
}

fn same_question(query: &[u8], reply: &[u8], info: &ForwardInfo) -> bool {
    reply
        .get(HEADER..info.question_end)
        .is_some_and(|question| question.eq_ignore_ascii_case(&query[HEADER..info.question_end]))
}

/// A reply of ours has a header with our flags, the client's ID and question, and records where the
/// header's counts place them.
fn check_reply(query: &[u8], reply: &[u8]) {
    assert_eq!((&reply[..2], reply[2] & 0x80), (&query[..2], 0x80));
    assert!(reply[3] & 0x20 == 0, "AD was set though nothing was validated");
    let end = match reply[5] {
        0 => HEADER,
        _ => name_end(reply, HEADER).expect("a question") + 4,
    };
    assert_eq!(reply.get(HEADER..end), query.get(HEADER..end), "the question is not the client's");
    assert_eq!(
        records_end(reply, end),
        Some(reply.len()),
        "the records do not end where the reply does"
    );
}

/// The offset after the records. A second implementation, to check the shim's own walk.
fn records_end(message: &[u8], mut at: usize) -> Option<usize> {
    let count =
        |section: usize| u32::from(u16::from_be_bytes([message[section], message[section + 1]]));
    for _ in 0..count(6) + count(8) + count(10) {
        at = name_end(message, at)?;
        let length = message.get(at + 8..at + 10)?;
        at += 10 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        message.get(..at)?;
    }
    Some(at)
}

fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192..=255 => return Some(at + 2),
            _ => return None,
        }
    }
}
