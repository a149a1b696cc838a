//! The sources and their virtual addresses: an immutable table, looked up by the lower-case wire
//! form of a name.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::cow_map::CowMap;
use crate::{
    dns::wire::LowerName,
    route::{SourceName, Wildcard},
};

/// The virtual addresses of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The answer to an A question.
    pub v4: Ipv4Addr,
    /// The answer to an AAAA question; `None` without an IPv6 pool.
    pub v6: Option<Ipv6Addr>,
}

/// The answer to queries for a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does not translate its virtual address yet. The reply is SERVFAIL, after which
    /// clients retry; they would cache a negative answer.
    Pending,
    /// Its virtual address is translated.
    Live {
        /// For clients whose connects are redirected.
        vip: Vip,
        /// For clients whose connects no hook sees: the destination's usable addresses. If there is
        /// none, the answer is SERVFAIL.
        real: Vec<IpAddr>,
    },
}

impl From<Vip> for Answer {
    fn from(vip: Vip) -> Self {
        Self::Live { vip, real: Vec::new() }
    }
}

impl Answer {
    /// Whether there is an address to answer with.
    pub(super) fn is_available(&self, real_addresses: bool) -> bool {
        match self {
            Self::Pending => false,
            Self::Live { real, .. } => !real_addresses || !real.is_empty(),
        }
    }

    /// The virtual addresses, which have a reverse name.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = match self {
            Self::Live { vip, .. } => (Some(vip.v4.into()), vip.v6.map(IpAddr::from)),
            Self::Pending => (None, None),
        };
        [v4, v6].into_iter().flatten()
    }
}

/// One source in the table.
#[derive(Clone, Debug)]
pub(super) struct ZoneEntry {
    pub(super) answer: Answer,
    /// Queries for the source that were answered.
    answered: Arc<AtomicU64>,
}

impl ZoneEntry {
    pub(super) fn count_answer(&self) {
        self.answered.fetch_add(1, Relaxed);
    }
}

/// All sources with their answers. Immutable except for the answer counts: a change makes a new
/// zone, which shares most of its content with the old one.
#[derive(Clone, Debug)]
pub struct Zone {
    exact: CowMap<WireName, ZoneEntry>,
    /// `*.zone` by the zone's name.
    one_label: CowMap<WireName, ZoneEntry>,
    /// `**.zone` by the zone's name.
    any_depth: CowMap<WireName, ZoneEntry>,
    /// Number of `**.zone` by the number of labels in the zone's name.
    zones_by_depth: [u32; MAX_LABELS],
    /// Bit n is set if some `**.zone` has a zone of n labels. Saves most look-ups.
    zone_depths: u128,
    /// The sources in wire form by their virtual addresses.
    reverse: CowMap<IpAddr, WireName>,
}

/// A name in wire form.
pub(crate) type WireName = Arc<[u8]>;

/// A name has at most 253 characters.
const MAX_LABELS: usize = 128;

impl Default for Zone {
    fn default() -> Self {
        let (exact, one_label, any_depth, reverse) = Default::default();
        let zones_by_depth = [0; MAX_LABELS];
        Self { exact, one_label, any_depth, zones_by_depth, zone_depths: 0, reverse }
    }
}

impl Zone {
    /// A zone of these sources. A source that occurs twice gets its last answer.
    pub fn new<A: Into<Answer>>(entries: impl IntoIterator<Item = (SourceName, A)>) -> Self {
        let mut zone = Self::default();
        for (source, answer) in entries {
            zone.set(&source, Some(answer.into()));
        }
        zone
    }

    /// Sets or, with `None`, removes a source's answer. A replaced answer keeps its count.
    pub fn set(&mut self, source: &SourceName, answer: Option<Answer>) {
        let name: WireName = to_wire(source.name()).into();
        let whole = match source.wildcard() {
            Some(Wildcard::OneLabel) => [b"\x01*", &name[..]].concat().into(),
            Some(Wildcard::AnyDepth) => [b"\x02**", &name[..]].concat().into(),
            None => Arc::clone(&name),
        };
        let before = self.table_of(source).remove(&name);
        for address in before.iter().flat_map(|before| before.answer.addresses()) {
            // The address may belong to another source by now.
            if self.reverse.get(&address) == Some(&whole) {
                self.reverse.remove(&address);
            }
        }
        if source.wildcard() == Some(Wildcard::AnyDepth) {
            self.count_zone(source.name().split('.').count(), (before.is_some(), answer.is_some()));
        }
        let Some(answer) = answer else { return };
        for address in answer.addresses() {
            self.reverse.insert(address, Arc::clone(&whole));
        }
        let answered = before.map(|before| before.answered).unwrap_or_default();
        self.table_of(source).insert(name, ZoneEntry { answer, answered });
    }

