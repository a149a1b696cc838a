//! Debian packages that are unpacked instead of installed: the installation of systemd-resolved
//! would replace the machine's resolv.conf, dockerd's would start it, a kernel's would boot it.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use testbed::{
    capture,
    packages::{self, CLUSTER, GUEST_KERNEL, UNPACKED},
};

use super::{apt, needs::Group};
use crate::progress::Step;

/// The packages of these groups that are not unpacked yet.
pub(crate) fn missing(groups: &[Group]) -> Vec<&'static str> {
    let of = |group, list: &'static [_]| if groups.contains(&group) { list } else { &[] };
    let mut missing: Vec<_> = of(Group::Tests, UNPACKED)
        .iter()
        .chain(of(Group::Cluster, CLUSTER))
        .filter(|(_, program)| packages::unpacked(program).is_err())
        .map(|(package, _)| *package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Fetches a package from the machine's own package sources and unpacks it.
pub(crate) fn install(package: &str) -> anyhow::Result<()> {
    let home = packages::unpacked_home(package);
    let step = Step::start(format!("unpacking {package} into {}", home.display()));
    let temporary = tempfile::tempdir().context("failed to make a folder")?;
    // Without this, apt downloads as another user, who cannot write to the folder.
    let download = || {
        let archive = if package == GUEST_KERNEL { kernel(package)? } else { package.to_owned() };
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "-o", "APT::Sandbox::User=root", "download", &archive])
            .env("LC_ALL", "C")
            .current_dir(temporary.path());
        capture::run(&mut command, |line| step.note(line))
    };
    if download().is_err() {
        apt::update()?;
        download().with_context(|| format!("failed to fetch {package}"))?;
    }
    if home.exists() {
        fs::remove_dir_all(&home)
            .with_context(|| format!("failed to remove {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("failed to create {}", home.display()))?;
    let archive =
        fs::read_dir(temporary.path()).context("failed to list the download")?.flatten().next();
    let archive = archive.with_context(|| format!("apt-get fetched nothing for {package}"))?.path();
    capture::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&home), |line| {
        step.note(line)
    })?;
    if package == GUEST_KERNEL {
        link_kernel(&home.join("boot"))?;
    }
    step.done();
    Ok(())
}

/// The package of a kernel that a metapackage depends on.
fn kernel(metapackage: &str) -> anyhow::Result<String> {
    let depends = capture::run(Command::new("apt-cache").args(["depends", metapackage]), |_| {})?;
    depends
        .lines()
        .find_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned()))
        .filter(|package| package.starts_with("linux-image-"))
        .with_context(|| format!("{metapackage} depends on no kernel"))
}

/// Gives the kernel a name without its version.
fn link_kernel(boot: &Path) -> anyhow::Result<()> {
    let names = fs::read_dir(boot).with_context(|| format!("failed to list {}", boot.display()))?;
    let kernel = names
        .flatten()
        .map(|entry| entry.file_name())
        .find(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        .with_context(|| format!("{} holds no kernel", boot.display()))?;
    std::os::unix::fs::symlink(kernel, boot.join("vmlinuz")).context("failed to link the kernel")
}
