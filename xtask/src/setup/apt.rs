//! Debian packages: which are known, and installing them in one call.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::needs::Package;
use crate::{exec, progress::Step};

/// How long to wait for another user of apt or dpkg.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `apt-get "$@"` with the services of new packages neither started now (by Debian's own policy-rc.d, for as long as the call takes, unless
/// the machine has one) nor at boot.
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

/// Whether this is a machine of apt's.
pub(crate) fn present() -> bool {
    exec::on_path("apt-get") && Path::new("/var/lib/dpkg").is_dir()
}

/// Whether the lists of the machine's sources were ever fetched; container images come without.
pub(crate) fn has_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

/// The packages that apt would find nothing for, as its lists stand.
pub(crate) fn unknown<'a>(packages: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    let output = exec::run(Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C"), |_| {})?;
    Ok(packages.iter().copied().filter(|package| !has_candidate(&output, package)).collect())
}

fn has_candidate(policy: &str, package: &str) -> bool {
    let mut lines =
        policy.lines().skip_while(|line| line.strip_suffix(':') != Some(package)).skip(1).take_while(|line| line.starts_with(' '));
    lines.any(|line| line.trim().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)"))
}

/// Fetches the lists of the sources that the machine is set up with.
pub(crate) fn update() -> anyhow::Result<()> {
    let step = Step::start("apt-get update");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let finished = exec::capture(&mut privileged(&["apt-get", "update"])?, |line| step.note(line))?;
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

/// Installs packages in one call. The lists are fetched first when they do not know a package, and anew when they turn out to be stale.
pub(crate) fn install(packages: &[Package]) -> anyhow::Result<()> {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let mut updated = false;
    if !unknown(&names)?.is_empty() {
        update()?;
        updated = true;
        let unknown = unknown(&names)?;
        if !unknown.is_empty() {
            bail!("apt knows no package {}: are the distribution's updates and security suites among its sources?", unknown.join(", "));
        }
    }
    match install_once(packages, &names) {
        Err(error) if !updated && is_stale(&error) => {
            update()?;
            install_once(packages, &names)
        }
        result => result,
    }
}

fn install_once(packages: &[Package], names: &[&str]) -> anyhow::Result<()> {
    let services: Vec<_> = packages.iter().filter_map(|package| package.service()).collect();
    let lock_timeout = format!("DPkg::Lock::Timeout={}", PATIENCE.as_secs());
    let services = services.join(" ");
    let mut words = vec!["sh", "-c", QUIETLY, "apt-get", &services, "install", "-y", "--no-install-recommends", "--no-remove"];
    words.extend(["-o", &lock_timeout, "-o", "Dpkg::Use-Pty=0"]);
    words.extend(names);
    let mut command = privileged(&words).with_context(|| format!("failed to install packages: `{}` would", by_hand(names)))?;

    let step = Step::start(format!("installing {} by apt-get", count(names.len())));
    let finished = exec::capture(&mut command, |line| step.note(line))?;
    if !finished.status.success() {
        step.failed();
        bail!("`{}` failed ({}):\n{}", by_hand(names), finished.status, finished.output.trim_end());
    }
    step.done();
    Ok(())
}

/// The command that a person would type for the same.
pub(crate) fn by_hand(names: &[&str]) -> String {
    format!("sudo apt-get install -y --no-install-recommends {}", names.join(" "))
}

/// `1 package`, `2 packages`.
pub(crate) fn count(packages: usize) -> String {
    format!("{packages} package{}", if packages == 1 { "" } else { "s" })
}

fn is_stale(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("404 ") || text.contains("Unable to fetch some archives") || text.contains("Unable to locate package")
}

/// A command as root: directly, or by sudo, which may ask for a password on a terminal.
fn privileged(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(words[0])
    } else {
        let asked = exec::on_path("sudo")
            && Command::new("sudo").arg("--validate").stdin(Stdio::inherit()).status().is_ok_and(|status| status.success());
        if !asked {
            bail!("installing packages takes root: run this as root, or with a sudo that works");
        }
        let mut command = Command::new("sudo");
        command.args(["--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", words[0]]);
        command
    };
    command.args(&words[1..]).envs([("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C")]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_unknown() {
        let policy = "here:\n  Installed: (none)\n  Candidate: 1.2-3\n  Version table:\ngone:\n  Installed: (none)\n  Candidate: (none)\n";
        assert!(has_candidate(policy, "here"));
        assert!(!has_candidate(policy, "gone"));
        assert!(!has_candidate(policy, "never-heard-of"));
    }
}
