//! Debian's kernels: the list, and their download without installation, with some modules.
//!
//! Each suite has its own apt state in the cache of tools, and uses this machine's Debian mirror.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use super::modules;
use crate::{
    arch::Arch,
    lock,
    progress::Step,
    setup::private_apt::{Apt, Installed},
};

/// A kernel to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its name in `--kernel`.
    pub(super) name: &'static str,
    pub(super) arch: Arch,
    suite: &'static str,
    /// The prefix of its release.
    release: &'static str,
}

impl Entry {
    /// Whether the scenario of the debug log is played, most of whose time is the emulated
    /// verifier's: a kernel that refuses the logging programs and one that accepts them show both
    /// outcomes.
    pub(super) fn plays_debug_log(&self) -> bool {
        self.arch == Arch::X86 && ["6.12", "newest"].contains(&self.name)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.arch.name())
    }
}

/// The kernels of Debian's releases, and the newest one of its backports.
pub(super) const CATALOGUE: [Entry; 6] = [
    Entry { name: "5.10", arch: Arch::X86, suite: "bullseye-security", release: "5.10." },
    Entry { name: "6.1", arch: Arch::X86, suite: "bookworm-security", release: "6.1." },
    Entry { name: "6.12", arch: Arch::X86, suite: "bookworm-security", release: "6.12." },
    Entry { name: "6.18", arch: Arch::X86, suite: "trixie-backports", release: "6.18." },
    Entry { name: "newest", arch: Arch::X86, suite: "trixie-backports", release: "7." },
    Entry { name: "6.12", arch: Arch::Arm, suite: "bookworm-security", release: "6.12." },
];

/// A kernel in the cache.
pub(super) struct Kernel {
    /// Its image.
    pub(super) image: PathBuf,
    /// Its modules, as an archive of an initrd.
    pub(super) modules: PathBuf,
}

impl Kernel {
    fn in_cache(folder: &Path, package: &str) -> Self {
        let file = |extension| folder.join(format!("{package}.{extension}"));
        Self { image: file("vmlinuz"), modules: file("modules.cpio") }
    }

    fn is_complete(&self) -> bool {
        self.image.is_file() && self.modules.is_file()
    }
}

/// The kernel, from the cache or fetched. With `refresh`, a newer package of the suite replaces the
/// cached one.
pub(super) fn ensure(entry: &Entry, refresh: bool) -> anyhow::Result<Kernel> {
    let folder = workspace::tools_dir().join("kernels").join(entry.arch.name()).join(entry.name);
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let _lock = lock::acquire(&workspace::tools_dir().join("kernels.lock"))?;
    let cached = cached_packages(&folder)?;
    let newest = cached.last().map(|package| Kernel::in_cache(&folder, package));
    if let Some(kernel) = newest.filter(|kernel| !refresh && kernel.is_complete()) {
        return Ok(kernel);
    }
    let step = Step::start(format!("fetching the kernel {entry} from {}", entry.suite));
    let package = fetch(entry, &folder, &step)?;
    for old in cached.iter().filter(|old| **old != package) {
        let Kernel { image, modules } = Kernel::in_cache(&folder, old);
        fs::remove_file(&image).with_context(|| format!("failed to remove {}", image.display()))?;
        // An image that an older version of this program fetched has no modules.
        let _ = fs::remove_file(modules);
    }
    step.done_with(&package);
    Ok(Kernel::in_cache(&folder, &package))
}

/// The packages whose images are in the cache.
fn cached_packages(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut packages: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".vmlinuz")?.to_owned())).collect();
    packages.sort_unstable();
    Ok(packages)
}

