//! Which source has which VIP, kept on disk.
//!
//! A client may keep a VIP for ever (a JVM's DNS cache), so a VIP must not come to mean another source. Hence a lease is on disk
//! before anybody hears of it; a source that comes back gets the VIP it had; and a freed VIP goes to another source only when no
//! VIP is left that nobody has had. Where to begin looking is a hash of the source's name, so that a lost file usually gives the
//! same VIPs again, and two nodes usually agree without talking.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::Pool;
use crate::{
    durable::{self, DurableError},
    route::SourceName,
};

/// The version of the file's shape that this binary writes and reads.
const VERSION: u32 = 1;

/// The leases of one agent. Every change is on disk before it is seen.
#[derive(Debug)]
pub struct Leases {
    path: PathBuf,
    pool: Pool,
    state: State,
    warnings: Vec<LeaseWarning>,
}

/// Why a lease could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every VIP is taken.
    #[error("the pool {pool} has no address left for `{source_name}`: all {usable} are leased; widen `pool.ipv4` or remove routes")]
    PoolFull {
        /// The pool's IPv4 range.
        pool: Ipv4Net,
        /// How many addresses it leases.
        usable: usize,
        /// Who wanted one.
        source_name: SourceName,
    },
    /// The file is from a newer redirector.
    #[error(
        "{} has version {found}, this binary reads {VERSION}: run the newer redirector, or move the file away (sources then usually get the same addresses again)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

/// What an operator should know after the file was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseWarning {
    /// The file was damaged.
    #[error(
        "{} was damaged ({reason}) and is now {}: {kept} leases were kept, other sources usually get the same address again",
        path.display(), aside.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
        /// Where it is now.
        aside: PathBuf,
        /// How many leases could still be read.
        kept: usize,
    },
    /// The configured pool is not the one of the file.
    #[error(
        "the pool was {old} and is now {new}: clients that remember an old address must ask again; {kept} sources keep their place in it, {dropped} get a new one"
    )]
    OtherPool {
        /// The pool of the file.
        old: Ipv4Net,
        /// The configured one.
        new: Ipv4Net,
        /// How many leases have an index that the new pool has too.
        kept: usize,
        /// How many have not.
        dropped: usize,
    },
}

/// What the file holds, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    leases: BTreeMap<SourceName, u32>,
    /// Freed VIPs, oldest first, with the source that had each.
    freed: Vec<Freed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Freed {
    index: u32,
    source: SourceName,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The file's shape.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    version: u32,
    pool: PoolOnDisk,
    leases: BTreeMap<String, u32>,
    freed: Vec<Freed>,
}

#[derive(Serialize, Deserialize)]
struct PoolOnDisk {
    ipv4: Ipv4Net,
    ipv6: Option<Ipv6Net>,
}

impl Leases {
    /// Reads the leases at `path`, or starts without any. A damaged file is set aside and what could be read of it is kept; that,
    /// and a pool that is not the file's, is logged and told by [`Leases::warnings`].
    pub fn open(path: PathBuf, pool: &Pool) -> Result<Self, LeaseError> {
        let mut leases = Self { path, pool: pool.clone(), state: State::default(), warnings: Vec::new() };
        let Some(bytes) = durable::read_if_present(&leases.path)? else { return Ok(leases) };
        let changed = match read(&bytes, &leases.path)? {
            Ok(file) => leases.adopt(file)?,
            Err(reason) => leases.set_aside(reason)?,
        };
        if changed {
            leases.save(&leases.state)?;
        }
        for warning in &leases.warnings {
            tracing::warn!("{warning}");
        }
        Ok(leases)
    }

    /// What an operator should know about the file that was read; empty when all was well.
    pub fn warnings(&self) -> &[LeaseWarning] {
        &self.warnings
    }

    /// The VIP index of a source, if it has one.
    pub fn get(&self, source: &SourceName) -> Option<u32> {
        self.state.leases.get(source).copied()
    }

    /// Every lease, in the order of the sources.
    pub fn iter(&self) -> impl Iterator<Item = (&SourceName, u32)> {
        self.state.leases.iter().map(|(source, index)| (source, *index))
    }