    fn table_of(&mut self, source: &SourceName) -> &mut CowMap<WireName, ZoneEntry> {
        match source.wildcard() {
            Some(Wildcard::OneLabel) => &mut self.one_label,
            Some(Wildcard::AnyDepth) => &mut self.any_depth,
            None => &mut self.exact,
        }
    }

    /// Adds or removes a `**.zone` whose zone has this many labels.
    fn count_zone(&mut self, labels: usize, (before, after): (bool, bool)) {
        let count = &mut self.zones_by_depth[labels];
        *count = *count + u32::from(after) - u32::from(before);
        let bit = 1 << labels;
        self.zone_depths =
            if *count > 0 { self.zone_depths | bit } else { self.zone_depths & !bit };
    }

    /// The answer of a source; `None` if it is not in the zone.
    pub fn get(&self, source: &SourceName) -> Option<&Answer> {
        self.entry(source).map(|entry| &entry.answer)
    }

    fn entry(&self, source: &SourceName) -> Option<&ZoneEntry> {
        let table = match source.wildcard() {
            Some(Wildcard::OneLabel) => &self.one_label,
            Some(Wildcard::AnyDepth) => &self.any_depth,
            None => &self.exact,
        };
        table.get(&to_wire(source.name())[..])
    }

    /// Whether the zone has exactly these sources with these answers.
    pub fn is_exactly(&self, entries: impl IntoIterator<Item = (SourceName, Answer)>) -> bool {
        let mut count = 0;
        let all = entries.into_iter().all(|(source, answer)| {
            count += 1;
            self.get(&source) == Some(&answer)
        });
        all && count == self.len()
    }

    /// Number of sources.
    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.one_label.len() + self.any_depth.len()
    }

    /// Takes over the answer counts of `before`.
    pub(crate) fn inherit_counts(&mut self, before: &Self) {
        for (current, previous) in [
            (&mut self.exact, &before.exact),
            (&mut self.one_label, &before.one_label),
            (&mut self.any_depth, &before.any_depth),
        ] {
            for (name, entry) in current.iter_mut() {
                if let Some(old) = previous.get(name) {
                    entry.answered = Arc::clone(&old.answered);
                }
            }
        }
    }

    /// Number of queries for a source that were answered.
    pub(crate) fn answer_count(&self, source: &SourceName) -> u64 {
        self.entry(source).map_or(0, |entry| entry.answered.load(Relaxed))
    }

    /// The source that a name belongs to: the name itself, else the wildcard of the longest zone
    /// above it, `*.zone` before `**.zone`.
    pub(super) fn find(&self, name: &LowerName) -> Option<&ZoneEntry> {
        let wire = name.as_bytes();
        if let Some(entry) = self.exact.get(wire) {
            return Some(entry);
        }
        // A zero inside of a label is of no host's name. The programs end a name there.
        if wire[..wire.len() - 1].contains(&0) {
            return None;
        }
        if self.one_label.len() > 0
            && let Some(entry) = self.one_label.get(&wire[1 + usize::from(wire[0])..])
        {
            return Some(entry);
        }
        if self.zone_depths == 0 {
            return None;
        }
        let mut at = 0;
        for depth in (1..name.labels()).rev() {
            at += 1 + usize::from(wire[at]);
            if self.zone_depths >> depth & 1 == 1
                && let Some(entry) = self.any_depth.get(&wire[at..])
            {
                return Some(entry);
            }
        }
        None
    }

    /// The zone of each source, some of them more than once.
    pub(super) fn zones(&self) -> impl Iterator<Item = &[u8]> {
        let wildcards = self.one_label.iter().chain(self.any_depth.iter());
        let exact = self.exact.iter().map(|(name, _)| above(name));
        exact.chain(wildcards.map(|(zone, _)| &zone[..]))
    }

    /// The source in wire form, if the name is the reverse name of its virtual address.
    pub(super) fn find_reverse(&self, name: &LowerName) -> Option<&[u8]> {
        self.reverse.get(&reverse_address(name)?).map(|wire| &wire[..])
    }
}

/// The name without its first label. `name` is one of ours.
pub(super) fn above(name: &[u8]) -> &[u8] {
    let first = name.first().map_or(0, |length| usize::from(*length));
    name.get(1 + first..).unwrap_or_default()
}

