//! The programs answer every query exactly as the user-space authority does, or leave it alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use redirector::{
    datapath::PublishedName,
    dns::{Answer, AnswerPolicy, Decision, ReplyBuffer, ReplyKind, Vip, Zone, answer},
};
use redirector_common::names;

use crate::{
    frames::{Ends, frame, parse},
    queries::{Queries, wire},
    rig::{Bed, NEXT, REDIRECT, Runner, TTL},
};

/// Queries of the ordinary test.
const SOME: u64 = 200_000;
/// The environment variable with another number of queries.
const COUNT: &str = "REDIRECTOR_QUERIES";

/// Octets behind the question that the programs replace at most.
const MAX_TAIL: usize = 508;

/// The names of the zone, and whether they are pending.
fn sources() -> Vec<(String, bool)> {
    let long = |count: usize, label: &str| vec![label; count].join(".");
    let label = "l".repeat(63);
    let looks = ["-", "0", "9"]
        .map(|sign| sign.as_bytes()[0] as usize)
        .map(|length| format!("**.{}.net", "q".repeat(length)));
    let mut live: Vec<String> = [
        "artifactory.internal.company.net",
        "a",
        "bc",
        "sevenoc.tets",
        "eight.octets-now",
        "**.internal.company.net",
        "*.internal.company.net",
        "*.deep.internal.company.net",
        "*.deeper.deep.internal.company.net",
        "exact.deep.internal.company.net",
        "**.net",
        "*.x",
        "under_score.x",
        "*.10.in-addr.arpa",
        "9.9.0.18.198.in-addr.arpa",
        "5.0.18.198.in-addr.arpa",
    ]
    .map(str::to_owned)
    .to_vec();
    live.extend(looks);
    live.push(long(127, "a"));
    live.push(format!("{label}.{label}.{label}.{}", "e".repeat(61)));
    live.push(format!("*.{}", long(64, "w")));
    live.push(format!("**.{}", long(32, "w")));
    live.push(format!("*.{label}.{label}.{label}"));
    live.push(format!("{}.org", "p".repeat(60)));
    let pending =
        ["pending.company.net", "*.pending.example", "**.pending.example"].map(str::to_owned);
    let live = live.into_iter().map(|name| (name, false));
    live.chain(pending.map(|name| (name, true))).collect()
}

/// Whether a source is no wildcard of a zone of less than eight octets in wire form, below which
/// every name is looked for.
fn is_filtered((source, _): &(String, bool)) -> bool {
    let zone = source.trim_start_matches(['*', '.']);
    zone == source || zone.len() > 6
}

/// The zone of the authority; the same is published.
fn zone(bed: &mut Bed, sources: Vec<(String, bool)>) -> Zone {
    let mut entries = Vec::new();
    for (index, (source, is_pending)) in (1..).zip(sources) {
        let name = PublishedName { index, pending: is_pending };
        bed.put(&source, name);
        let v6 = Ipv6Addr::from(0xfd00_0018_u128 << 96 | u128::from(index));
        let v4 = Ipv4Addr::from(0xc612_0000 | index);
        let answer = if is_pending { Answer::Pending } else { Vip { v4, v6: Some(v6) }.into() };
        entries.push((source.parse().unwrap(), answer));
    }
    Zone::new(entries)
}

/// The reply that the programs must make; none if they must leave the message alone.
fn expected(message: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let policy = AnswerPolicy { ttl: TTL, real_addresses: false };
    let mut reply = ReplyBuffer::new();
    let decision = answer(message, zone, policy, &mut reply);
    match decision {
        // A zone transfer of a name that is not mapped.
        Decision::Reply(ReplyKind::Refused) => None,
        Decision::Reply(_) if is_plain(message) => Some(reply.as_bytes().to_vec()),
        _ => None,
    }
}

/// Whether it is a query with one question of the Internet's class and nothing else but an EDNS
/// record: what the programs answer if the name is mapped.
fn is_plain(message: &[u8]) -> bool {
    let Some(end) = question_end(message) else { return false };
    let header = message[2] & 0xf8 == 0 && message[4..11] == [0, 1, 0, 0, 0, 0, 0];
    let class = message[end - 2..end] == [0, 1];
    let tail = &message[end..];
    let additional = match message[11] {
        0 => true,
        1 => is_edns(tail),
        _ => false,
    };
    header && class && additional && tail.len() <= MAX_TAIL
}

fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        match length {
            0 => break,
            1..64 => {}
            _ => return None,
        }
    }
    let is_name = at - 12 <= 255;
    (is_name && at + 4 <= message.len()).then_some(at + 4)
}

fn is_edns(tail: &[u8]) -> bool {
    tail.len() >= 11
        && tail[..3] == [0, 0, 41]
        && tail.len() >= 11 + usize::from(u16::from_be_bytes([tail[9], tail[10]]))
}

/// Runs the program on a message and compares. Returns whether it was answered.
fn check(program: &Runner, ends: &Ends, message: &[u8], zone: &Zone) -> bool {
    let before = frame(ends, message);
    let mut after = before.clone();
    let verdict = program.run(&mut after);
    match expected(message, zone) {
        None => {
            assert_eq!(verdict, NEXT, "{}", message.escape_ascii());
            assert!(after == before, "changed: {}", message.escape_ascii());
            false
        }
        Some(reply) => {
            assert_eq!(verdict, REDIRECT, "{}", message.escape_ascii());
            let expected = Ok((ends.reversed(), reply));
            assert_eq!(parse(&after), expected, "{}", message.escape_ascii());
            true
        }
    }
}

