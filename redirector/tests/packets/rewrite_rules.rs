//! What holds for every frame, however odd: nothing but the other side's address, the ports and
//! their checksums changes, a checksum that was right stays right, a wrong one stays wrong, and no
//! whole segment leaves for the pool.

use std::{collections::HashSet, env, net::IpAddr, ops::Range};

use redirector_common::{
    names,
    packet::flow::{BriefFlow, FlowKey},
};

use crate::{
    flow_field::{BACKEND6, BACKENDS, FlowField, OTHER_ROUTE, ROUTE},
    frames::{checksum_of, sum},
    random_frames::{Frames, RandomFrame},
    rig::{DROP, NEXT, REDIRECT},
    segments::{ACK, ETHERNET, ICMP, ICMP6, RST, SYN, Segment, TCP},
};

/// Frames of the ordinary test.
const SOME: u64 = 200_000;
/// The environment variable with another number of frames, which is also the seed.
const COUNT: &str = "REDIRECTOR_FRAMES";

/// Offset of the checksum in a TCP header, and in an ICMP header.
const TCP_CHECK: usize = 16;
const ICMP_CHECK: usize = 2;
/// Octets of an ICMP header; the quoted packet follows.
const ICMP_HEADER: usize = 8;

/// Who has sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Guest,
    Backend,
}

/// The parts of an IP packet at `at` in a frame.
#[derive(Clone, Copy, Debug)]
struct Packet {
    at: usize,
    v6: bool,
    protocol: u8,
    /// Where the payload begins.
    payload: usize,
    /// A first or later fragment of IPv4.
    is_fragment: bool,
}

impl Packet {
    /// None if the frame does not have the whole header, or the header is none.
    fn of(frame: &[u8], at: usize, v6: bool) -> Option<Self> {
        let header = frame.get(at..at + if v6 { 40 } else { 20 })?;
        if v6 {
            let protocol = header[6];
            let packet = Self { at, v6, protocol, payload: at + 40, is_fragment: false };
            return (header[0] >> 4 == 6).then_some(packet);
        }
        let length = usize::from(header[0] & 15) * 4;
        let is_fragment = (header[6] & 0x3f, header[7]) != (0, 0);
        let whole = header[0] >> 4 == 4 && length >= 20 && at + length <= frame.len();
        whole.then_some(Self { at, v6, protocol: header[9], payload: at + length, is_fragment })
    }

    fn of_frame(frame: &[u8]) -> Option<Self> {
        match frame[12..14] {
            [0x08, 0x00] => Self::of(frame, ETHERNET, false),
            [0x86, 0xdd] => Self::of(frame, ETHERNET, true),
            _ => None,
        }
    }

    fn source(self) -> Range<usize> {
        if self.v6 { self.at + 8..self.at + 24 } else { self.at + 12..self.at + 16 }
    }

    fn destination(self) -> Range<usize> {
        if self.v6 { self.at + 24..self.at + 40 } else { self.at + 16..self.at + 20 }
    }

    fn check(self) -> Range<usize> {
        if self.v6 { 0..0 } else { self.at + 10..self.at + 12 }
    }

    fn ports(self) -> Range<usize> {
        self.payload..self.payload + 4
    }

    /// The sums that no translation changes: that of the IPv4 header, and that of the payload with
    /// the addresses. One of all ones is one of zeros.
    fn sums(self, frame: &[u8]) -> [u16; 2] {
        let header = if self.v6 { 0 } else { sum(&[&frame[self.at..self.payload]]) };
        let payload = &frame[self.payload..];
        let payload = if self.protocol == ICMP {
            sum(&[payload])
        } else {
            checksum_of([self.source(), self.destination()].map(|at| ip(&frame[at])), 0, payload)
        };
        [header, payload].map(|sum| if sum == 0xffff { 0 } else { sum })
    }
}

fn ip(octets: &[u8]) -> IpAddr {
    match octets.try_into() {
        Ok(octets) => <IpAddr as From<[u8; 4]>>::from(octets),
        Err(_) => <[u8; 16]>::try_from(octets).unwrap().into(),
    }
}

