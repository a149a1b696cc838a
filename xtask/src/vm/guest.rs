//! The virtual machine's initrd: the kernel's modules, and one static program, `/init`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use testbed::{cpio::Archive, workspace};

use super::kernels::Entry;
use crate::{
    arch::Arch,
    build::{self, Program},
};

/// The package and its program.
const PROGRAM: &str = "redirector-scenarios";

/// Builds the program and packs it.
pub(super) fn program(arch: Arch) -> anyhow::Result<Vec<u8>> {
    let program = build::static_program(PROGRAM, Program::Binary(PROGRAM), arch, |command| {
        if arch != Arch::HOST {
            // Nothing is measured there, and all crates are compiled again for it.
            command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        }
    })?;
    let program =
        fs::read(&program).with_context(|| format!("failed to read {}", program.display()))?;
    let mut archive = Archive::default();
    archive.program("init", &program);
    Ok(archive.finish())
}

/// Writes the initrd of a machine: the archive of its kernel's modules, then that of the program.
pub(super) fn initrd(entry: &Entry, modules: &Path, program: &[u8]) -> anyhow::Result<PathBuf> {
    let modules =
        fs::read(modules).with_context(|| format!("failed to read {}", modules.display()))?;
    let folder = workspace::target_dir().join("vm");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let path = folder.join(format!("{}-{}.cpio", entry.arch.name(), entry.name));
    let mut temporary = tempfile::NamedTempFile::new_in(&folder)
        .with_context(|| format!("failed to create a file in {}", folder.display()))?;
    for archive in [modules.as_slice(), program] {
        temporary.write_all(archive).context("failed to write an archive")?;
    }
    temporary
        .persist(&path)
        .with_context(|| format!("failed to move the archive to {}", path.display()))?;
    Ok(path)
}
