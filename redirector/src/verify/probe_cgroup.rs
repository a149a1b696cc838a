//! The cgroup that the probe runs in: that of a process, or a new one, which is removed afterwards.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::datapath;

/// A cgroup to run in.
#[derive(Debug)]
pub(super) struct ProbeCgroup {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It belongs to others.
    Found,
    /// It is removed afterwards.
    Made,
    /// This process is in it, so nothing need be joined.
    Ours,
}

impl ProbeCgroup {
    /// The cgroup of a process.
    pub(super) fn of_process(path: &Path) -> Self {
        Self { path: path.to_owned(), kind: Kind::Found }
    }

    /// The cgroup that this process is in.
    pub(super) fn ours(path: PathBuf) -> Self {
        Self { path, kind: Kind::Ours }
    }

    /// The cgroup that the probe has to join.
    pub(super) fn to_join(&self) -> Option<&Path> {
        (self.kind != Kind::Ours).then_some(self.path.as_path())
    }

    /// A new cgroup below `cgroup`: the kernel admits processes in leaves only.
    pub(super) fn below(cgroup: &Path) -> anyhow::Result<Self> {
        let path = cgroup.join(format!("redirector-verify-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, kind: Kind::Made }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                let why = format!(
                    "failed to create a cgroup below {} for the probe ({error}): run this as root \
                        on the node",
                    cgroup.display()
                );
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why).into())
            }
            Err(error) => Err(error)
                .with_context(|| format!("failed to create a cgroup below {}", cgroup.display())),
        }
    }

    /// The cgroup's directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ProbeCgroup {
    fn drop(&mut self) {
        if self.kind == Kind::Made {
            // The probe has been waited for; the kernel may need a moment to see it.
            for _ in 0..50 {
                if fs::remove_dir(&self.path).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// The directory that `--cgroup` means: absolute, or below the cgroup2 mount.
pub(super) fn named(cgroup: &Path) -> anyhow::Result<PathBuf> {
    let mount = datapath::cgroup2_mount()?;
    let path = if cgroup.starts_with(&mount) {
        cgroup.to_owned()
    } else {
        mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
    };
    anyhow::ensure!(
        path.join("cgroup.procs").exists(),
        "{} is not a cgroup below {}",
        cgroup.display(),
        mount.display()
    );
    Ok(path)
}
