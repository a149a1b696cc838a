//! How soon a new cgroup is attached, alone and among a thousand.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use redirector_common::{abi, names};
use testbed::Sandbox;

/// The folder in which the agent of the benchmark attaches every cgroup.
pub(super) const FOLDER: &str = "jobs";
/// Longest time to wait for the agent.
const LIMIT: Duration = Duration::from_secs(60);

/// Milliseconds from each of `count` calls of mkdir(2), made one after the other on the node, to
/// its last program attached.
pub(super) fn attach_times(node: &Sandbox, count: usize) -> Result<Vec<f64>> {
    on_node(node, || {
        (0..count).map(|number| wait_attached(&[make(number)?]).map(milliseconds)).collect()
    })
}

/// Milliseconds from the first of `count` calls of mkdir(2) in a row to the last program attached
/// to the last of them.
pub(super) fn burst_time(node: &Sandbox, count: usize) -> Result<f64> {
    on_node(node, || {
        let began = Instant::now();
        let made = (0..count).map(make).collect::<Result<Vec<_>>>()?;
        wait_attached(&made)?;
        Ok(milliseconds(began))
    })
}

/// Measures in the node's view of cgroups and pins; removes the cgroups afterwards.
fn on_node<T: Send>(node: &Sandbox, measure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    node.namespaces().run(|| {
        let folder = Path::new("/sys/fs/cgroup").join(FOLDER);
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        let measured = measure();
        for entry in fs::read_dir(&folder)
            .with_context(|| format!("failed to list {}", folder.display()))?
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            fs::remove_dir(entry.path())
                .with_context(|| format!("failed to remove {}", entry.path().display()))?;
        }
        measured
    })?
}

/// Creates a cgroup; returns the time just before, and the path of its last pinned link.
fn make(number: usize) -> Result<(Instant, PathBuf)> {
    let path = Path::new("/sys/fs/cgroup").join(FOLDER).join(number.to_string());
    let began = Instant::now();
    fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
    let id = fs::metadata(&path)
        .with_context(|| format!("failed to read the inode of {}", path.display()))?
        .ino();
    let last = names::program_names().last().context("there are no programs")?;
    Ok((began, format!("/sys/fs/bpf/redirector/v{}/links/{id}/{last}", abi::ABI).into()))
}

/// Waits until all are attached; returns the time of the first mkdir.
fn wait_attached(made: &[(Instant, PathBuf)]) -> Result<Instant> {
    let first = made.first().context("no cgroup was made")?.0;
    for (_, pin) in made {
        while !pin.exists() {
            if first.elapsed() > LIMIT {
                bail!("{} was not pinned within {LIMIT:?}", pin.display());
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(first)
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
