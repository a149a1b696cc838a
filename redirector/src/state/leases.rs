//! Which source has which VIP, kept on disk.
//!
//! A client may keep a VIP for ever (a JVM's DNS cache), so a VIP must not come to mean another
//! source. Hence a lease is on disk before it is used: [`State`](crate::state::State) writes every
//! change to the journal. A source that comes back
//! gets the VIP it had; and a freed VIP goes to another source only when no VIP is left that nobody
//! has had. Where to begin looking is a hash of the source's name, so that a lost file usually
//! gives the same VIPs again, and two nodes usually agree without talking.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    lease_change::LeaseChange,
    lease_table::{Freed, LeaseTable, PoolFull},
};
use crate::{
    atomic_file::{self, FileError, Quarantine},
    pool::Pool,
    route::SourceName,
};

/// The version of the file's shape that this binary writes and reads.
/// In version 1, `*.zone` meant what `**.zone` means now.
const VERSION: u32 = 2;

/// The leases of one agent.
#[derive(Debug)]
pub struct Leases {
    path: PathBuf,
    pool: Pool,
    table: LeaseTable,
    pending: Vec<LeaseChange>,
    warnings: Vec<LeaseWarning>,
    /// What [`Leases::save`] copies first.
    damaged: Option<Quarantine>,
}