fn is_in_pool(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [198, 18],
        IpAddr::V6(address) => {
            address.octets()[..14] == [0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// Whether a frame's destination is in the pool, whatever else is wrong with its header.
fn leads_to_pool(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => is_in_pool(ip(&frame[30..34])),
        [0x86, 0xdd] => is_in_pool(ip(&frame[38..54])),
        _ => false,
    }
}

/// The octets that a translation may change; none if it must leave the frame alone.
fn may_change(frame: &[u8], sender: Sender) -> Vec<Range<usize>> {
    let Some(packet) = Packet::of_frame(frame) else { return vec![] };
    if packet.is_fragment || sender == Sender::Guest && !leads_to_pool(frame) {
        return vec![];
    }
    let other_side = |packet: Packet, is_sent: bool| match is_sent {
        true => packet.destination(),
        false => packet.source(),
    };
    let outer = [other_side(packet, sender == Sender::Guest), packet.check()];
    let inner = match packet.protocol {
        TCP => vec![packet.ports(), word_at(packet.payload + TCP_CHECK)],
        ICMP | ICMP6 => {
            let Some(quoted) = Packet::of(frame, packet.payload + ICMP_HEADER, packet.v6) else {
                return vec![];
            };
            // It went the other way.
            let address = other_side(quoted, sender == Sender::Backend);
            let check = word_at(packet.payload + ICMP_CHECK);
            vec![check, address, quoted.check(), quoted.ports()]
        }
        _ => return vec![],
    };
    [&outer[..], &inner].concat()
}

fn word_at(at: usize) -> Range<usize> {
    at..at + 2
}

/// Whether TCP can read it as a segment.
fn is_whole_segment(frame: &[u8]) -> bool {
    Packet::of_frame(frame).is_some_and(|packet| {
        packet.protocol == TCP && !packet.is_fragment && packet.payload + 20 <= frame.len()
    })
}

/// The verdict about a frame fits what the program made of it.
fn check(before: &[u8], after: &[u8], verdict: i32, sender: Sender) -> Result<(), String> {
    match verdict {
        NEXT => check_passed(before, after, sender),
        REDIRECT => check_sent(before, after, sender),
        DROP if may_change(before, sender).is_empty() => Err("dropped".into()),
        DROP => Ok(()),
        other => Err(format!("verdict {other}")),
    }
}

/// The frame passes.
fn check_passed(before: &[u8], after: &[u8], sender: Sender) -> Result<(), String> {
    if before.len() != after.len() {
        return Err("another length".into());
    }
    if before == after {
        let leaves = sender == Sender::Guest && is_whole_segment(before) && leads_to_pool(before);
        return if leaves { Err("leaves for the pool".into()) } else { Ok(()) };
    }
    let allowed = may_change(before, sender);
    let changed = (0..before.len()).filter(|at| before[*at] != after[*at]);
    for at in changed {
        if !allowed.iter().any(|range| range.contains(&at)) {
            return Err(format!("octet {at} changed"));
        }
    }
    let (Some(old), Some(new)) = (Packet::of_frame(before), Packet::of_frame(after)) else {
        return Err("no packet any more".into());
    };
    if old.sums(before) != new.sums(after) {
        return Err(format!("sums {:04x?} became {:04x?}", old.sums(before), new.sums(after)));
    }
    if sender == Sender::Guest && leads_to_pool(after) {
        return Err("leaves for the pool".into());
    }
    Ok(())
}

/// The frame became a reset of the guest's connect, or the guest's SYN, which enters once more.
fn check_sent(before: &[u8], after: &[u8], sender: Sender) -> Result<(), String> {
    let packet = Packet::of_frame(before).ok_or("an answer to no packet")?;
    // The answer to a wrong header is as wrong.
    if packet.sums(before)[0] != 0 {
        return Ok(());
    }
    let segment = Segment::parse(after);
    let is_sound = match sender {
        Sender::Guest => {
            let ends = [packet.destination(), packet.source()].map(|at| ip(&before[at]));
            segment.flags & (RST | SYN) == RST
                && [segment.source.ip(), segment.destination.ip()] == ends
                && before[packet.payload + 13] & RST == 0
        }
        Sender::Backend => {
            segment.flags & (SYN | ACK | RST) == SYN && is_in_pool(segment.destination.ip())
        }
    };
    if is_sound { Ok(()) } else { Err(format!("{segment:?} was sent")) }
}

#[test]
fn every_frame_is_translated_whole_or_left_alone() {
    let count = env::var(COUNT).map_or(SOME, |count| count.parse().expect("a number of frames"));
    let mut field = FlowField::new(&[BACKENDS[0], BACKENDS[1], BACKEND6]);
    let mut frames = Frames::new(count);
    let (mut translated, mut verdicts) = (0_u64, HashSet::new());
    for number in 0..count {
        let sender = if number % 2 == 0 { Sender::Guest } else { Sender::Backend };
        let (program, frame) = match sender {
            Sender::Guest => (&field.ingress, frames.of_guest()),
            Sender::Backend => (&field.egress, frames.of_backend()),
        };
        let RandomFrame { octets: before, is_sound_segment } = frame;
        let mut after = before.clone();
        let verdict = program.run(&mut after);
        if let Err(wrong) = check(&before, &after, verdict, sender) {
            panic!("frame {number} of {sender:?}: {wrong}\n{before:02x?}\n{after:02x?}");
        }
        verdicts.insert((sender == Sender::Guest, verdict));
        if verdict == NEXT && before != after {
            translated += 1;
            if sender == Sender::Guest && is_sound_segment {
                frames.remember(Segment::parse(&after));
            }
        }
        // Backends that refuse are tried again.
        if number % 500 == 0 {
            for route in [ROUTE, OTHER_ROUTE] {
                field.put(route, &[]);
                field.put(route, &[BACKENDS[0], BACKENDS[1], BACKEND6]);
            }
        }
    }
    assert!(translated > count / 10, "{translated} of {count} were translated");
    assert!(verdicts.len() >= 4, "{verdicts:?}");
    assert_counted(&field);
}

/// The counters are those of the entries, and each established flow has both of its entries.
fn assert_counted(field: &FlowField) {
    let flows = field.flows();
    let keys: HashSet<FlowKey> = flows.keys().map(Result::unwrap).collect();
    let forward = keys.iter().filter(|key| key.direction == FlowKey::FORWARD).count();
    assert_eq!(forward * 2, keys.len());
    for key in &keys {
        let flow = flows.get(key, 0).unwrap();
        assert!(keys.contains(&key.other_side(&flow)), "{key:?} without its other side");
    }
    assert_eq!(field.flow_counts().1.open, u64::try_from(forward).unwrap());
    let brief = field.bed.lru_hash::<FlowKey, BriefFlow>(names::BRIEF_FLOWS);
    assert!(brief.keys().count() > 0);
    let stats = field.stats();
    assert!(stats.icmp_translated > 0 && stats.flows_moved > 0, "{stats:?}");
    assert!(stats.fragments > 0 && stats.resets_sent > 0, "{stats:?}");
}
