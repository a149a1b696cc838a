//! What must hold for any bytes: each target takes an input and panics when it does not.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use redirector::dns::{
    Answer, Answers, Outcome, Question, Reply, Terms, Vip, answer, fits, refuse,
};

const HEADER: usize = 12;

/// One of each kind of source.
static ANSWERS: LazyLock<Answers> = LazyLock::new(|| {
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
    Answers::new(entries.map(|(source, answer)| (source.parse().expect("a source"), answer)))
});

/// A query: the first byte chooses the client, the rest is what it sent.
pub fn query(data: &[u8]) {
    let Some((&choice, query)) = data.split_first() else { return };
    let terms = Terms { ttl: 30, real: choice & 1 == 1 };
    let mut reply = Reply::new();
    let is_query = query.len() >= HEADER && query[2] & 0x80 == 0;
    match answer(query, &ANSWERS, terms, &mut reply) {
        Outcome::Drop => assert!(!is_query, "a query got nothing"),
        Outcome::Reply(_) => {
            assert!(is_query);
            check_reply(query, reply.as_bytes());
            assert!(reply.as_bytes().len() <= 512);
        }
        Outcome::Forward(question) => assert!(
            is_query && query.get(HEADER..question.end).is_some() && question.payload >= 512
        ),
    }
    match refuse(query, &mut reply) {
        Outcome::Reply(_) => {
            check_reply(query, reply.as_bytes());
            assert!(reply.as_bytes().len() <= query.len(), "a refusal is longer than its query");
        }
        other => assert!(other == Outcome::Drop && !is_query),
    }
}

/// An upstream's reply: the first two bytes are the length of the query, then come the query and
/// the reply.
pub fn reply(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((query, reply)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
        return;
    };
    let Outcome::Forward(question) =
        answer(query, &ANSWERS, Terms { ttl: 30, real: false }, &mut Reply::new())
    else {
        return;
    };
    if !fits(query, &question, reply) {
        return;
    }
    assert_eq!(reply[..2], query[..2], "another ID");
    assert!(reply[2] & 0x80 != 0, "not a reply");
    let whole = reply[4..HEADER] != [0; 8];
    assert!(!whole || same_question(query, reply, &question), "another question");
    let truncated = reply[2] & 2 != 0;
    assert!(
        !whole || truncated || records_end(reply, question.end).is_some(),
        "a record that is not there"
    );
}

fn same_question(query: &[u8], reply: &[u8], question: &Question) -> bool {
    reply
        .get(HEADER..question.end)
        .is_some_and(|asked| asked.eq_ignore_ascii_case(&query[HEADER..question.end]))
}

/// What we say is a header with our flags, the client's ID and question, and records that are where
/// the counts say.
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
        "the records don't end where the reply does"
    );
}

/// Where the records after the question end. Written apart from the shim's own walk, so that one
/// checks the other.
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
