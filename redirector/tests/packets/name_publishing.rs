//! Names are published, replaced, withdrawn and adopted; every state of the tables is right.

use std::{collections::BTreeMap, time::Instant};

use redirector::{
    datapath::{NameChange, PublishedName},
    route::SourceName,
};
use redirector_common::{names, packet::names::Name};

use crate::{
    frames::{Ends, frame, parse},
    queries::wire,
    rig::{Bed, NEXT, Runner},
};

/// The outcome of a question for an address.
#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    LeftAlone,
    ServFail,
    Address([u8; 4]),
}

fn ask(program: &Runner, name: &str) -> Lookup {
    let question = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire(name), &[0, 1, 0, 1]].concat();
    let mut frame = frame(&Ends::v4(), &question);
    if program.run(&mut frame) == NEXT {
        return Lookup::LeftAlone;
    }
    let (_, reply) = parse(&frame).unwrap();
    match reply[3] & 15 {
        2 => Lookup::ServFail,
        0 => Lookup::Address(*reply.last_chunk().unwrap()),
        code => panic!("code {code}"),
    }
}

fn vip(last: u8) -> Lookup {
    Lookup::Address([198, 18, 0, last])
}

/// The source of a VIP by its reverse name; none if the question is left alone.
fn source_of(program: &Runner, last: u8) -> Option<Vec<u8>> {
    let name = wire(&format!("{last}.0.18.198.in-addr.arpa"));
    let question = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &name, &[0, 12, 0, 1]].concat();
    let mut frame = frame(&Ends::v6(), &question);
    if program.run(&mut frame) == NEXT {
        return None;
    }
    let (_, reply) = parse(&frame).unwrap();
    Some(reply[question.len() + 12..].to_vec())
}

#[test]
fn names_change_in_place() {
    let mut bed = Bed::new();
    let program = bed.program(names::INGRESS);
    assert_eq!(ask(&program, "art.company.net"), Lookup::LeftAlone);
    bed.put("art.company.net", PublishedName::pending(1));
    bed.put("*.company.net", PublishedName::live(2));
    assert_eq!(ask(&program, "art.company.net"), Lookup::ServFail);
    assert_eq!(ask(&program, "other.company.net"), vip(2));
    assert_eq!(ask(&program, "company.net"), Lookup::LeftAlone);
    assert_eq!(source_of(&program, 1), None);
    assert_eq!(source_of(&program, 2), Some(wire("*.company.net")));
    bed.publish("art.company.net", 1);
    assert_eq!(ask(&program, "art.company.net"), vip(1));
    assert_eq!(source_of(&program, 1), Some(wire("art.company.net")));
    bed.publish("art.company.net", 3);
    assert_eq!(ask(&program, "ART.company.net"), vip(3));
    assert_eq!((source_of(&program, 1), source_of(&program, 3).is_some()), (None, true));
    assert_eq!(bed.datapath.live_names(), 2);
    bed.put("art.company.net", PublishedName::pending(3));
    assert_eq!(source_of(&program, 3), None);
    assert_eq!(bed.datapath.live_names(), 1);
    bed.withdraw("art.company.net");
    assert_eq!(bed.datapath.live_names(), 1);
    // The wildcard above it remains.
    assert_eq!(ask(&program, "art.company.net"), vip(2));
    bed.withdraw("*.company.net");
    bed.withdraw("*.company.net");
    assert_eq!(ask(&program, "art.company.net"), Lookup::LeftAlone);
    assert_eq!(source_of(&program, 2), None);
    assert!(bed.datapath.names().is_empty());
    assert_eq!(bed.datapath.live_names(), 0);
}

