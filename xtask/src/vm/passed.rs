//! Remembers which machines passed with the same kernel, program and emulator: the tests skip them.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;
use testbed::{capture, workspace};

use super::{boot, machine::Machine};

/// Whether this machine has passed unchanged.
pub(super) fn is_recorded(machine: &Machine) -> anyhow::Result<bool> {
    let key = key(machine)?;
    Ok(fs::read_to_string(path(machine)).is_ok_and(|recorded| recorded == key))
}

/// Records that the machine passed.
pub(super) fn record(machine: &Machine) -> anyhow::Result<()> {
    let path = path(machine);
    fs::write(&path, key(machine)?).with_context(|| format!("failed to write {}", path.display()))
}

fn path(machine: &Machine) -> PathBuf {
    let name = format!("{}-{}.passed", machine.entry.arch.name(), machine.entry.name);
    workspace::target_dir().join("vm").join(name)
}

/// A hash of the kernel, the program and the emulator's version.
fn key(machine: &Machine) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    machine.kernel.hash(&mut hasher);
    for path in [&machine.kernel, &machine.initrd] {
        let content =
            fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        content.hash(&mut hasher);
    }
    let mut version = Command::new(boot::emulator(machine.entry.arch).get_program());
    capture::run(version.arg("--version"), |_| {})?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
