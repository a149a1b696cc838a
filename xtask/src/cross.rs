//! Building for another architecture than this machine's.
//!
//! Debian's compiler knows every target, but lacks the target's standard library. The package of
//! the other architecture has it, and is unpacked in the cache: the machine's package manager need
//! not be configured for that architecture.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use crate::{
    arch::Arch,
    flags, lock,
    progress::Step,
    setup::private_apt::{self, Apt, Installed},
};

/// The package of the standard library that belongs to Debian's compiler.
const LIBRARY: &str = "libstd-rust-web-dev";

/// The compiler.
pub(crate) const COMPILER: &str = "/usr/bin/rustc";

/// A compiler with a standard library for another architecture.
pub(crate) struct Cross {
    arch: Arch,
    sysroot: PathBuf,
}

impl Cross {
    /// From the cache, or fetched: the library must have the same version as this machine's own.
    pub(crate) fn ensure(arch: Arch) -> anyhow::Result<Self> {
        let version = installed_version()?;
        let folder =
            workspace::tools_dir().join("std").join(format!("{}-{version}", arch.debian()));
        let sysroot = folder.join("usr");
        let library = sysroot.join("lib/rustlib").join(arch.target()).join("lib");
        if !library.is_dir() {
            let _lock = lock::acquire(&workspace::tools_dir().join("std.lock"))?;
            if !library.is_dir() {
                fetch(arch, &version, &folder)?;
            }
        }
        if !library.is_dir() {
            bail!("{LIBRARY} {version} for {} holds no {}", arch.debian(), library.display());
        }
        Ok(Self { arch, sysroot })
    }

    /// Makes cargo build with it.
    pub(crate) fn prepare(&self, command: &mut Command) {
        let linker =
            format!("CARGO_TARGET_{}_LINKER", self.arch.target().to_uppercase().replace('-', "_"));
        command.env("RUSTC", COMPILER).env(linker, format!("{}-linux-gnu-gcc", self.arch.name()));
        // Build scripts run on this machine, with the compiler's own library: cargo gives these
        // flags to the target's crates only.
        command.env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("{}\u{1f}--sysroot\u{1f}{}", flags::of_release(), self.sysroot.display()),
        );
    }
}

fn installed_version() -> anyhow::Result<String> {
    let version =
        capture::run(Command::new("dpkg-query").args(["-W", "-f=${Version}", LIBRARY]), |_| {});
    version.map(|version| version.trim().to_owned()).context(
        "programs for another architecture need Debian's rustc-web; without it, use \
            `--arch x86_64`",
    )
}

fn fetch(arch: Arch, version: &str, folder: &Path) -> anyhow::Result<()> {
    let step = Step::start(format!("fetching the standard library for {}", arch.name()));
    let codename = private_apt::release()?;
    let state =
        workspace::tools_dir().join("std").join(format!("apt-{codename}-{}", arch.debian()));
    let suites = [codename.clone(), format!("{codename}-security")];
    let apt = Apt::new(&state, &suites, arch.debian(), Installed::Nothing)?;
    apt.update(&step).context("failed to read the lists of packages")?;
    let parent = folder.parent().context("the cache has no directory")?;
    let package = format!("{LIBRARY}={version}");
    let temporary = apt
        .download(&package, parent, &step)
        .with_context(|| format!("failed to fetch {package} for {}", arch.debian()))?;
    let unpacked = temporary.path().join("unpacked");
    capture::run(
        Command::new("sh").args(["-c", "dpkg-deb -x *.deb unpacked"]).current_dir(temporary.path()),
        |_| {},
    )
    .with_context(|| format!("failed to unpack {package}"))?;
    fs::rename(&unpacked, folder)
        .with_context(|| format!("failed to move the library to {}", folder.display()))?;
    step.done_with(version);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_targets_crates_get_the_other_library() {
        let cross = Cross { arch: Arch::Arm, sysroot: PathBuf::from("/cache/usr") };
        let mut command = Command::new("cargo");
        cross.prepare(&mut command);
        let value = |name: &str| {
            let found =
                command.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
            found.map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(
            value("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER").as_deref(),
            Some("aarch64-linux-gnu-gcc")
        );
        assert!(
            value("CARGO_ENCODED_RUSTFLAGS")
                .is_some_and(|flags| flags.starts_with("-C\u{1f}target-feature=+crt-static\u{1f}")
                    && flags.ends_with("\u{1f}--sysroot\u{1f}/cache/usr"))
        );
    }
}