#[test]
fn replies_are_those_of_the_user_space_authority() {
    compare_many(sources());
}

#[test]
fn replies_behind_the_filter_are_the_same() {
    compare_many(sources().into_iter().filter(is_filtered).collect());
}

fn compare_many(sources: Vec<(String, bool)>) {
    let mut bed = Bed::new();
    let names = sources.iter().map(|(name, _)| name.trim_start_matches(['*', '.']).to_owned());
    let names = names.collect();
    let zone = zone(&mut bed, sources);
    let program = bed.program(names::INGRESS);
    let count =
        std::env::var(COUNT).map_or(SOME, |count| count.parse().expect("a number of queries"));
    let mut queries = Queries::new(count, names);
    let mut answered = 0;
    for number in 0..count {
        let ends = if number % 2 == 0 { Ends::v4() } else { Ends::v6() };
        answered += u64::from(check(&program, &ends, &queries.next(), &zone));
    }
    // A third and more of them concern a mapped name in a plain way.
    assert!(answered > count / 4 && answered < count, "{answered} of {count} answered");
}

#[test]
fn each_name_is_answered_with_its_own_address() {
    let mut bed = Bed::new();
    let zone = zone(&mut bed, sources());
    let program = bed.program(names::INGRESS);
    for (source, _) in sources() {
        let name = source.replace("**", "any.depth").replace('*', "any");
        let question =
            [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire(&name), &[0, 1, 0, 1]];
        assert!(check(&program, &Ends::v4(), &question.concat(), &zone), "{source}");
    }
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let mut bed = Bed::new();
    bed.publish("art.company.net", 7);
    let query =
        [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire("art.company.net"), &[0, 1, 0, 1]];
    let mut frame = frame(&Ends::v4(), &query.concat());
    frame[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(bed.program(names::INGRESS).run(&mut frame), REDIRECT);
    assert_eq!(frame[40..42], [0, 0]);
    let (_, reply) = parse(&frame).unwrap();
    assert_eq!(reply[reply.len() - 4..], [198, 18, 0, 7]);
}

/// A change of a frame.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn packets_that_are_no_whole_query_pass() {
    let mut bed = Bed::new();
    bed.publish("art.company.net", 7);
    let program = bed.program(names::INGRESS);
    let query =
        [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire("art.company.net"), &[0, 1, 0, 1]];
    let query = query.concat();
    let passes = |ends: Ends, change: Change<'_>| {
        let mut changed = frame(&ends, &query);
        change(&mut changed);
        let before = changed.clone();
        assert_eq!(program.run(&mut changed), NEXT);
        assert_eq!(changed, before);
    };
    let fragment = |frame: &mut Vec<u8>| frame[20] |= 0x20;
    let offset = |frame: &mut Vec<u8>| frame[21] = 1;
    let options = |frame: &mut Vec<u8>| {
        frame[14] = 0x46;
        frame.splice(34..34, [1, 1, 1, 0]);
    };
    let longer = |frame: &mut Vec<u8>| frame[39] += 1;
    let shorter = |frame: &mut Vec<u8>| frame[39] -= 1;
    let tcp = |frame: &mut Vec<u8>| frame[23] = 6;
    let port = |frame: &mut Vec<u8>| frame[37] = 54;
    let cut = |frame: &mut Vec<u8>| frame.truncate(60);
    let broadcast = |frame: &mut Vec<u8>| frame[..6].fill(0xff);
    let changes: [Change<'_>; 9] =
        [&fragment, &offset, &options, &longer, &shorter, &tcp, &port, &cut, &broadcast];
    for change in changes {
        passes(Ends::v4(), change);
    }
    let extension = |frame: &mut Vec<u8>| {
        frame[20] = 60;
        frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
        frame[19] += 8;
    };
    passes(Ends::v6(), &extension);
    // Octets behind the packet, as an interface adds to short frames, are no part of it.
    let mut padded = frame(&Ends::v4(), &query);
    padded.extend([0xee; 7]);
    assert_eq!(program.run(&mut padded), REDIRECT);
    assert!(parse(&padded).is_ok());
}

#[test]
fn nothing_is_answered_unless_it_is_enabled() {
    let mut bed = Bed::new();
    bed.publish("art.company.net", 7);
    let query =
        [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire("art.company.net"), &[0, 1, 0, 1]];
    let frame = frame(&Ends::v6(), &query.concat());
    let verdict = |bed: &Bed, name| bed.program(name).run(&mut frame.clone());
    assert_eq!(verdict(&bed, names::INGRESS), REDIRECT);
    // A frame without a socket is of no attached cgroup.
    assert_eq!(verdict(&bed, names::HOST_EGRESS), NEXT);
    assert_eq!(verdict(&bed, names::EGRESS), NEXT);
    bed.datapath.set_name_settings(TTL, false).unwrap();
    assert_eq!(verdict(&bed, names::INGRESS), NEXT);
}