    /// The source that has the VIP at `index`, or had it last. Looks at every lease: for commands, not for every packet.
    pub fn source_of(&self, index: u32) -> Option<&SourceName> {
        let leased = self.iter().find(|(_, leased)| *leased == index).map(|(source, _)| source);
        leased.or_else(|| self.state.freed.iter().find(|freed| freed.index == index).map(|freed| &freed.source))
    }

    /// The VIP index of a source, leased now if it has none. It is on disk when this returns.
    pub fn lease(&mut self, source: &SourceName) -> Result<u32, LeaseError> {
        self.lease_all([source])?;
        Ok(self.get(source).expect("lease_all leases every source or fails"))
    }

    /// Leases a VIP for each source that has none, and writes the file once. On an error none of them is leased.
    ///
    /// The sources are taken in the order of their names, so that the same set always gets the same VIPs.
    pub fn lease_all<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) -> Result<(), LeaseError> {
        let mut wanted: Vec<_> = sources.into_iter().filter(|source| !self.state.leases.contains_key(*source)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut next = self.state.clone();
        next.lease(&wanted, &self.pool)?;
        self.commit(next)
    }

    /// Frees the VIP of a source; nothing happens when it has none. It is on disk when this returns.
    pub fn release(&mut self, source: &SourceName) -> Result<(), LeaseError> {
        self.release_all([source])
    }

    /// Frees the VIPs of several sources, and writes the file once. On an error none of them is freed.
    pub fn release_all<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) -> Result<(), LeaseError> {
        let mut next = self.state.clone();
        for source in sources {
            if let Some(index) = next.leases.remove(source) {
                next.freed.push(Freed { index, source: source.clone() });
            }
        }
        if next == self.state { Ok(()) } else { self.commit(next) }
    }

    /// The only way the state changes: first on disk, then here.
    fn commit(&mut self, next: State) -> Result<(), LeaseError> {
        self.save(&next)?;
        self.state = next;
        Ok(())
    }

    fn save(&self, state: &State) -> Result<(), LeaseError> {
        let file = OnDisk {
            version: VERSION,
            pool: PoolOnDisk { ipv4: self.pool.ipv4, ipv6: self.pool.ipv6 },
            leases: state.leases.iter().map(|(source, index)| (source.to_string(), *index)).collect(),
            freed: state.freed.clone(),
        };
        let text = serde_json::to_vec(&file).expect("maps of names to numbers are JSON");
        Ok(durable::write_atomically(&self.path, &text)?)
    }

    /// Takes over what a file holds; says whether the file must be written anew.
    fn adopt(&mut self, file: OnDisk) -> Result<bool, LeaseError> {
        let old = file.pool.ipv4;
        // An index means another address in another pool. Refusing it would only make the operator delete this file, since the
        // pool was changed on purpose; so the leases go on by index where they fit, and the warning says what that costs.
        let other_pool = old != self.pool.ipv4;
        let (mut state, damage) = State::checked(file, old)?;
        if let Some(reason) = damage {
            let aside = durable::set_aside(&self.path)?;
            let kept = state.leases.len();
            self.warnings.push(LeaseWarning::Damaged { path: self.path.clone(), reason, aside, kept });
        }
        if other_pool {
            let before = state.leases.len();
            let usable = self.pool.usable();
            state.leases.retain(|_, index| usable.contains(index));
            // Nobody has seen the new pool's addresses, unless the pool only changed its width.
            let same_base = old.network() == self.pool.ipv4.network();
            state.freed.retain(|freed| same_base && usable.contains(&freed.index));
            let kept = state.leases.len();
            self.warnings.push(LeaseWarning::OtherPool { old, new: self.pool.ipv4, kept, dropped: before - kept });
        }
        self.state = state;
        Ok(!self.warnings.is_empty())
    }

    /// Renames a file that is not even JSON of the right shape.
    fn set_aside(&mut self, reason: String) -> Result<bool, LeaseError> {
        let aside = durable::set_aside(&self.path)?;
        self.warnings.push(LeaseWarning::Damaged { path: self.path.clone(), reason, aside, kept: 0 });
        Ok(false)
    }
}

