//! The modules that the scenarios' networks need: Debian's kernels have few built-in devices.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use testbed::{capture, cpio::Archive};

/// In the order in which they are loaded: each after those that it depends on.
const MODULES: [&str; 11] = [
    "llc",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "bridge",
    "veth",
    "macvlan",
    "ipvlan",
    "sch_ingress",
    "cls_bpf",
];

/// Where the machine finds them, in its root.
const FOLDER: &str = "modules";

/// An archive of an initrd with the modules of the package in this folder. Their names begin with
/// their place in the order.
pub(super) fn archive(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let patterns: Vec<_> = MODULES.iter().map(|name| format!("'*/{name}.ko*'")).collect();
    let unpack = format!(
        "dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards --transform='s,.*/,,' {} && \
            find . -name '*.ko.xz' -exec unxz {{}} +",
        patterns.join(" ")
    );
    capture::run(Command::new("sh").args(["-c", &unpack]).current_dir(folder), |_| {})?;
    let mut archive = Archive::default();
    archive.directory(FOLDER);
    for (number, name) in MODULES.iter().enumerate() {
        let module = fs::read(folder.join(format!("{name}.ko")))
            .with_context(|| format!("failed to read the module {name}"))?;
        archive.file(&format!("{FOLDER}/{number:02}-{name}.ko"), &module);
    }
    Ok(archive.finish())
}
