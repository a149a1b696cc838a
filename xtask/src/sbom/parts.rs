//! What is linked into the binary: crates, as cargo resolves them for its target, and the C
//! library.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use serde::Deserialize;
use testbed::{capture, workspace};

use crate::{arch::Arch, cross};

/// The packages whose code ships: the agent, and the programs that it embeds.
const SHIPPED: [&str; 2] = ["redirector", "redirector-ebpf"];

/// A crate's name and version.
pub(super) type Identity = (String, String);

/// One crate that is linked.
pub(super) struct Part {
    /// An SPDX expression.
    pub(super) licence: String,
    pub(super) repository: Option<String>,
    /// The SHA-256 of its archive; a crate of this workspace has none.
    pub(super) checksum: Option<String>,
    /// Where its source is.
    pub(super) folder: PathBuf,
    pub(super) dependencies: BTreeSet<Identity>,
}

/// Everything that is linked.
pub(super) struct Parts {
    pub(super) crates: BTreeMap<Identity, Part>,
    /// The version of Rust's standard library.
    pub(super) rust: String,
    /// The version of the statically linked glibc.
    pub(super) glibc: String,
    /// The licences of glibc's files.
    pub(super) glibc_licences: String,
}

impl Parts {
    /// For the binary of an architecture.
    pub(super) fn find(arch: Arch) -> anyhow::Result<Self> {
        let package = arch.libc_package();
        let (mut rust, mut glibc) = (Command::new(compiler(arch)), Command::new("dpkg-query"));
        rust.arg("--version");
        glibc.args(["-W", "-f=${Version}", &package]);
        let copyright = PathBuf::from(format!("/usr/share/doc/{package}/copyright"));
        Ok(Self {
            crates: crates(arch)?,
            rust: capture::stdout(rust)?
                .split(' ')
                .nth(1)
                .context("rustc prints no version")?
                .to_owned(),
            glibc: capture::stdout(glibc)?,
            glibc_licences: fs::read_to_string(&copyright)
                .with_context(|| format!("failed to read {}", copyright.display()))?,
        })
    }
}

/// As cargo chooses it, or as [`cross`] does.
fn compiler(arch: Arch) -> OsString {
    if arch != Arch::HOST {
        return cross::COMPILER.into();
    }
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn crates(arch: Arch) -> anyhow::Result<BTreeMap<Identity, Part>> {
    let linked = linked(arch)?;
    let metadata = metadata(arch)?;
    let checksums = checksums()?;
    let mut crates = BTreeMap::new();
    for package in &metadata.packages {
        let identity = (package.name.to_string(), package.version.to_string());
        if !linked.contains(&identity) {
            continue;
        }
        let licence = package.license.clone();
        let folder = package.manifest_path.parent().context("a manifest has no folder")?;
        let part = Part {
            licence: licence.with_context(|| format!("{} states no licence", package.name))?,
            repository: package.repository.clone(),
            checksum: checksums.get(&identity).cloned(),
            folder: folder.to_path_buf().into(),
            dependencies: &dependencies(&metadata, &package.id) & &linked,
        };
        crates.insert(identity, part);
    }
    ensure!(crates.len() == linked.len(), "cargo's metadata lack a crate that its tree has");
    Ok(crates)
}

/// The crates that cargo links for this target: without build scripts, macros and tests.
fn linked(arch: Arch) -> anyhow::Result<BTreeSet<Identity>> {
    let mut linked = BTreeSet::new();
    // One by one, since a dependency's features depend on what else is built.
    for package in SHIPPED {
        let mut tree = workspace::cargo();
        tree.args([
            "tree",
            "--locked",
            "--quiet",
            "--package",
            package,
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--format={p}",
            "--target",
            &arch.target(),
        ]);
        for line in capture::stdout(tree)?.lines().filter(|line| !line.is_empty()) {
            let identity = line.split_once(" v").and_then(|(name, rest)| {
                Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
            });
            linked.insert(identity.with_context(|| format!("cargo tree prints `{line}`"))?);
        }
    }
    Ok(linked)
}

fn metadata(arch: Arch) -> anyhow::Result<Metadata> {
    let mut command = workspace::cargo();
    command.args(["metadata", "--locked", "--format-version=1", "--filter-platform"]);
    command.arg(arch.target());
    MetadataCommand::parse(capture::stdout(command)?).context("failed to read cargo's metadata")
}

fn dependencies(metadata: &Metadata, of: &PackageId) -> BTreeSet<Identity> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let linked = nodes
        .filter(|node| node.id == *of)
        .flat_map(|node| &node.deps)
        .filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
    linked
        .map(|edge| &metadata[&edge.pkg])
        .map(|package| (package.name.to_string(), package.version.to_string()))
        .collect()
}

/// The part of `Cargo.lock` that is read here.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

fn checksums() -> anyhow::Result<BTreeMap<Identity, String>> {
    let path = workspace::root().join("Cargo.lock");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))?;
    let checksums = lock
        .package
        .into_iter()
        .filter_map(|package| Some(((package.name, package.version), package.checksum?)));
    Ok(checksums.collect())
}
