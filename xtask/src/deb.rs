//! `cargo xtask deb`: the Debian package, from `package.metadata.deb` of `redirector` and the files
//! that are made here: manual pages and completions from the binary itself, the unit and the
//! configuration from `deploy/`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use testbed::{capture, workspace};

use crate::{
    arch::Arch,
    build,
    progress::{Step, seconds},
    sbom,
    setup::{self, cargo_tools, needs::Group},
};

/// Arguments of `cargo xtask deb`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Package this binary instead of the static release binary
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Builds the package, and prints its path and size.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    setup::ensure(&[Group::Package])?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build::ensure()?,
    };
    let package = package(&binary)?;
    let size = fs::metadata(&package)
        .with_context(|| format!("failed to read the size of {}", package.display()))?
        .len();
    eprintln!("{}: {} kB ({})", package.display(), size / 1000, seconds(started.elapsed()));
    Ok(())
}

/// The package of the release binary, for the tests.
pub(crate) fn ensure_package() -> anyhow::Result<()> {
    setup::ensure(&[Group::Package])?;
    package(&build::ensure()?).map(drop)
}

fn package(binary: &Path) -> anyhow::Result<PathBuf> {
    let step = Step::start("building the Debian package");
    stage(binary)?;
    let package = workspace::debian_package();
    let folder = package.parent().context("the package's path has no directory")?;
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let mut command = Command::new(cargo_tools::DEB.path());
    workspace::clean(&mut command);
    command
        .current_dir(workspace::root())
        .args(["--no-build", "--no-strip", "--locked", "--quiet"])
        .args(["--package", "redirector", "--output"])
        .arg(&package);
    capture::run(&mut command, |line| step.note(line)).context("failed to build the package")?;
    step.done();
    Ok(package)
}

/// Puts the files where the assets of `package.metadata.deb` name them.
fn stage(binary: &Path) -> anyhow::Result<()> {
    let published = workspace::release_binary();
    let release = published.parent().context("the binary's path has no directory")?;
    let folder = release.join("deb");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    if fs::canonicalize(binary).ok() != fs::canonicalize(&published).ok() {
        // It may be a hard link to what cargo built.
        let _ = fs::remove_file(&published);
        fs::copy(binary, &published)
            .with_context(|| format!("failed to copy {}", binary.display()))?;
    }
    generate(binary, &["man".as_ref(), folder.join("man").as_os_str()])?;
    compress(&folder.join("man"))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = generate(binary, &["completions".as_ref(), shell.as_ref()])?;
        write(&folder.join(shell), &script)?;
    }
    sbom::write(Arch::HOST, &folder)?;
    write(&folder.join("redirector.service"), &unit(&deployed("redirector.service")?)?)?;
    write(&folder.join("redirector.toml"), &configuration(&deployed("redirector.toml")?)?)
}

/// What the binary prints about itself.
fn generate(binary: &Path, arguments: &[&OsStr]) -> anyhow::Result<String> {
    let mut command = Command::new(binary);
    command.args(arguments);
    capture::stdout(command)
}

/// Compresses the manual pages as Debian does; cargo-deb leaves them.
fn compress(folder: &Path) -> anyhow::Result<()> {
    let pages =
        fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let pages: Vec<_> = pages.flatten().map(|page| page.path()).collect();
    capture::run(Command::new("gzip").arg("-9n").args(pages), |_| {}).map(drop)
}

fn deployed(name: &str) -> anyhow::Result<String> {
    let path = workspace::root().join("deploy").join(name);
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The unit with the package's paths, and the group that its sysusers.d makes.
fn unit(shipped: &str) -> anyhow::Result<String> {
    let (_, unit) = shipped.split_once("[Unit]\n").context("the unit has no [Unit]")?;
    let unit = unit.replace("/usr/local/bin/", "/usr/bin/");
    let group = "Type=notify\n# Its members may use the control socket.\nGroup=redirector\n";
    let packaged = unit.replacen("Type=notify\n", group, 1);
    ensure!(packaged.contains("Group="), "the unit has no Type=notify");
    Ok(format!("[Unit]\nDocumentation=man:redirector(1)\n{packaged}"))
}

/// The configuration without the route of the example.
fn configuration(shipped: &str) -> anyhow::Result<String> {
    let (before, route) = shipped.split_once("[[routes]]\n").context("no [[routes]]")?;
    let (route, rest) = route.split_once("\n\n").context("nothing follows the route")?;
    let lines = route.lines().map(|line| match line.starts_with('#') {
        true => format!("{line}\n"),
        false => format!("# {line}\n"),
    });
    Ok(format!("{before}# [[routes]]\n{}\n{rest}", lines.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_configuration_has_no_route() {
        let text = configuration(&deployed("redirector.toml").unwrap()).unwrap();
        let settings: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!settings.iter().any(|line| line.contains("routes") || line.contains("source")));
        assert!(settings.contains(&"wildcards = \"one_label\"") && settings.contains(&"[agent]"));
        assert!(text.contains("# source      = \"artifactory.internal.company.net\"\n"), "{text}");
    }

    #[test]
    fn the_packaged_unit_runs_the_packaged_binary() {
        let unit = unit(&deployed("redirector.service").unwrap()).unwrap();
        assert!(unit.contains("\nExecStart=/usr/bin/redirector run\n"), "{unit}");
        assert!(unit.contains("\nGroup=redirector\n") && !unit.contains("/usr/local"), "{unit}");
    }
}
