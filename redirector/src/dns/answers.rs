//! The names that are ours and their virtual addresses: an immutable table, looked up by the lower-case wire form of a name.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::wire::LowerName;
use crate::route::SourceName;

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
    /// The kernel can't translate its VIP yet: SERVFAIL, which clients ask again about; a negative answer they would keep.
    Pending,
    /// Its VIP leads somewhere.
    Live {
        /// For everyone whose connects are redirected.
        vip: Vip,
        /// For those whose connects no hook sees: the destination's addresses that are worth a try. None is SERVFAIL.
        real: Vec<IpAddr>,
    },
}

impl From<Vip> for Answer {
    fn from(vip: Vip) -> Self {
        Self::Live { vip, real: Vec::new() }
    }
}

/// One source in the table.
#[derive(Debug)]
pub(super) struct Entry {
    source: SourceName,
    pub(super) answer: Answer,
    /// Queries for it that were answered.
    pub(super) answered: Arc<AtomicU64>,
}

/// Which names have which answer. Immutable but for the count of answers: a change publishes a new one.
#[derive(Debug, Default)]
pub struct Answers {
    exact: HashMap<Box<[u8]>, Entry>,
    wildcards: HashMap<Box<[u8]>, Entry>,
    /// Bit n: there is a wildcard whose suffix has n labels. Most names need no look-up among the wildcards at all.
    depths: u128,
    /// The sources in wire form by their virtual addresses, in order.
    reverse: Vec<(IpAddr, Box<[u8]>)>,
}

impl Answers {
    /// The table of these sources. A source that comes twice has its last answer.
    pub fn new<A: Into<Answer>>(entries: impl IntoIterator<Item = (SourceName, A)>) -> Self {
        let mut answers = Self::default();
        for (source, answer) in entries {
            let answer = answer.into();
            let wire = to_wire(source.name());
            let labels = source.name().split('.').count();
            if let Answer::Live { vip, .. } = &answer {
                let target = if source.is_wildcard() { [b"\x01*", &wire[..]].concat() } else { wire.clone() };
                let addresses = [Some(vip.v4.into()), vip.v6.map(IpAddr::from)];
                answers.reverse.extend(addresses.into_iter().flatten().map(|address| (address, target.clone().into())));
            }
            let table = if source.is_wildcard() {
                answers.depths |= 1 << labels;
                &mut answers.wildcards
            } else {
                &mut answers.exact
            };
            table.insert(wire.into(), Entry { source, answer, answered: Arc::default() });
        }
        answers.reverse.sort_unstable();
        answers.reverse.shrink_to_fit();
        answers
    }

    /// Whether this is the table of exactly these sources with these answers.
    pub fn says(&self, entries: impl IntoIterator<Item = (SourceName, Answer)>) -> bool {
        let mut number = 0;
        let all = entries.into_iter().all(|(source, answer)| {
            number += 1;
            let table = if source.is_wildcard() { &self.wildcards } else { &self.exact };
            table.get(&to_wire(source.name())[..]).is_some_and(|entry| entry.answer == answer)
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
    pub(super) fn inherit(&mut self, before: &Self) {
        for (now, then) in [(&mut self.exact, &before.exact), (&mut self.wildcards, &before.wildcards)] {
            for (name, entry) in now {
                if let Some(old) = then.get(name) {
                    entry.answered = Arc::clone(&old.answered);
                }
            }
        }
    }

    /// How many queries for each source were answered.
    pub(super) fn counts(&self) -> BTreeMap<SourceName, u64> {
        let entries = self.exact.values().chain(self.wildcards.values());
        entries.map(|entry| (entry.source.clone(), entry.answered.load(Relaxed))).collect()
    }

    /// The source that a name belongs to: itself, else the longest `*.suffix` that has it below.
    pub(super) fn find(&self, name: &LowerName) -> Option<&Entry> {
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
    pub(super) fn find_reverse(&self, name: &LowerName) -> Option<&[u8]> {
        let address = reverse_address(name)?;
        let at = self.reverse.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(&self.reverse[at].1)
    }
}

/// The wire form of a name that `SourceName` accepted: labels of 1 to 63 characters, 253 in all.
fn to_wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).expect("SourceName has labels of at most 63 characters"));
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
        let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits[0] != b'0');
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
