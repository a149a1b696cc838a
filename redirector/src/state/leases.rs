//! Which source has which VIP, kept on disk.
//!
//! A client may keep a VIP for ever (a JVM's DNS cache), so a VIP must not come to mean another
//! source. Hence a lease is on disk before it is used: [`State`](crate::state::State) writes every
//! change to the journal. A source that comes back
//! gets the VIP it had; and a freed VIP goes to another source only when no VIP is left that nobody
//! has had. Where to begin looking is a hash of the source's name, so that a lost file usually
//! gives the same VIPs again, and two nodes usually agree without talking.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{
    atomic_file::{self, FileError},
    pool::Pool,
    route::SourceName,
};

/// The version of the file's shape that this binary writes and reads.
const VERSION: u32 = 1;

/// The leases of one agent.
#[derive(Debug)]
pub struct Leases {
    path: PathBuf,
    pool: Pool,
    state: State,
    pending: Vec<LeaseChange>,
    warnings: Vec<LeaseWarning>,
}

/// What happened to one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseChange {
    /// The source has the VIP of this index.
    Leased(SourceName, u32),
    /// The source had it last.
    Freed(SourceName, u32),
}

impl LeaseChange {
    fn index(&self) -> u32 {
        let (Self::Leased(_, index) | Self::Freed(_, index)) = self;
        *index
    }
}

/// Why a lease could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every VIP is taken.
    #[error(
        "the pool {pool} has no address left for `{source_name}`: all {usable} are leased; widen \
            `pool.ipv4` or remove routes"
    )]
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
        "{} has version {found}, this binary reads {VERSION}: run the newer redirector, or move \
            the file away (sources then usually get the same addresses again)",
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
    Durable(#[from] FileError),
}

/// What an operator should know after the file was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseWarning {
    /// The file was damaged.
    #[error(
        "{} was damaged ({reason}) and is now {}: {kept} leases were kept, other sources usually \
            get the same address again",
        path.display(), copy.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
        /// Where it is now.
        copy: PathBuf,
        /// How many leases could still be read.
        kept: usize,
    },
    /// The configured pool is not the one of the file.
    #[error(
        "the pool was {old} and is now {new}: clients that remember an old address must ask again; \
            {kept} sources keep their place in it, {dropped} get a new one"
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
struct OnDisk<L, F> {
    version: u32,
    pool: PoolOnDisk,
    leases: L,
    freed: F,
}

/// A file that is JSON of the right shape, whatever its names are.
type Read = OnDisk<BTreeMap<String, u32>, Vec<Freed>>;

#[derive(Serialize, Deserialize)]
struct PoolOnDisk {
    ipv4: Ipv4Net,
    ipv6: Option<Ipv6Net>,
}

impl Leases {
    /// Reads the leases at `path`, or starts without any, and applies the changes `since` the file
    /// was written. A damaged file is copied, and its readable leases are kept; that, and a pool
    /// that is not the file's, is logged and returned by [`Leases::warnings`].
    pub fn open(path: PathBuf, pool: &Pool, since: Vec<LeaseChange>) -> Result<Self, LeaseError> {
        let mut leases = Self {
            path,
            pool: pool.clone(),
            state: State::default(),
            pending: Vec::new(),
            warnings: Vec::new(),
        };
        match atomic_file::read_if_present(&leases.path)?
            .map(|bytes| read(&bytes, &leases.path))
            .transpose()?
        {
            Some(Ok(file)) => leases.adopt(file, since)?,
            Some(Err(reason)) => {
                leases.state.replay(since, &pool.usable());
                leases.damaged(reason)?;
            }
            None => leases.state.replay(since, &pool.usable()),
        }
        if !leases.warnings.is_empty() {
            leases.save()?;
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

    /// How many sources have a VIP.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether there is none")]
    pub fn len(&self) -> usize {
        self.state.leases.len()
    }

    /// Every lease, in the order of the sources.
    pub fn iter(&self) -> impl Iterator<Item = (&SourceName, u32)> {
        self.state.leases.iter().map(|(source, index)| (source, *index))
    }

    /// The source that has the VIP at `index`, or had it last. Looks at every lease: for commands,
    /// not for every packet.
    pub fn source_of(&self, index: u32) -> Option<&SourceName> {
        let leased = self.iter().find(|(_, leased)| *leased == index).map(|(source, _)| source);
        leased.or_else(|| {
            self.state.freed.iter().find(|freed| freed.index == index).map(|freed| &freed.source)
        })
    }

    /// Leases a VIP for each source that has none; on an error none of them. Nobody may hear of one
    /// before [`Leases::pending`] is on disk.
    ///
    /// The sources are taken in the order of their names, so that the same set always gets the same
    /// VIPs.
    pub fn lease_all<'s>(
        &mut self,
        sources: impl IntoIterator<Item = &'s SourceName>,
    ) -> Result<(), LeaseError> {
        let mut wanted: Vec<_> =
            sources.into_iter().filter(|source| !self.state.leases.contains_key(*source)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.state.lease(&wanted, &self.pool)?;
        self.pending.extend(
            wanted
                .into_iter()
                .map(|source| LeaseChange::Leased(source.clone(), self.state.leases[source])),
        );
        Ok(())
    }

    /// Frees the VIPs of several sources; a source without one is ignored. This need not be on
    /// disk: a reader of the file finds leases that no route needs, and frees them again.
    pub fn release_all<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) {
        for source in sources {
            if let Some((source, index)) = self.state.leases.remove_entry(source) {
                self.pending.push(LeaseChange::Freed(source.clone(), index));
                self.state.freed.push(Freed { index, source });
            }
        }
    }

    /// Takes the names over from those who have the same: each is in memory once.
    pub fn intern_names<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) {
        let mut leases = std::mem::take(&mut self.state.leases);
        let shared: Vec<_> = sources
            .into_iter()
            .filter_map(|source| Some((source.clone(), leases.remove(source)?)))
            .collect();
        self.state.leases = shared.into_iter().chain(leases).collect();
    }