/// Why a lease could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every VIP is leased.
    #[error(transparent)]
    PoolFull(#[from] PoolFull),
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
    /// was written. Nothing is written. A damaged file's readable leases are kept; that, and a pool
    /// that is not the file's, is logged and returned by [`Leases::warnings`].
    pub fn open(path: PathBuf, pool: &Pool, since: Vec<LeaseChange>) -> Result<Self, LeaseError> {
        let mut leases = Self {
            path,
            pool: pool.clone(),
            table: LeaseTable::default(),
            pending: Vec::new(),
            warnings: Vec::new(),
            damaged: None,
        };
        match atomic_file::read_if_present(&leases.path)?
            .map(|bytes| read(&bytes, &leases.path))
            .transpose()?
        {
            Some(Ok(file)) => leases.adopt(file, since),
            Some(Err(reason)) => {
                leases.table.replay(since, &pool.usable());
                leases.damaged(reason);
            }
            None => leases.table.replay(since, &pool.usable()),
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
        self.table.leases.get(source).copied()
    }

    /// How many sources have a VIP.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether there is none")]
    pub fn len(&self) -> usize {
        self.table.leases.len()
    }

    /// Every lease, in the order of the sources.
    pub fn iter(&self) -> impl Iterator<Item = (&SourceName, u32)> {
        self.table.leases.iter().map(|(source, index)| (source, *index))
    }

    /// The source that has the VIP at `index`, or had it last. Looks at every lease: for commands,
    /// not for every packet.
    pub fn source_of(&self, index: u32) -> Option<&SourceName> {
        let leased = self.iter().find(|(_, leased)| *leased == index).map(|(source, _)| source);
        leased.or_else(|| {
            self.table.freed.iter().find(|freed| freed.index == index).map(|freed| &freed.source)
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
            sources.into_iter().filter(|source| !self.table.leases.contains_key(*source)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.table.lease(&wanted, &self.pool)?;
        self.pending.extend(
            wanted
                .into_iter()
                .map(|source| LeaseChange::Leased(source.clone(), self.table.leases[source])),
        );
        Ok(())
    }

    /// Frees the VIPs of several sources; a source without one is ignored. This need not be on
    /// disk: a reader of the file finds leases that no route needs, and frees them again.
    pub fn release_all<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) {
        for source in sources {
            if let Some((source, index)) = self.table.leases.remove_entry(source) {
                self.pending.push(LeaseChange::Freed(source.clone(), index));
                self.table.freed.push(Freed { index, source });
            }
        }
    }

    /// Takes the names over from those who have the same: each is in memory once.
    pub fn intern_names<'s>(&mut self, sources: impl IntoIterator<Item = &'s SourceName>) {
        let mut leases = std::mem::take(&mut self.table.leases);
        let shared: Vec<_> = sources
            .into_iter()
            .filter_map(|source| Some((source.clone(), leases.remove(source)?)))
            .collect();
        self.table.leases = shared.into_iter().chain(leases).collect();
    }

    /// What has changed since this was last [marked as saved](Leases::mark_saved) or saved.
    pub fn pending(&self) -> &[LeaseChange] {
        &self.pending
    }

    /// What had changed is on disk, beside the file.
    pub fn mark_saved(&mut self) {
        self.pending = Vec::new();
    }

    /// Writes the file, after a copy of a damaged one.
    ///
    /// # Errors
    /// When it can't be written: it is as it was, and so is what there is to keep.
    pub fn save(&mut self) -> Result<(), FileError> {
        Quarantine::settle(&mut self.damaged)?;
        let file = OnDisk {
            version: VERSION,
            pool: PoolOnDisk { ipv4: self.pool.ipv4, ipv6: self.pool.ipv6 },
            leases: &self.table.leases,
            freed: &self.table.freed,
        };
        let text = serde_json::to_vec(&file).expect("maps of names to numbers are JSON");
        atomic_file::write_atomically(&self.path, &text)?;
        self.mark_saved();
        Ok(())
    }

    /// Takes over what a file holds, and what happened since.
    fn adopt(&mut self, file: Read, since: Vec<LeaseChange>) {
        let old = file.pool.ipv4;
        // An index means another address in another pool. Refusing it would only make the operator
        // delete this file, since the pool was changed on purpose; so the leases keep their
        // index where it fits, and the warning states the cost.
        let other_pool = old != self.pool.ipv4;
        let usable = Pool { ipv4: old, ipv6: None, guard: false }.usable();
        let (table, damage) = LeaseTable::checked(file.leases, file.freed, &usable);
        self.table = table;
        self.table.replay(since, &usable);
        if let Some(reason) = damage {
            self.damaged(reason);
        }
        if other_pool {
            let before = self.table.leases.len();
            let usable = self.pool.usable();
            self.table.leases.retain(|_, index| usable.contains(index));
            // Nobody has seen the new pool's addresses, unless the pool only changed its width.
            let same_base = old.network() == self.pool.ipv4.network();
            self.table.freed.retain(|freed| same_base && usable.contains(&freed.index));
            let kept = self.table.leases.len();
            self.warnings.push(LeaseWarning::OtherPool {
                old,
                new: self.pool.ipv4,
                kept,
                dropped: before - kept,
            });
        }
    }

    fn damaged(&mut self, reason: String) {
        let quarantine = Quarantine::plan(&self.path);
        self.warnings.push(LeaseWarning::Damaged {
            path: self.path.clone(),
            reason,
            copy: quarantine.copy().to_owned(),
            kept: self.table.leases.len(),
        });
        self.damaged = Some(quarantine);
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
                Ok(upgraded(file))
            })),
    }
}

/// In the words of this version.
fn upgraded(mut file: Read) -> Read {
    let deep = |name: String| match name.parse::<SourceName>() {
        Ok(source) => source.with_deep_wildcard().to_string(),
        Err(_) => name,
    };
    if file.version < 2 {
        file.leases = file.leases.into_iter().map(|(name, index)| (deep(name), index)).collect();
        for freed in &mut file.freed {
            freed.source = freed.source.clone().with_deep_wildcard();
        }
    }
    file
}

/// Which source has the VIP of which index, as far as the file can be read. Nothing is checked or
/// written.
pub(crate) fn leased(path: &Path) -> BTreeMap<u32, SourceName> {
    let file: Option<Read> =
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let leases = file.map(|file| upgraded(file).leases).unwrap_or_default();
    leases.into_iter().filter_map(|(name, index)| Some((index, name.parse().ok()?))).collect()
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
