//! What the test bed needs on the machine, and where it is. `cargo xtask setup` installs it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::process;

/// Debian packages, each with a program that shows whether it is there.
pub const DEBIAN: &[(&str, &str)] = &[
    ("iproute2", "ip"),
    ("nftables", "nft"),
    ("util-linux", "nsenter"),
    ("haproxy", "haproxy"),
    ("nsd", "nsd"),
    ("nginx-light", "nginx"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("curl", "curl"),
    ("ca-certificates", "update-ca-certificates"),
    ("bind9-dnsutils", "dig"),
    ("python3-venv", "python3"),
];

/// PyPI packages of the test bed's Python environment, [`venv`]. pip itself comes with it, and is the demo's real pip.
pub const PYPI: &[&str] = &["pypiserver==2.4.2"];

/// npm packages: none yet.
pub const NPM: &[&str] = &[];

/// Where programs are, whatever PATH says: a person's PATH on Debian lacks the sbin folders.
const FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Longest time pip may take.
const PIP_LIMIT: Duration = Duration::from_secs(300);

/// The Debian packages that are missing here.
pub fn missing_debian() -> Vec<&'static str> {
    DEBIAN.iter().filter(|(_, program)| find(program).is_none()).map(|(package, _)| *package).collect()
}

/// A command for `program`, which is to be run by its absolute path; the error names the package that has it.
pub fn tool(program: &str) -> Result<Command> {
    Ok(Command::new(path_of(program)?))
}

/// The absolute path of `program`; the error names the package that has it.
pub fn path_of(program: &str) -> Result<PathBuf> {
    let Some(path) = find(program) else {
        let package = DEBIAN.iter().find(|(_, known)| *known == program).map_or(program, |(package, _)| package);
        bail!("{program} is not installed: run `cargo xtask setup`, or `apt-get install {package}`");
    };
    Ok(path)
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory: CARGO_TARGET_DIR, else `target` in the workspace.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where cargo was started, which for `cargo xtask` is where we were.
        Some(path) => std::path::absolute(&path).unwrap_or_else(|_| path.into()),
        None => workspace().join("target"),
    }
}

/// The test bed's Python environment, with pip and [`PYPI`].
pub fn venv() -> PathBuf {
    target_dir().join("testbed").join("venv")
}

/// Makes [`venv`] when it is not there or not the one we need; says so through `say` before it starts. Safe to run twice at once.
pub fn ensure_venv(say: &dyn Fn(&str)) -> Result<()> {
    let (venv, wanted) = (venv(), PYPI.join(" "));
    let marker = venv.join("complete");
    let folder = venv.parent().unwrap_or(&venv);
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let lock = File::create(folder.join("venv.lock")).context("failed to make the lock of the Python environment")?;
    flock(&lock, FlockOperation::LockExclusive).context("failed to lock the Python environment")?;
    if fs::read_to_string(&marker).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    say(&format!("making a Python environment with {wanted} in {}", venv.display()));
    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("failed to remove {}", venv.display()))?;
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    process::finish(make, PIP_LIMIT)
        .and_then(process::Finished::success)
        .context("failed to make a Python environment: is python3-venv installed? (`apt-get install python3-venv`)")?;
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]).args(PYPI);
    process::finish(install, PIP_LIMIT)
        .and_then(process::Finished::success)
        .with_context(|| format!("failed to install {wanted} by pip: is a PyPI index reachable?"))?;
    fs::write(&marker, wanted).with_context(|| format!("failed to write {}", marker.display()))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = FOLDERS.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package_and_the_command_that_installs_it() {
        let error = path_of("no-such-program").unwrap_err().to_string();
        assert!(error.contains("cargo xtask setup") && error.contains("apt-get install no-such-program"), "{error}");
    }
}