    /// What has changed since this was last [marked as saved](Leases::mark_saved) or saved.
    pub fn pending(&self) -> &[LeaseChange] {
        &self.pending
    }

    /// What had changed is on disk, beside the file.
    pub fn mark_saved(&mut self) {
        self.pending = Vec::new();
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it can't be written: it is as it was, and so is what there is to keep.
    pub fn save(&mut self) -> Result<(), FileError> {
        let file = OnDisk {
            version: VERSION,
            pool: PoolOnDisk { ipv4: self.pool.ipv4, ipv6: self.pool.ipv6 },
            leases: &self.state.leases,
            freed: &self.state.freed,
        };
        let text = serde_json::to_vec(&file).expect("maps of names to numbers are JSON");
        atomic_file::write_atomically(&self.path, &text)?;
        self.mark_saved();
        Ok(())
    }

    /// Takes over what a file holds, and what happened since.
    fn adopt(&mut self, file: Read, since: Vec<LeaseChange>) -> Result<(), LeaseError> {
        let old = file.pool.ipv4;
        // An index means another address in another pool. Refusing it would only make the operator
        // delete this file, since the pool was changed on purpose; so the leases keep their
        // index where it fits, and the warning states the cost.
        let other_pool = old != self.pool.ipv4;
        let usable = Pool { ipv4: old, ipv6: None, guard: false }.usable();
        let (state, damage) = State::checked(file, &usable);
        self.state = state;
        self.state.replay(since, &usable);
        if let Some(reason) = damage {
            self.damaged(reason)?;
        }
        if other_pool {
            let before = self.state.leases.len();
            let usable = self.pool.usable();
            self.state.leases.retain(|_, index| usable.contains(index));
            // Nobody has seen the new pool's addresses, unless the pool only changed its width.
            let same_base = old.network() == self.pool.ipv4.network();
            self.state.freed.retain(|freed| same_base && usable.contains(&freed.index));
            let kept = self.state.leases.len();
            self.warnings.push(LeaseWarning::OtherPool {
                old,
                new: self.pool.ipv4,
                kept,
                dropped: before - kept,
            });
        }
        Ok(())
    }

    fn damaged(&mut self, reason: String) -> Result<(), LeaseError> {
        let copy = atomic_file::quarantine(&self.path)?;
        self.warnings.push(LeaseWarning::Damaged {
            path: self.path.clone(),
            reason,
            copy,
            kept: self.state.leases.len(),
        });
        Ok(())
    }
}

/// Reads the file's bytes. The inner error says how they are damaged; the outer one is no damage.
fn read(bytes: &[u8], path: &Path) -> Result<Result<Read, String>, LeaseError> {
    match serde_json::from_slice::<Versioned>(bytes) {
        Err(error) => Ok(Err(error.to_string())),
        Ok(Versioned { version }) if version > VERSION => {
            Err(LeaseError::Newer { path: path.to_owned(), found: version })
        }
        Ok(_) => Ok(serde_json::from_slice::<Read>(bytes)
            .map_err(|error| error.to_string())
            .and_then(|file| {
                // Sizes are computed from the pool below, so it has to be one.
                Pool::new(file.pool.ipv4, file.pool.ipv6, false)
                    .map_err(|(_, error)| error.to_string())?;
                Ok(file)
            })),
    }
}

/// Which source has the VIP of which index, as far as the file can be read. Nothing is checked or
/// written.
pub(crate) fn leased(path: &Path) -> BTreeMap<u32, SourceName> {
    let file: Option<Read> =
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let leases = file.map(|file| file.leases).unwrap_or_default();
    leases.into_iter().filter_map(|(name, index)| Some((index, name.parse().ok()?))).collect()
}

impl State {
    /// Keeps what makes sense of a file: valid names, indices that the file's own pool leases, each
    /// once. Says what did not.
    fn checked(file: Read, usable: &Range<u32>) -> (Self, Option<String>) {
        let mut taken = vec![false; usable.end as usize];
        let mut take = |index: u32| {
            usable.contains(&index) && !std::mem::replace(&mut taken[index as usize], true)
        };
        let mut state = Self::default();
        let mut damage = None;
        for (name, index) in file.leases {
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
        for freed in file.freed {
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
    fn replay(&mut self, since: Vec<LeaseChange>, usable: &Range<u32>) {
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
    fn lease(&mut self, wanted: &[&SourceName], pool: &Pool) -> Result<(), LeaseError> {
        let own: HashMap<&SourceName, u32> =
            self.freed.iter().map(|freed| (&freed.source, freed.index)).collect();
        let (returning, new): (Vec<&SourceName>, Vec<&SourceName>) =
            wanted.iter().partition(|source| own.contains_key(**source));
        let usable = pool.usable().len();
        // An index that is not leased is never_leased or freed, so this alone decides.
        if let Some(without) = new.get(usable - self.leases.len() - returning.len()) {
            return Err(LeaseError::PoolFull {
                pool: pool.ipv4,
                usable,
                source_name: (*without).clone(),
            });
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
    fn new(state: &State, pool: &Pool) -> Self {
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
/// change; std's hashers promise no such thing.
fn preferred_index(source: &SourceName) -> u64 {
    source.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
