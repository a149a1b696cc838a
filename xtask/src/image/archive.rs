//! Reads an archive of images (OCI).

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testbed::capture;

/// The largest image, in compressed bytes.
const LARGEST: u64 = 10_000_000;

/// An image of an archive.
#[derive(Debug)]
pub(super) struct Image {
    /// As Debian names it.
    pub(super) architecture: String,
    /// What a node downloads, in bytes.
    pub(super) size: u64,
}

/// The digest of an archive's image or index.
pub(crate) fn digest(archive: &Path) -> anyhow::Result<String> {
    let digest = first(archive)?["digest"].as_str().map(str::to_owned);
    digest.context("the archive's index has no digest")
}

/// The images of an archive, which has one or an index of several; none may be too large.
pub(super) fn images(archive: &Path) -> anyhow::Result<Vec<Image>> {
    let first = first(archive)?;
    let content = blob(archive, &first)?;
    let images: Vec<Image> = match content["manifests"].as_array() {
        Some(manifests) => {
            let images = manifests.iter().map(|at| image(archive, &blob(archive, at)?));
            images.collect::<anyhow::Result<_>>()?
        }
        None => vec![image(archive, &content)?],
    };
    for Image { architecture, size } in &images {
        ensure!(
            *size <= LARGEST,
            "the image for {architecture} has {size} bytes, and may have {LARGEST}"
        );
    }
    Ok(images)
}

/// The one entry of the archive's own index.
fn first(archive: &Path) -> anyhow::Result<Value> {
    Ok(read(archive, "index.json")?["manifests"][0].clone())
}

fn image(archive: &Path, manifest: &Value) -> anyhow::Result<Image> {
    let config = blob(archive, &manifest["config"])?;
    let layers = manifest["layers"].as_array().context("a manifest has no layers")?;
    let parts = layers.iter().chain([&manifest["config"]]);
    let sizes: Option<Vec<u64>> = parts.map(|part| part["size"].as_u64()).collect();
    Ok(Image {
        architecture: config["architecture"]
            .as_str()
            .context("an image has no platform")?
            .to_owned(),
        size: sizes.context("a part of an image has no size")?.iter().sum(),
    })
}

/// What a descriptor refers to.
fn blob(archive: &Path, descriptor: &Value) -> anyhow::Result<Value> {
    let digest = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    read(archive, &format!("blobs/{}", digest.replace(':', "/")))
}

fn read(archive: &Path, file: &str) -> anyhow::Result<Value> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--to-stdout", "--file"]).arg(archive).arg(file);
    let text = capture::run(&mut tar, |_| {})
        .with_context(|| format!("failed to read {file} of {}", archive.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{file} of the archive is not JSON"))
}