#[test]
fn the_wildcards_of_a_zone_come_and_go_alone() {
    let mut bed = Bed::new();
    let program = bed.program(names::INGRESS);
    let asked = || [ask(&program, "x.a.net"), ask(&program, "y.x.a.net")];
    bed.publish("*.a.net", 1);
    assert_eq!(asked(), [vip(1), Lookup::LeftAlone]);
    bed.put("**.a.net", PublishedName::pending(2));
    assert_eq!(asked(), [vip(1), Lookup::ServFail]);
    bed.publish("**.a.net", 2);
    assert_eq!(asked(), [vip(1), vip(2)]);
    bed.reopen();
    assert_eq!(bed.datapath.names().len(), 2);
    bed.withdraw("*.a.net");
    assert_eq!(asked(), [vip(2), vip(2)]);
    bed.publish("*.a.net", 1);
    bed.withdraw("**.a.net");
    assert_eq!(asked(), [vip(1), Lookup::LeftAlone]);
    bed.withdraw("*.a.net");
    assert_eq!(asked(), [Lookup::LeftAlone, Lookup::LeftAlone]);
}

#[test]
fn a_vip_with_a_new_source_has_its_reverse_name() {
    let mut bed = Bed::new();
    let program = bed.program(names::INGRESS);
    bed.publish("old.company.net", 4);
    bed.publish("new.company.net", 4);
    bed.withdraw("old.company.net");
    assert_eq!(source_of(&program, 4), Some(wire("new.company.net")));
}

#[test]
fn a_restarted_agent_finds_what_is_published() {
    let mut bed = Bed::new();
    let all: BTreeMap<SourceName, PublishedName> = (1..200)
        .map(|index| {
            let star = ["*.", "", "", "**.", "", ""][index as usize % 6];
            let source = format!("{star}name{index}.company.net").parse().unwrap();
            (source, PublishedName { index, pending: index % 5 == 0 })
        })
        .collect();
    let changes: Vec<_> = all
        .iter()
        .map(|(source, &name)| NameChange::Put { source: source.clone(), name })
        .collect();
    bed.datapath.publish_names(&changes).unwrap();
    bed.reopen();
    assert_eq!(*bed.datapath.names(), all);
    assert_eq!(bed.datapath.live_names(), all.values().filter(|name| !name.pending).count());
    assert!(bed.datapath.answers_names().unwrap());
    let program = bed.program(names::INGRESS);
    assert_eq!(ask(&program, "name7.company.net"), vip(7));
    assert_eq!(ask(&program, "y.x.name9.company.net"), vip(9));
    assert_eq!(ask(&program, "x.name12.company.net"), vip(12));
    assert_eq!(ask(&program, "y.x.name12.company.net"), Lookup::LeftAlone);
    assert_eq!(source_of(&program, 9), Some(wire("**.name9.company.net")));
    // The same names again change nothing.
    bed.datapath.publish_names(&changes).unwrap();
    assert_eq!(bed.datapath.names().len(), 199);
    assert_eq!(ask(&program, "name5.company.net"), Lookup::ServFail);
}

/// Two names with the same hash: the step of the hash for a word can be inverted, so a second word
/// is chosen that leads to the same sum, until it is text.
fn colliding(seed: u64) -> (String, String) {
    const ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(ROUND);
        mixed ^ mixed >> 29
    };
    // Seven characters after the length; the next word is eight characters of the same label.
    let first = |number: u64| {
        let text = format!("{number:07x}");
        let octets: Vec<u8> = [&[23], text.as_bytes()].concat();
        (text, u64::from_le_bytes(octets.try_into().unwrap()))
    };
    let (text, word) = first(0);
    let second = u64::from_le_bytes(*b"abcdefgh");
    let target = mix(seed, word) ^ second;
    for number in 1..0x0fff_ffff {
        let (other, word) = first(number);
        let octets = (mix(seed, word) ^ target).to_le_bytes();
        if octets.iter().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit()) {
            let middle = std::str::from_utf8(&octets).unwrap();
            return (format!("{text}abcdefghtailtail.net"), format!("{other}{middle}tailtail.net"));
        }
    }
    panic!("no two names collide");
}

