//! `cargo xtask build`: the release binary, linked statically, at `target/release/redirector`.
//!
//! It is linked statically with glibc, so that it runs from an empty image. The target is explicit:
//! the flag would otherwise reach proc macros, which cannot be static.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Instant,
};

use anyhow::{Context as _, bail};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use testbed::{capture, workspace};

use crate::{
    arch::Arch,
    build_ebpf,
    cross::Cross,
    flags,
    progress::{Step, seconds},
    setup::{self, needs::Group},
};

/// Builds the binary, and prints its path and size.
pub(crate) fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let path = ensure()?;
    let size = fs::metadata(&path)
        .with_context(|| format!("failed to read the size of {}", path.display()))?
        .len();
    #[expect(clippy::cast_precision_loss, reason = "a size in megabytes with one digit")]
    let megabytes = size as f64 / 1e6;
    eprintln!("{}: {megabytes:.1} MB, static ({})", path.display(), seconds(started.elapsed()));
    Ok(())
}

/// As [`run`], for tasks that need the binary; once per process. Returns where it is.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(binary) = BINARY.get() {
        return Ok(binary.clone());
    }
    let binary = build_binary()?;
    Ok(BINARY.get_or_init(|| binary).clone())
}

/// The binary of an architecture.
pub(crate) fn for_arch(arch: Arch) -> anyhow::Result<PathBuf> {
    if arch == Arch::HOST {
        return ensure();
    }
    static_program("redirector", Program::Binary("redirector"), arch, |_| {})
}

/// The binary, and what the demo and the benchmarks run beside it.
pub(crate) fn ensure_with_tools() -> anyhow::Result<()> {
    setup::ensure(&[Group::Toolchain, Group::Tests])?;
    ensure().map(drop)
}

fn build_binary() -> anyhow::Result<PathBuf> {
    let built = static_program("redirector", Program::Binary("redirector"), Arch::HOST, |_| {})?;
    let path = workspace::release_binary();
    publish(&built, &path)?;
    Ok(path)
}

/// Builds an example of the product as the release binary is built, at
/// [`workspace::release_example`].
pub(crate) fn example(name: &'static str) -> anyhow::Result<()> {
    static_program("redirector", Program::Example(name), Arch::HOST, |_| {}).map(drop)
}

/// What to build of a package.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    Binary(&'static str),
    Example(&'static str),
}

/// A static release build of a program, below the directory of its target. `prepare` may change
/// how.
pub(crate) fn static_program(
    package: &str,
    program: Program,
    arch: Arch,
    prepare: impl FnOnce(&mut Command),
) -> anyhow::Result<PathBuf> {
    build_ebpf::ensure()?;
    let (option, name, folder) = match program {
        Program::Binary(name) => ("--bin", name, "release"),
        Program::Example(name) => ("--example", name, "release/examples"),
    };
    let mut command = workspace::cargo();
    command.args([
        "build",
        "--locked",
        "--release",
        "--package",
        package,
        option,
        name,
        "--target",
        &arch.target(),
    ]);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags::of_release()).env_remove("RUSTFLAGS");
    if arch != Arch::HOST {
        Cross::ensure(arch)?.prepare(&mut command);
    }
    prepare(&mut command);
    let what = if name == "redirector" { "the release binary" } else { name };
    let step = Step::start(format!("building {what} for {}", arch.target()));
    let finished = capture::capture(&mut command, |line| step.note(line))?;
    if !finished.status.success() {
        step.failed();
        bail!("failed to build {what}:\n{}", finished.output.trim_end());
    }
    step.done();
    let built = workspace::target_dir().join(arch.target()).join(folder).join(name);
    check_static(&built)?;
    Ok(built)
}

/// A static binary has no interpreter.
fn check_static(path: &Path) -> anyhow::Result<()> {
    let data = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let file = ElfFile64::<object::Endianness>::parse(&*data)
        .with_context(|| format!("{} is not a 64-bit ELF file", path.display()))?;
    let endian = file.endian();
    if file
        .elf_program_headers()
        .iter()
        .any(|header| header.p_type(endian) == object::elf::PT_INTERP)
    {
        bail!("{} is not static: it has an interpreter (PT_INTERP)", path.display());
    }
    Ok(())
}

/// Links the binary to its published path, atomically.
fn publish(built: &Path, path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().context("the binary's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let temporary = dir.join(format!(".redirector-{}", std::process::id()));
    fs::hard_link(built, &temporary)
        .or_else(|_| fs::copy(built, &temporary).map(drop))
        .with_context(|| format!("failed to copy the binary to {}", dir.display()))?;
    // When both names are the same file, rename leaves both: hence the removal.
    let moved = fs::rename(&temporary, path)
        .with_context(|| format!("failed to move the binary to {}", path.display()));
    let _ = fs::remove_file(&temporary);
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_binary_is_refused() {
        // The test binary is dynamic.
        let error = check_static(Path::new("/proc/self/exe")).unwrap_err().to_string();
        assert!(error.contains("PT_INTERP"), "{error}");
    }
}
