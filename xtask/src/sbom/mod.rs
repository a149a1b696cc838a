//! `cargo xtask sbom`: what the released binary contains, as a CycloneDX document, and the licences
//! of those parts. The image and the Debian package carry both files.

mod cyclonedx;
mod licences;
mod parts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use testbed::workspace;

use self::parts::Parts;
use crate::arch::Arch;

/// The name of the CycloneDX document.
pub(crate) const DOCUMENT: &str = "sbom.cdx.json";

/// The name of the file of licences.
pub(crate) const LICENCES: &str = "THIRD-PARTY-LICENCES";

/// Arguments of `cargo xtask sbom`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The architecture of the binary [default: this machine's]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
}

/// Writes both files, and prints their paths.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = workspace::target_dir().join("sbom");
    for path in write(args.arch.unwrap_or(Arch::HOST), &folder)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Writes both files into a folder.
pub(crate) fn write(arch: Arch, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let parts = Parts::find(arch)?;
    let document = serde_json::to_string_pretty(&cyclonedx::document(&parts))
        .context("failed to write the document as JSON")?;
    let licences = licences::text(&parts)?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        anyhow::Ok(path)
    };
    Ok([write(DOCUMENT, &(document + "\n"))?, write(LICENCES, &licences)?])
}
