//! The names that are ours and their virtual addresses: an immutable table, looked up by the
//! lower-case wire form of a name.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::cow_map::Shards;
use crate::{dns::wire::LowerName, route::SourceName};

/// The virtual addresses of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// What an A question gets.
    pub v4: Ipv4Addr,
    /// What an AAAA question gets; no address without a v6 pool.
    pub v6: Option<Ipv6Addr>,
}

/// What a source is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel can't translate its VIP yet: SERVFAIL, which clients ask again about; a negative
    /// answer they would keep.
    Pending,
    /// Its VIP leads somewhere.
    Live {
        /// For everyone whose connects are redirected.
        vip: Vip,
        /// For those whose connects no hook sees: the destination's addresses that are worth a try.
        /// None is SERVFAIL.
        real: Vec<IpAddr>,
    },
}

impl From<Vip> for Answer {
    fn from(vip: Vip) -> Self {
        Self::Live { vip, real: Vec::new() }
    }
}

impl Answer {
    /// The virtual addresses that lead back to the source.
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
pub(crate) struct Entry {
    pub(crate) answer: Answer,
    /// Queries for it that were answered.
    pub(crate) answered: Arc<AtomicU64>,
}

/// Which names have which answer. Immutable but for the count of answers: a change publishes a new
/// one, which shares most of itself with this one.
#[derive(Clone, Debug)]
pub struct Answers {
    exact: Shards<Wire, Entry>,
    wildcards: Shards<Wire, Entry>,
    /// How many wildcards have a suffix of so many labels.
    suffixes: [u32; MOST_LABELS],
    /// Bit n: there is a wildcard whose suffix has n labels. Most names need no look-up among the
    /// wildcards at all.
    depths: u128,
    /// The sources in wire form by their virtual addresses.
    reverse: Shards<IpAddr, Wire>,
}

/// A name in wire form.
type Wire = Arc<[u8]>;

/// A name has at most 253 characters.
const MOST_LABELS: usize = 128;

impl Default for Answers {
    fn default() -> Self {
        let (exact, wildcards, reverse) = Default::default();
        Self { exact, wildcards, suffixes: [0; MOST_LABELS], depths: 0, reverse }
    }
}

impl Answers {
    /// The table of these sources. A source that comes twice has its last answer.
    pub fn new<A: Into<Answer>>(entries: impl IntoIterator<Item = (SourceName, A)>) -> Self {
        let mut answers = Self::default();
        for (source, answer) in entries {
            answers.set(&source, Some(answer.into()));
        }
        answers
    }

    /// Gives a source this answer, or none: then it is not ours. What it was asked so far is
    /// counted on.
    pub fn set(&mut self, source: &SourceName, answer: Option<Answer>) {
        let name: Wire = to_wire(source.name()).into();
        let whole = if source.is_wildcard() {
            [b"\x01*", &name[..]].concat().into()
        } else {
            Arc::clone(&name)
        };
        let before = self.table_of(source).remove(&name);
        for address in before.iter().flat_map(|before| before.answer.addresses()) {
            // Unless the address is another source's by now.
            if self.reverse.get(&address) == Some(&whole) {
                self.reverse.remove(&address);
            }
        }
        if source.is_wildcard() {
            self.count_wildcard(
                source.name().split('.').count(),
                (before.is_some(), answer.is_some()),
            );
        }
        let Some(answer) = answer else { return };
        for address in answer.addresses() {
            self.reverse.insert(address, Arc::clone(&whole));
        }
        let answered = before.map(|before| before.answered).unwrap_or_default();
        self.table_of(source).insert(name, Entry { answer, answered });
    }

    fn table_of(&mut self, source: &SourceName) -> &mut Shards<Wire, Entry> {
        if source.is_wildcard() { &mut self.wildcards } else { &mut self.exact }
    }

    /// One wildcard more or less whose suffix has so many labels.
    fn count_wildcard(&mut self, labels: usize, (before, after): (bool, bool)) {
        let number = &mut self.suffixes[labels];
        *number = *number + u32::from(after) - u32::from(before);
        let bit = 1 << labels;
        self.depths = if *number > 0 { self.depths | bit } else { self.depths & !bit };
    }

    /// What a source is answered; nothing when it is not ours.
    pub fn get(&self, source: &SourceName) -> Option<&Answer> {
        self.entry(source).map(|entry| &entry.answer)
    }

    fn entry(&self, source: &SourceName) -> Option<&Entry> {
        let table = if source.is_wildcard() { &self.wildcards } else { &self.exact };
        table.get(&to_wire(source.name())[..])
    }

    /// Whether this is the table of exactly these sources with these answers.
    pub fn says(&self, entries: impl IntoIterator<Item = (SourceName, Answer)>) -> bool {
        let mut number = 0;
        let all = entries.into_iter().all(|(source, answer)| {
            number += 1;
            self.get(&source) == Some(&answer)
        });
        all && number == self.len()
    }

    /// Number of sources.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Whether there is no source.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes on with the counts of `before`.
    pub(crate) fn inherit(&mut self, before: &Self) {
        for (now, then) in
            [(&mut self.exact, &before.exact), (&mut self.wildcards, &before.wildcards)]
        {
            for (name, entry) in now.iter_mut() {
                if let Some(old) = then.get(name) {
                    entry.answered = Arc::clone(&old.answered);
                }
            }
        }
    }

    /// How many queries for a source were answered.
    pub(crate) fn answered(&self, source: &SourceName) -> u64 {
        self.entry(source).map_or(0, |entry| entry.answered.load(Relaxed))
    }

    /// The source that a name belongs to: itself, else the longest `*.suffix` that has it below.
    pub(crate) fn find(&self, name: &LowerName) -> Option<&Entry> {
        let wire = name.as_bytes();
        if let Some(entry) = self.exact.get(wire) {
            return Some(entry);
        }
        if self.depths == 0 {
            return None;
        }
        let mut at = 0;
        for depth in (1..name.labels()).rev() {
            at += 1 + usize::from(wire[at]);
            if self.depths >> depth & 1 == 1
                && let Some(entry) = self.wildcards.get(&wire[at..])
            {
                return Some(entry);
            }
        }
        None
    }

    /// If the name is the reverse name of a virtual address of ours: its source in wire form.
    pub(crate) fn find_reverse(&self, name: &LowerName) -> Option<&[u8]> {
        self.reverse.get(&reverse_address(name)?).map(|wire| &wire[..])
    }
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
