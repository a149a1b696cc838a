//! What a rig leaves behind on the machine, and how it is removed: its cgroup directory and its
//! folder.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};

use super::cleanup::{self, Remains};
use super::{cgroup, rig_name};

/// The cgroup directory and the folder of a rig. Both are removed when the last user is gone.
#[derive(Debug)]
pub(crate) struct RigScope {
    name: String,
    remains: Remains,
}

impl RigScope {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let (below, temporary) = (cgroup::mount_point()?, std::env::temp_dir());
        sweep(&below, &temporary);
        let name = rig_name::new_name()?;
        let remains = Remains { cgroup: below.join(&name), files: temporary.join(&name) };
        cleanup::guard(&remains)?;
        let scope = Self { name, remains };
        cgroup::make(scope.cgroup())?;
        fs::create_dir_all(scope.files())
            .with_context(|| format!("failed to make {}", scope.files().display()))?;
        Ok(Arc::new(scope))
    }

    /// The rig's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The rig's cgroup directory.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.remains.cgroup
    }

    /// The rig's folder on the host.
    pub(crate) fn files(&self) -> &Path {
        &self.remains.files
    }

    /// A folder of this name in the rig's folder, made when it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.files().join(name);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RigScope {
    fn drop(&mut self) {
        if let Err(error) = self.remains.remove() {
            eprintln!("{error:#}");
        }
        cleanup::release(&self.remains);
    }
}

/// What this process's rigs have left on the machine; empty when they removed everything.
pub fn leftovers() -> Result<Vec<PathBuf>> {
    let own = format!("-{}-", std::process::id());
    let mut folders = cgroup::controller_trees();
    folders.extend([cgroup::mount_point()?, std::env::temp_dir()]);
    let found = folders.iter().flat_map(|folder| {
        rig_name::named_in(folder).into_iter().map(|name| (folder.join(&name), name))
    });
    Ok(found
        .filter(|(_, name)| name.contains(&own) && !rig_name::is_orphan(name))
        .map(|(path, _)| path)
        .collect())
}

/// Removes what rigs of dead processes have left.
fn sweep(cgroups: &Path, temporary: &Path) {
    let mut folders = cgroup::controller_trees();
    folders.extend([cgroups.to_owned(), temporary.to_owned()]);
    let names: BTreeSet<_> = folders.iter().flat_map(|folder| rig_name::named_in(folder)).collect();
    for name in names.into_iter().filter(|name| rig_name::is_orphan(name)) {
        let remains = Remains { cgroup: cgroups.join(&name), files: temporary.join(&name) };
        if let Err(error) = remains.remove() {
            eprintln!("{error:#}");
        }
    }
}
