//! A micro-VM's root file system: busybox, a few of the machine's programs with their libraries,
//! and the modules of its network card.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::packages;
use crate::{binaries, process};

/// Longest time of a tool that reads one program.
const LIMIT: Duration = Duration::from_secs(60);

/// In the order in which they must be loaded; newer kernels have some of them built in.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// Programs of the machine, beside busybox's.
const PROGRAMS: [&str; 2] = ["curl", "getent"];

/// The C library loads these by name when it resolves names.
const LOADED_BY_NAME: [&str; 2] = ["libnss_dns.so.2", "libnss_files.so.2"];

/// The first program. The network's parameters are in a file of the second archive. Commands come
/// line by line through the second serial port (see `serial_shell`).
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in /modules/*; do insmod $module; done
. /etc/guest.conf
ip link set lo up
ip addr add $address dev eth0
ip link set eth0 up
ip route add default via $gateway
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
echo '@@ready' >&3
while read -r line <&3; do
  sh -c \"$line\" </dev/null >&3 2>&1
  printf '\\n@@%d\\n' $? >&3
done
";

/// The kernel of micro-VMs.
pub(super) fn kernel() -> Result<PathBuf> {
    packages::unpacked("boot/vmlinuz")
}

/// The archive that every micro-VM begins with, made once.
pub(super) fn base() -> Result<&'static [u8]> {
    static BASE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    match BASE.get_or_init(|| make().map_err(|error| format!("{error:#}"))) {
        Ok(archive) => Ok(archive),
        Err(error) => bail!("failed to make a micro-VM's root file system: {error}"),
    }
}

/// What differs between micro-VMs, appended to [`base`]: files, and programs of this machine.
pub(super) fn own(files: &[(&str, &str)], programs: &[(String, PathBuf)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for (path, text) in files {
        archive.file(path, text.as_bytes());
    }
    for (path, source) in programs {
        archive.program(path, &read(source)?);
    }
    Ok(archive.finish())
}

fn make() -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    tree.archive.program("init", INIT.as_bytes());
    for folder in ["proc", "sys", "dev", "tmp", "etc", "modules", "bin", "usr/bin"] {
        tree.directory(Path::new(folder));
    }
    tree.archive.program("bin/busybox", &read(&packages::path_of("busybox")?)?);
    for (number, name) in MODULES.iter().enumerate() {
        if let Some(module) = module(name)? {
            tree.archive.file(&format!("modules/{number}-{name}.ko"), &module);
        }
    }
    for program in PROGRAMS {
        let path = packages::path_of(program)?;
        tree.program(Path::new("usr/bin").join(program).as_path(), &path)?;
    }
    // At its path on this machine, as in every guest.
    let client = binaries::client()?;
    tree.directory(client.parent().context("a program without a folder")?);
    tree.program(&client, &client)?;
    // Beside the C library.
    let libraries = tree.libraries.iter().filter_map(|path| path.parent()).map(Path::to_path_buf);
    let folders: BTreeSet<PathBuf> = libraries.collect();
    for name in LOADED_BY_NAME {
        if let Some(path) =
            folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())
        {
            tree.library(&path)?;
        }
    }
    Ok(tree.archive.finish())
}

/// An archive with what is in it.
#[derive(Default)]
struct Tree {
    archive: Archive,
    folders: BTreeSet<PathBuf>,
    libraries: BTreeSet<PathBuf>,
}

impl Tree {
    fn directory(&mut self, path: &Path) {
        let path = path.strip_prefix("/").unwrap_or(path);
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|folder| !folder.as_os_str().is_empty() && !self.folders.contains(*folder))
            .map(Path::to_path_buf)
            .collect();
        for folder in missing.into_iter().rev() {
            self.archive.directory(&folder.to_string_lossy());
            self.folders.insert(folder);
        }
    }

    /// A program without its debugging information, and the libraries that it names.
    fn program(&mut self, at: &Path, path: &Path) -> Result<()> {
        let stripped = tempfile::NamedTempFile::new().context("failed to make a file")?;
        let mut strip = packages::tool("strip")?;
        strip.arg("-o").arg(stripped.path()).arg(path);
        process::finish(strip, LIMIT)?.success()?;
        self.archive.program(&at.to_string_lossy(), &read(stripped.path())?);
        let mut ldd = Command::new("ldd");
        ldd.arg(path);
        for line in process::finish(ldd, LIMIT)?.success()?.stdout.lines() {
            let words = line.split_whitespace().find(|word| word.starts_with('/'));
            words.map_or(Ok(()), |library| self.library(Path::new(library)))?;
        }
        Ok(())
    }

    fn library(&mut self, path: &Path) -> Result<()> {
        if self.libraries.insert(path.to_owned()) {
            self.directory(path.parent().context("a library without a folder")?);
            self.archive.program(&path.to_string_lossy(), &read(path)?);
        }
        Ok(())
    }
}

/// A kernel module; `None` when the kernel has it built in.
fn module(name: &str) -> Result<Option<Vec<u8>>> {
    let home = packages::unpacked_home(packages::GUEST_KERNEL).join("lib/modules");
    let mut find = Command::new("find");
    find.arg(&home).args(["-name", &format!("{name}.ko*")]);
    let found = process::finish(find, LIMIT)?.success()?.stdout;
    let Some(path) = found.lines().next() else { return Ok(None) };
    if !path.ends_with(".xz") {
        return read(Path::new(path)).map(Some);
    }
    let output = packages::tool("xz")?
        .args(["-dc", path])
        .output()
        .with_context(|| format!("failed to unpack {path}"))?;
    anyhow::ensure!(output.status.success(), "xz failed to unpack {path}");
    Ok(Some(output.stdout))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