/// Fetches the newest package of the kernel; returns its name.
fn fetch(entry: &Entry, folder: &Path, step: &Step) -> anyhow::Result<String> {
    let state = workspace::tools_dir().join("kernels").join(format!(
        "apt-{}-{}",
        entry.suite,
        entry.arch.debian()
    ));
    let apt = Apt::new(&state, &[entry.suite.to_owned()], entry.arch.debian(), Installed::Nothing)?;
    apt.update(step).with_context(|| format!("failed to read the lists of {}", entry.suite))?;
    let names = ["linux-image-", "linux-binary-"]
        .map(|prefix| capture::run(apt.command("apt-cache").args(["pkgnames", prefix]), |_| {}));
    let [images, binaries] = names;
    let names = images? + &binaries?;
    let Some(package) = newest(&names, entry.release, entry.arch.debian()) else {
        bail!("{} has no kernel {}", entry.suite, entry.release);
    };
    let kernel = Kernel::in_cache(folder, package);
    if kernel.is_complete() {
        return Ok(package.to_owned());
    }
    let download = |package: &str| {
        apt.download(package, folder, step).with_context(|| format!("failed to fetch {package}"))
    };
    let temporary = download(package)?;
    // Since 7.0 the modules are in a package of their own.
    let separate = match package.strip_prefix("linux-binary-") {
        Some(version) => Some(download(&format!("linux-modules-{version}"))?),
        None => None,
    };
    let contents = separate.as_ref().unwrap_or(&temporary).path();
    let modules = modules::archive(contents)
        .with_context(|| format!("failed to unpack the modules of {package}"))?;
    fs::write(&kernel.modules, modules)
        .with_context(|| format!("failed to write {}", kernel.modules.display()))?;
    let image = unpack_image(temporary.path())
        .with_context(|| format!("failed to unpack the image of {package}"))?;
    fs::rename(image, &kernel.image)
        .with_context(|| format!("failed to move the kernel to {}", kernel.image.display()))?;
    Ok(package.to_owned())
}

/// Unpacks the image of the package in this folder.
fn unpack_image(folder: &Path) -> anyhow::Result<PathBuf> {
    // Both layouts: an image in /boot, and beside the modules.
    const UNPACK: &str = "dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards --transform='s,.*/,,' \
        './boot/vmlinuz*' './usr/lib/modules/*/vmlinuz'; ls vmlinuz*";
    // tar fails since one of the two patterns matches nothing; only the file counts.
    let listed = capture::run(Command::new("sh").args(["-c", UNPACK]).current_dir(folder), |_| {})?;
    let found = listed
        .lines()
        .find(|line| line.starts_with("vmlinuz"))
        .context("there is no vmlinuz in it")?;
    Ok(folder.join(found))
}

/// The newest package of a kernel whose release has this prefix. Where a version has both packages,
/// the image is in `linux-binary-`.
fn newest<'a>(names: &'a str, release: &str, architecture: &str) -> Option<&'a str> {
    let suffix = format!("-cloud-{architecture}");
    let fits = |name: &&str| {
        let version =
            name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"));
        version.is_some_and(|version| version.starts_with(release) && version.ends_with(&suffix))
    };
    names.lines().map(str::trim).filter(fits).max_by_key(|name| {
        let numbers = name
            .split(|character: char| !character.is_ascii_digit())
            .filter_map(|part| part.parse().ok());
        (numbers.collect::<Vec<u32>>(), name.starts_with("linux-binary-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-56-cloud-amd64\n\
        linux-image-6.12.9+deb12-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\n\
        linux-image-6.12.118+deb12-cloud-amd64-unsigned\nlinux-image-6.12.118+deb12-amd64\n\
        linux-image-cloud-amd64\nlinux-image-7.3.4+deb13-cloud-amd64\n\
        linux-binary-7.3.4+deb13-cloud-amd64\n";

    #[test]
    fn the_newest_signed_cloud_kernel_is_chosen_by_number() {
        assert_eq!(newest(NAMES, "6.12.", "amd64"), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(NAMES, "6.1.", "amd64"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(NAMES, "6.18.", "amd64"), None);
    }

    #[test]
    fn the_package_that_contains_the_image_is_chosen() {
        assert_eq!(newest(NAMES, "7.", "amd64"), Some("linux-binary-7.3.4+deb13-cloud-amd64"));
    }
}
