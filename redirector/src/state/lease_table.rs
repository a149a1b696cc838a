//! The leases in memory: which source has, or had, which VIP; and which one a source gets.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::lease_change::LeaseChange;
use crate::{pool::Pool, route::SourceName};

/// Every VIP is leased.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pool {pool} has no address left for `{source_name}`: all {usable} are leased; widen \
        `pool.ipv4` or remove routes"
)]
pub struct PoolFull {
    /// The pool's IPv4 range.
    pub pool: Ipv4Net,
    /// How many addresses it leases.
    pub usable: usize,
    /// The source without an address.
    pub source_name: SourceName,
}

/// Which source has, or had, the VIP of which index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeaseTable {
    pub(super) leases: BTreeMap<SourceName, u32>,
    /// Freed VIPs, oldest first, with the source that had each.
    pub(super) freed: Vec<Freed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Freed {
    pub(super) index: u32,
    pub(super) source: SourceName,
}

impl LeaseTable {
    /// Keeps what makes sense of a file: valid names, indices that the file's own pool leases, each
    /// once. Says what did not.
    pub(super) fn checked(
        leases: BTreeMap<String, u32>,
        freed: Vec<Freed>,
        usable: &Range<u32>,
    ) -> (Self, Option<String>) {
        let mut taken = vec![false; usable.end as usize];
        let mut take = |index: u32| {
            usable.contains(&index) && !std::mem::replace(&mut taken[index as usize], true)
        };
        let mut state = Self::default();
        let mut damage = None;
        for (name, index) in leases {
            match name.parse::<SourceName>() {
                Ok(source) if !state.leases.contains_key(&source) && take(index) => {
                    state.leases.insert(source, index);
                }
                Ok(_) => {
                    damage = Some(format!(
                        "`{name}` has index {index}, which is outside the pool or taken"
                    ))
                }
                Err(error) => damage = Some(error.to_string()),
            }
        }
        for freed in freed {
            match take(freed.index) {
                true => state.freed.push(freed),
                false => {
                    damage =
                        Some(format!("freed index {} is outside the pool or taken", freed.index))
                }
            }
        }
        (state, damage)
    }

    /// Applies later changes. The last change of an index counts, so a change that is in the state
    /// already does no harm.
    pub(super) fn replay(&mut self, since: Vec<LeaseChange>, usable: &Range<u32>) {
        let last: HashMap<u32, usize> =
            since.iter().enumerate().map(|(n, change)| (change.index(), n)).collect();
        self.leases.retain(|_, index| !last.contains_key(index));
        self.freed.retain(|freed| !last.contains_key(&freed.index));
        for (n, change) in since.into_iter().enumerate() {
            if !usable.contains(&change.index()) || last[&change.index()] != n {
                continue;
            }
            match change {
                LeaseChange::Leased(source, index) => drop(self.leases.insert(source, index)),
                LeaseChange::Freed(source, index) => self.freed.push(Freed { index, source }),
            }
        }
    }

    /// Leases a VIP to each of `wanted`, none of which has one: its own old one, else one that
    /// nobody has had, else the one that was freed first.
    pub(super) fn lease(&mut self, wanted: &[&SourceName], pool: &Pool) -> Result<(), PoolFull> {
        let own: HashMap<&SourceName, u32> =
            self.freed.iter().map(|freed| (&freed.source, freed.index)).collect();
        let (returning, new): (Vec<&SourceName>, Vec<&SourceName>) =
            wanted.iter().partition(|source| own.contains_key(**source));
        let usable = pool.usable().len();
        // An index that is not leased is never_leased or freed, so this alone decides.
        if let Some(without) = new.get(usable - self.leases.len() - returning.len()) {
            return Err(PoolFull { pool: pool.ipv4, usable, source_name: (*without).clone() });
        }
        let returning: BTreeMap<SourceName, u32> =
            returning.into_iter().map(|source| (source.clone(), own[source])).collect();
        self.freed.retain(|freed| !returning.contains_key(&freed.source));
        self.leases.extend(returning);

        let mut never_leased = NeverLeased::new(self, pool);
        let mut oldest = std::mem::take(&mut self.freed).into_iter();
        for source in new {
            let index =
                never_leased.take(source).or_else(|| oldest.next().map(|freed| freed.index));
            self.leases.insert(source.clone(), index.expect("there are enough, as was counted"));
        }
        self.freed = oldest.collect();
        Ok(())
    }
}

/// The VIPs that nobody has or has had.
struct NeverLeased {
    /// By index less one, since index 0 is never leased.
    seen: Vec<bool>,
    left: usize,
}

impl NeverLeased {
    fn new(state: &LeaseTable, pool: &Pool) -> Self {
        let mut seen = vec![false; pool.usable().len()];
        for index in
            state.leases.values().copied().chain(state.freed.iter().map(|freed| freed.index))
        {
            seen[index as usize - 1] = true;
        }
        Self { left: seen.iter().filter(|seen| !**seen).count(), seen }
    }

    /// The first one from the source's own place on.
    fn take(&mut self, source: &SourceName) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        let mut at = (preferred_index(source) % self.seen.len() as u64) as usize;
        while self.seen[at] {
            at = (at + 1) % self.seen.len();
        }
        self.seen[at] = true;
        self.left -= 1;
        Some(at as u32 + 1)
    }
}

/// Where a source begins to look: FNV-1a of its text, 64 bits wide. It is part of the contract
/// between nodes and between versions (a lost file gives the same VIPs again), so it must never
/// change; std's hashers promise no such thing. Hence `**.zone`, which was `*.zone` once, has the
/// text of `*.zone`.
pub(super) fn preferred_index(source: &SourceName) -> u64 {
    let star = if source.is_wildcard() { "*." } else { "" };
    star.bytes().chain(source.name().bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