/// Reads the file's bytes. The inner error says how they are damaged; the outer one is no damage.
fn read(bytes: &[u8], path: &Path) -> Result<Result<OnDisk, String>, LeaseError> {
    match serde_json::from_slice::<Versioned>(bytes) {
        Err(error) => Ok(Err(error.to_string())),
        Ok(Versioned { version }) if version > VERSION => Err(LeaseError::Newer { path: path.to_owned(), found: version }),
        Ok(_) => Ok(serde_json::from_slice::<OnDisk>(bytes).map_err(|error| error.to_string()).and_then(|file| {
            // Sizes are computed from the pool below, so it has to be one.
            Pool::new(file.pool.ipv4, file.pool.ipv6, false).map_err(|(_, error)| error.to_string())?;
            Ok(file)
        })),
    }
}

impl State {
    /// Keeps what makes sense of a file: valid names, indices that the file's own pool leases, each once. Says what did not.
    fn checked(file: OnDisk, pool: Ipv4Net) -> Result<(Self, Option<String>), LeaseError> {
        let usable = Pool { ipv4: pool, ipv6: None, guard: false }.usable();
        let mut taken = vec![false; usable.end as usize];
        let mut take = |index: u32| usable.contains(&index) && !std::mem::replace(&mut taken[index as usize], true);
        let mut state = Self::default();
        let mut damage = None;
        for (name, index) in file.leases {
            match name.parse::<SourceName>() {
                Ok(source) if !state.leases.contains_key(&source) && take(index) => {
                    state.leases.insert(source, index);
                }
                Ok(_) => damage = Some(format!("`{name}` has index {index}, which is outside the pool or taken")),
                Err(error) => damage = Some(error.to_string()),
            }
        }
        for freed in file.freed {
            match take(freed.index) {
                true => state.freed.push(freed),
                false => damage = Some(format!("freed index {} is outside the pool or taken", freed.index)),
            }
        }
        Ok((state, damage))
    }

    /// Leases a VIP to each of `wanted`, none of which has one: its own old one, else one that nobody has had, else the one that
    /// was freed first.
    fn lease(&mut self, wanted: &[&SourceName], pool: &Pool) -> Result<(), LeaseError> {
        let own: HashMap<&SourceName, u32> = self.freed.iter().map(|freed| (&freed.source, freed.index)).collect();
        let (returning, new): (Vec<&SourceName>, Vec<&SourceName>) = wanted.iter().partition(|source| own.contains_key(**source));
        let returning: BTreeMap<SourceName, u32> = returning.into_iter().map(|source| (source.clone(), own[source])).collect();
        self.freed.retain(|freed| !returning.contains_key(&freed.source));
        self.leases.extend(returning);

        let mut unseen = Unseen::new(self, pool);
        let mut oldest = std::mem::take(&mut self.freed).into_iter();
        for source in new {
            let Some(index) = unseen.take(source).or_else(|| oldest.next().map(|freed| freed.index)) else {
                let usable = pool.usable().len();
                return Err(LeaseError::PoolFull { pool: pool.ipv4, usable, source_name: source.clone() });
            };
            self.leases.insert(source.clone(), index);
        }
        self.freed = oldest.collect();
        Ok(())
    }
}

/// The VIPs that nobody has or has had.
struct Unseen {
    /// By index less one, since index 0 is never leased.
    seen: Vec<bool>,
    left: usize,
}

impl Unseen {
    fn new(state: &State, pool: &Pool) -> Self {
        let mut seen = vec![false; pool.usable().len()];
        for index in state.leases.values().copied().chain(state.freed.iter().map(|freed| freed.index)) {
            seen[index as usize - 1] = true;
        }
        Self { left: seen.iter().filter(|seen| !**seen).count(), seen }
    }

    /// The first one from the source's own place on.
    fn take(&mut self, source: &SourceName) -> Option<u32> {
        if self.left == 0 {
            return None;
        }
        let mut at = (place(source) % self.seen.len() as u64) as usize;
        while self.seen[at] {
            at = (at + 1) % self.seen.len();
        }
        self.seen[at] = true;
        self.left -= 1;
        Some(at as u32 + 1)
    }
}

/// Where a source begins to look: FNV-1a of its text, 64 bits wide. It is part of the contract between nodes and between versions
/// (a lost file gives the same VIPs again), so it must never change; std's hashers promise no such thing.
fn place(source: &SourceName) -> u64 {
    source.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
