//! Small artefacts, made without a network: a container image and a Python wheel.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::packages;
use crate::process;

/// The package's name for pip, and its module's name.
pub const PACKAGE: (&str, &str) = ("hello-company", "hello_company");
/// What the module's `hello()` returns.
pub const PACKAGE_GREETING: &str = "hello from the private registry";
/// These tools take milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Writes an OCI image layout into `folder`: one layer with one file. Returns the digest of the
/// image's configuration, which identifies the image however a registry compresses the layer.
pub fn image(folder: &Path) -> Result<String> {
    let (blobs, content) = (folder.join("blobs/sha256"), folder.join("content"));
    for path in [&blobs, &content] {
        fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
    }
    write(&content.join("hello.txt"), "hello from an image of company.net\n")?;
    let layer = folder.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(&layer)
        .arg("-C")
        .arg(&content)
        .arg(".");
    process::finish(tar, LIMIT)?.success().context("failed to pack the image's layer with tar")?;

    let (layer, layer_size) =
        blob(&blobs, &fs::read(&layer).context("failed to read the image's layer")?)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created_by": "redirector's test bed" }],
    });
    let (config, config_size) = blob(&blobs, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{config}"),
            "size": config_size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer}"),
            "size": layer_size,
        }],
    });
    let (manifest, manifest_size) = blob(&blobs, manifest.to_string().as_bytes())?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{manifest}"),
            "size": manifest_size,
            "annotations": { "org.opencontainers.image.ref.name": "1.0" },
        }],
    });
    write(&folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    write(&folder.join("index.json"), &index.to_string())?;
    Ok(format!("sha256:{config}"))
}

/// The digest of the image configuration in the OCI layout `folder`, whose index has one image.
pub fn image_identity(folder: &Path) -> Result<String> {
    let read = |path: &Path| -> Result<serde_json::Value> {
        let text = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to parse {}", path.display()))
    };
    let index = read(&folder.join("index.json"))?;
    let digest = index["manifests"][0]["digest"].as_str().context("the index names no image")?;
    let manifest = read(&folder.join("blobs").join(digest.replace(':', "/")))?;
    Ok(manifest["config"]["digest"]
        .as_str()
        .context("the manifest names no configuration")?
        .to_owned())
}

/// Writes a wheel of [`PACKAGE`] into `folder`.
pub fn wheel(folder: &Path) -> Result<()> {
    let (name, module) = PACKAGE;
    let (tree, info) = (folder.join("tree"), format!("{module}-1.0.dist-info"));
    fs::create_dir_all(tree.join(&info))
        .with_context(|| format!("failed to make {}", tree.display()))?;
    write(
        &tree.join(format!("{module}.py")),
        &format!("def hello():\n    return {PACKAGE_GREETING:?}\n"),
    )?;
    write(
        &tree.join(&info).join("METADATA"),
        &format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
    )?;
    write(
        &tree.join(&info).join("WHEEL"),
        "Wheel-Version: 1.0\nGenerator: redirector\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )?;
    write(
        &tree.join(&info).join("RECORD"),
        &format!("{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
    )?;
    let mut zip = Command::new(packages::python_tool("python")?);
    zip.args(["-m", "zipfile", "-c"])
        .arg(folder.join(format!("{module}-1.0-py3-none-any.whl")))
        .args([&format!("{module}.py"), &info]);
    zip.current_dir(&tree);
    process::finish(zip, LIMIT)?.success().context("failed to pack a wheel")?;
    fs::remove_dir_all(&tree).with_context(|| format!("failed to remove {}", tree.display()))
}

/// Stores `bytes` under their SHA-256; returns it in hex, and their number.
fn blob(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let sum = process::finish_with_input(Command::new("sha256sum"), bytes, LIMIT)?
        .success()
        .context("failed to run sha256sum")?;
    let digest = sum.stdout.split(' ').next().unwrap_or_default().to_owned();
    let path = blobs.join(&digest);
    fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
    Ok((digest, bytes.len()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