/// The wire form of a name that `SourceName` accepted: labels of 1 to 63 characters, 253 in all.
fn to_wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(
            u8::try_from(label.len()).expect("SourceName has labels of at most 63 characters"),
        );
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// The address whose reverse name this is (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse_address(name: &LowerName) -> Option<IpAddr> {
    let wire = name.as_bytes();
    match name.labels() {
        6 => reverse_v4(wire.strip_suffix(b"\x07in-addr\x04arpa\0")?).map(IpAddr::V4),
        34 => reverse_v6(wire.strip_suffix(b"\x03ip6\x04arpa\0")?).map(IpAddr::V6),
        _ => None,
    }
}

fn reverse_v4(mut labels: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let (&len, rest) = labels.split_first()?;
        let (digits, rest) = rest.split_at_checked(len.into())?;
        let plain =
            digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits[0] != b'0');
        *octet = plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())??;
        labels = rest;
    }
    labels.is_empty().then(|| octets.into())
}

fn reverse_v6(labels: &[u8]) -> Option<Ipv6Addr> {
    if labels.len() != 64 {
        return None;
    }
    let mut address: u128 = 0;
    for label in labels.chunks_exact(2).rev() {
        let digit = char::from(label[1]).to_digit(16).filter(|_| label[0] == 1)?;
        address = address << 4 | u128::from(digit);
    }
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::{HEADER_LEN, ParsedQuestion};

    fn source(text: &str) -> SourceName {
        text.parse().expect("a source")
    }

    fn live(last: u8) -> Answer {
        Vip { v4: Ipv4Addr::new(198, 18, 0, last), v6: None }.into()
    }

    fn name(text: &str) -> LowerName {
        let question = [&[0; HEADER_LEN], &to_wire(text)[..], &[0, 1, 0, 1]].concat();
        ParsedQuestion::parse(&question).expect("a question").name
    }

    fn find(zone: &Zone, text: &str) -> Option<Answer> {
        zone.find(&name(text)).map(|entry| entry.answer.clone())
    }

    #[test]
    fn a_zone_is_exactly_its_sources_with_their_answers() {
        let all = [
            ("a.example", live(1)),
            ("b.example", Answer::Pending),
            ("*.c.example", live(3)),
            ("*.d.example", live(4)),
            ("*.e.example", live(5)),
            ("**.example", live(6)),
        ]
        .map(|(text, answer)| (source(text), answer));
        let zone = Zone::new(all.clone());
        assert_eq!((zone.len(), zone.get(&source("*.d.example"))), (6, Some(&live(4))));
        assert!(zone.is_exactly(all.clone()) && Zone::default().is_exactly([]));
        assert!(!zone.is_exactly(all[..5].to_vec()), "one less");
        let mut other = all.clone();
        other[2].1 = live(1);
        assert!(!zone.is_exactly(other), "another answer");
        let more = (source("more.example"), live(7));
        assert!(!zone.is_exactly(all.into_iter().chain([more])), "one more");
    }

    #[test]
    fn a_wildcard_matches_after_others_are_removed() {
        let kept = ["**.a.example", "**.b.example", "**.x.y.example"];
        let mut zone = Zone::new(kept.map(|text| (source(text), live(1))));
        let removed = ["**.c.example", "**.p.q.r.example", "*.s.example"].map(source);
        for source in &removed {
            zone.set(source, Some(live(2)));
        }
        for source in &removed {
            zone.set(source, None);
        }
        for text in ["n.a.example", "n.n.b.example", "n.x.y.example"] {
            assert_eq!(find(&zone, text), Some(live(1)), "{text}");
        }
        for text in ["n.c.example", "n.p.q.r.example", "n.s.example", "a.example", "y.example"] {
            assert_eq!(find(&zone, text), None, "{text}");
        }
    }

    #[test]
    fn an_address_has_the_reverse_name_of_its_last_source() {
        let (one, other) = (source("one.example"), source("other.example"));
        let mut zone = Zone::new([(one.clone(), live(1)), (other.clone(), live(2))]);
        let reverse = |zone: &Zone, last: u8| {
            let name = name(&format!("{last}.0.18.198.in-addr.arpa"));
            zone.find_reverse(&name).map(<[u8]>::to_vec)
        };
        zone.set(&other, Some(live(1)));
        assert_eq!(reverse(&zone, 2), None, "no longer its address");
        zone.set(&one, None);
        assert_eq!(reverse(&zone, 1), Some(to_wire("other.example")), "it has moved");
        zone.set(&other, Some(Answer::Pending));
        assert_eq!(reverse(&zone, 1), None);
    }
}
