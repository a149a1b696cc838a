//! Debian packages: which of them apt knows, and their installation in one call.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use testbed::{capture, packages, workspace};

use super::{
    needs::{Package, names},
    private_apt::{self, Apt, Installed},
};
use crate::progress::Step;

/// How long to wait for another user of apt or dpkg.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `apt-get "$@"` without starting the services of new packages, neither now (by Debian's
/// policy-rc.d during the call, unless the machine has one) nor at boot.
const QUIETLY: &str = r#"
services=$1; shift
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
apt-get "$@" || exit
if [ -d /run/systemd/system ] && [ -n "$services" ]; then systemctl disable --quiet $services; fi
"#;

/// The age of apt's package lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    /// Fetched at an unknown time, or never.
    AsFound,
    /// Fetched by this run.
    Fresh,
}

/// Whether this machine uses apt.
pub(crate) fn present() -> bool {
    packages::is_installed("apt-get") && Path::new("/var/lib/dpkg").is_dir()
}

/// The packages that have no candidate in apt's lists.
pub(crate) fn unknown<'a>(packages: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    let output = capture::run(
        Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C"),
        |_| {},
    )?;
    Ok(packages.iter().copied().filter(|package| !has_candidate(&output, package)).collect())
}

fn has_candidate(policy: &str, package: &str) -> bool {
    let mut lines = policy
        .lines()
        .skip_while(|line| line.strip_suffix(':') != Some(package))
        .skip(1)
        .take_while(|line| line.starts_with(' '));
    lines.any(|line| {
        line.trim().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)")
    })
}