#[test]
fn names_with_one_hash_get_another_seed() {
    let mut bed = Bed::new();
    let seed = bed.seed();
    let (one, other) = colliding(seed);
    let hash = |name: &str| Name::new(name).unwrap().hash(seed);
    assert_eq!(hash(&one), hash(&other));
    let program = bed.program(names::INGRESS);
    bed.publish("third.company.net", 3);
    bed.publish(&one, 1);
    bed.publish(&other, 2);
    assert_ne!(bed.seed(), seed);
    let all = |program: &Runner| [&one, &other, "third.company.net"].map(|name| ask(program, name));
    assert_eq!(all(&program), [vip(1), vip(2), vip(3)]);
    bed.reopen();
    assert_eq!(all(&bed.program(names::INGRESS)), [vip(1), vip(2), vip(3)]);
    bed.withdraw(&one);
    assert_eq!(all(&program), [Lookup::LeftAlone, vip(2), vip(3)]);
}

#[test]
fn names_of_any_length_are_found_and_adopted() {
    let mut bed = Bed::new();
    // In wire form a name has one octet more: the elements of two tables meet at 56.
    let name = |length: usize| format!("{}.company.net", "a".repeat(length - 12));
    let lengths = [13, 53, 54, 55, 56, 57, 62, 75];
    for (index, &length) in (1..).zip(&lengths) {
        bed.publish(&name(length), index);
    }
    let program = bed.program(names::INGRESS);
    let all = |program: &Runner| lengths.map(|length| ask(program, &name(length)));
    let expected = [1, 2, 3, 4, 5, 6, 7, 8].map(vip);
    assert_eq!(all(&program), expected);
    bed.reopen();
    assert_eq!(all(&bed.program(names::INGRESS)), expected);
    bed.publish(&name(55), 20);
    bed.publish(&name(56), 21);
    bed.withdraw(&name(54));
    bed.withdraw(&name(57));
    let [_, _, gone, short, long, also_gone, ..] = all(&bed.program(names::INGRESS));
    assert_eq!([short, long], [vip(20), vip(21)]);
    assert_eq!([gone, also_gone], [Lookup::LeftAlone, Lookup::LeftAlone]);
}

#[test]
fn wildcards_of_each_length_come_and_go() {
    let mut bed = Bed::new();
    let program = bed.program(names::INGRESS);
    let zones =
        ["x", "abc.de", "abcdef.g", "eight.octets0", "fifteen.octets0", "far.sixteen.octets"];
    let asked = |program: &Runner| zones.map(|zone| ask(program, &format!("a.b.{zone}")));
    let mut expected = zones.map(|_| Lookup::LeftAlone);
    // The shortest is the last: it lets every name pass.
    for (index, zone) in zones.iter().enumerate().rev() {
        bed.publish(&format!("**.{zone}"), index as u32 + 1);
        expected[index] = vip(index as u8 + 1);
        assert_eq!(asked(&program), expected);
    }
    bed.reopen();
    let program = bed.program(names::INGRESS);
    for (index, zone) in zones.iter().enumerate() {
        bed.withdraw(&format!("**.{zone}"));
        expected[index] = Lookup::LeftAlone;
        assert_eq!(asked(&program), expected);
    }
}

#[test]
fn a_full_pool_of_names_is_published_at_once() {
    let mut bed = Bed::new();
    let mut changes: Vec<NameChange> =
        (0..64_536).map(|index| put(&format!("r{index:05}.internal.company.net"), index)).collect();
    changes.extend((64_536..65_536).map(|index| put(&format!("*.w{index}.company.net"), index)));
    let began = Instant::now();
    bed.datapath.publish_names(&changes).unwrap();
    let all = began.elapsed();
    let program = bed.program(names::INGRESS);
    assert_eq!(ask(&program, "r00258.internal.company.net"), Lookup::Address([198, 18, 1, 2]));
    assert_eq!(ask(&program, "a.w65535.company.net"), Lookup::Address([198, 18, 255, 255]));
    let began = Instant::now();
    for round in 0..100 {
        bed.publish(&format!("r{round:05}.internal.company.net"), 70 + round);
    }
    let one = began.elapsed() / 100;
    println!("{} names in {all:?}; one change in {one:?}", changes.len());
}

fn put(source: &str, index: u32) -> NameChange {
    NameChange::Put { source: source.parse().unwrap(), name: PublishedName::live(index) }
}
