//! The rig's own cgroup directory: made below the cgroup2 mount, emptied and removed as a whole.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long killed processes may take to leave their cgroup.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// Where cgroup2 is mounted, by /proc/self/mountinfo: /sys/fs/cgroup, or /sys/fs/cgroup/unified on
/// a hybrid system.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .context("failed to read /proc/self/mountinfo")?;
    let found = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4)).flatten()
    });
    found
        .map(PathBuf::from)
        .context("no cgroup2 is mounted: try `mount -t cgroup2 cgroup2 /sys/fs/cgroup`")
}

/// Where the controllers of cgroup version 1 are mounted on a hybrid system.
pub(crate) fn controller_trees() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let trees = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup ").then(|| left.split(' ').nth(4)).flatten()
    });
    trees.map(PathBuf::from).collect()
}

/// Makes `path` and its missing parents.
pub(crate) fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("failed to make the cgroup {} (this needs root)", path.display()))
}

/// Opens `cgroup.procs`: a process that writes "0" to it enters the cgroup.
pub(crate) fn open_procs(cgroup: &Path) -> Result<File> {
    make(cgroup)?;
    let path = cgroup.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))
}

/// Kills all processes in `cgroup` and below, and removes it. A missing directory is no error.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + EXIT_LIMIT;
    loop {
        kill(cgroup);
        match remove_tree(cgroup) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!("failed to remove the cgroup {}: {error}", cgroup.display());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// SIGKILL to everything in `cgroup` and below it; one write since Linux 5.14.
pub(crate) fn kill(cgroup: &Path) {
    // A failure shows when the directory can't be removed.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