/// Fetches the lists of the sources that the machine is set up with.
pub(crate) fn update() -> anyhow::Result<()> {
    let step = Step::start("apt-get update");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let finished =
            capture::capture(&mut privileged(&["apt-get", "update"])?, |line| step.note(line))?;
        // The lists have a lock of their own, which `DPkg::Lock::Timeout` does not wait for.
        let busy = finished.output.contains("Could not get lock");
        if finished.status.success() {
            step.done();
            return Ok(());
        }
        if !busy || Instant::now() > deadline {
            step.failed();
            bail!("apt-get update failed ({}):\n{}", finished.status, finished.output.trim_end());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Installs packages in one call. Stale lists are fetched again, unless they are fresh.
/// Packages that conflict with installed ones come from the backports of the release.
pub(crate) fn install(packages: &[Package], lists: Lists) -> anyhow::Result<()> {
    let result = match install_once(packages, None) {
        Err(error) if lists == Lists::AsFound && is_stale(&error) => {
            update()?;
            install_once(packages, None)
        }
        result => result,
    };
    match result {
        Err(error) if is_conflict(&error) => install_separately(packages, &error),
        result => result,
    }
}

/// Installs what fits, and the rest from backports: one conflicting package must not prevent the
/// others.
fn install_separately(packages: &[Package], refusal: &anyhow::Error) -> anyhow::Result<()> {
    let (stuck, free): (Vec<_>, Vec<_>) =
        packages.iter().copied().partition(|package| !fits(package.name));
    if stuck.is_empty() {
        bail!(
            "{refusal:#}\neach of these packages can be installed alone, but their \
                dependencies conflict"
        );
    }
    eprintln!("setup: {} would remove packages of this machine", names(&stuck).join(", "));
    let installed = if free.is_empty() { Ok(()) } else { install_once(&free, None) };
    install_from_backports(&stuck)?;
    installed
}

/// Whether apt would install the package without removing others.
fn fits(name: &str) -> bool {
    let words = ["--simulate", "install", "-y", "--no-install-recommends", "--no-remove", name];
    capture::capture(Command::new("apt-get").args(words).env("LC_ALL", "C"), |_| {})
        .is_ok_and(|finished| finished.status.success())
}

/// Installs packages whose version in the machine's sources would remove others, because the
/// machine has these from backports (an image built with them, for example).
fn install_from_backports(packages: &[Package]) -> anyhow::Result<()> {
    let names = names(packages);
    let release = private_apt::release().with_context(|| {
        format!("{} cannot be installed beside the packages of this machine", names.join(", "))
    })?;
    let backports = format!("{release}-backports");
    eprintln!(
        "setup: trying {} of {backports}, without changing this machine's sources",
        names.join(", ")
    );
    let suites = [
        release.clone(),
        format!("{release}-updates"),
        format!("{release}-security"),
        backports.clone(),
    ];
    let state = workspace::tools_dir().join(format!("apt-{backports}"));
    let apt = Apt::new(&state, &suites, &architecture()?, Installed::HostPackages)?;
    let step = Step::start(format!("apt-get update, with {backports}"));
    apt.update(&step).with_context(|| format!("failed to read the lists of {backports}"))?;
    step.done();
    install_once(packages, Some((&apt, &backports)))
}

fn architecture() -> anyhow::Result<String> {
    Ok(capture::run(Command::new("dpkg").arg("--print-architecture"), |_| {})?.trim().to_owned())
}

fn install_once(packages: &[Package], from: Option<(&Apt, &str)>) -> anyhow::Result<()> {
    let names = names(packages);
    let services: Vec<_> = packages.iter().filter_map(|package| package.service()).collect();
    let lock_timeout = format!("DPkg::Lock::Timeout={}", PATIENCE.as_secs());
    let services = services.join(" ");
    let mut words = vec![
        "sh",
        "-c",
        QUIETLY,
        "apt-get",
        &services,
        "install",
        "-y",
        "--no-install-recommends",
        "--no-remove",
    ];
    words.extend(["-o", &lock_timeout, "-o", "Dpkg::Use-Pty=0"]);
    if let Some((apt, suite)) = from {
        words.extend(apt.options());
        words.extend(["--target-release", suite]);
    }
    words.extend(&names);
    let mut command = privileged(&words)
        .with_context(|| format!("failed to install packages: `{}` does it", by_hand(&names)))?;

    let source = from.map(|(_, suite)| format!(" from {suite}")).unwrap_or_default();
    let step = Step::start(format!("installing {} by apt-get{source}", count(names.len())));
    let finished = capture::capture(&mut command, |line| step.note(line))?;
    if !finished.status.success() {
        step.failed();
        bail!(
            "`{}`{source} failed ({}):\n{}",
            by_hand(&names),
            finished.status,
            finished.output.trim_end()
        );
    }
    step.done();
    Ok(())
}

/// The same as a command for a user.
pub(crate) fn by_hand(names: &[&str]) -> String {
    format!("sudo apt-get install -y --no-install-recommends {}", names.join(" "))
}

/// `1 package`, `2 packages`.
pub(crate) fn count(packages: usize) -> String {
    format!("{packages} package{}", if packages == 1 { "" } else { "s" })
}

fn is_stale(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("404 ")
        || text.contains("Unable to fetch some archives")
        || text.contains("Unable to locate package")
}

/// Whether apt refused because the packages conflict with installed ones.
fn is_conflict(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("Packages need to be removed but remove is disabled")
        || text.contains("have unmet dependencies")
}

/// A command as root: directly, or by sudo, which may ask for a password on a terminal.
fn privileged(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(words[0])
    } else {
        let asked = packages::is_installed("sudo")
            && Command::new("sudo")
                .arg("--validate")
                .stdin(Stdio::inherit())
                .status()
                .is_ok_and(|status| status.success());
        if !asked {
            bail!("installing packages needs root: run this as root, or with a working sudo");
        }
        let mut command = Command::new("sudo");
        command.args([
            "--non-interactive",
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "LC_ALL=C",
            words[0],
        ]);
        command
    };
    command.args(&words[1..]).envs([("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C")]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_distinguished_from_a_failed_download() {
        let removal = anyhow::anyhow!(
            "The following packages will be REMOVED:\n  qemu-utils\nE: Packages need to be removed \
                but remove is disabled."
        );
        let download =
            anyhow::anyhow!("E: Failed to fetch http://mirror.test/x.deb  404  Not Found");
        assert!(is_conflict(&removal) && !is_stale(&removal));
        assert!(is_stale(&download) && !is_conflict(&download));
    }

    #[test]
    fn a_package_without_a_candidate_is_unknown() {
        let policy = "here:\n  Installed: (none)\n  Candidate: 1.2-3\n  Version table:\ngone:\n  \
            Installed: (none)\n  Candidate: (none)\n";
        assert!(has_candidate(policy, "here"));
        assert!(!has_candidate(policy, "gone"));
        assert!(!has_candidate(policy, "never-heard-of"));
    }
}
