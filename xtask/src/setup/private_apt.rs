//! apt with its own state, separate from the machine's: it reads other suites from the machine's
//! Debian mirror.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use testbed::capture;

use crate::progress::Step;

/// The packages that this apt considers installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// None, for packages that are only fetched.
    Nothing,
    /// Those of the machine, for packages that are installed on it.
    HostPackages,
}

/// apt with sources, lists and a cache of its own.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// An apt that keeps its state in `state` and knows these suites of Debian for one architecture
    /// (as Debian names it).
    pub(crate) fn new(
        state: &Path,
        suites: &[String],
        architecture: &str,
        installed: Installed,
    ) -> anyhow::Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(folder))
                .with_context(|| format!("failed to create {}", state.join(folder).display()))?;
        }
        fs::write(state.join("sources.list"), sources(suites)?)
            .context("failed to write a list of sources")?;
        let at = |key: &str, name: &str| format!("{key}={}", state.join(name).display());
        let mut options =
            vec![at("Dir::Etc::sourcelist", "sources.list"), "Dir::Etc::sourceparts=-".to_owned()];
        options.extend([at("Dir::State::lists", "lists"), at("Dir::Cache", "cache")]);
        if installed == Installed::Nothing {
            fs::write(state.join("status"), "")
                .context("failed to write an empty package status")?;
            options.push(at("Dir::State::status", "status"));
        }
        // The cache may be in a folder that only this user can read.
        options.push("APT::Sandbox::User=root".to_owned());
        options.extend([
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
        ]);
        Ok(Self { options })
    }

    /// An apt that knows a suite's source packages instead.
    pub(crate) fn of_sources(state: &Path, suite: &str) -> anyhow::Result<Self> {
        // Sources are the same for all.
        let apt = Self::new(state, &[suite.to_owned()], "amd64", Installed::Nothing)?;
        let list = state.join("sources.list");
        let text = fs::read_to_string(&list).context("failed to read a list of sources")?;
        fs::write(&list, text.replace("deb [", "deb-src ["))
            .context("failed to write a list of sources")?;
        Ok(apt)
    }

    /// An apt command with this state.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q").args(self.options()).env("LC_ALL", "C");
        command
    }

    /// Reads the suites' lists.
    pub(crate) fn update(&self, step: &Step) -> anyhow::Result<()> {
        capture::run(self.command("apt-get").arg("update"), |line| step.note(line)).map(drop)
    }

    /// Fetches a package into a new folder inside `parent`, which is removed when the result is
    /// dropped.
    pub(crate) fn download(
        &self,
        package: &str,
        parent: &Path,
        step: &Step,
    ) -> anyhow::Result<TempDir> {
        let temporary =
            tempfile::tempdir_in(parent).context("failed to create a directory for a package")?;
        capture::run(
            self.command("apt-get").args(["download", package]).current_dir(temporary.path()),
            |line| step.note(line),
        )?;
        Ok(temporary)
    }

    /// The `-o` options that make any apt command use this state.
    pub(crate) fn options(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|option| ["-o", option])
    }
}

/// The code name of this machine's release, as its suites are named.
pub(crate) fn release() -> anyhow::Result<String> {
    codename(&fs::read_to_string("/etc/os-release").context("failed to read /etc/os-release")?)
}

fn codename(release: &str) -> anyhow::Result<String> {
    let value = |key: &str| {
        release.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()))
    };
    match (value("ID=").as_deref(), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (id, _) => bail!(
            "this needs a release of Debian, but the ID in /etc/os-release is {}",
            id.unwrap_or("missing")
        ),
    }
}

/// A list of sources with these suites of Debian, from the machine's mirror.
pub(crate) fn sources(suites: &[String]) -> anyhow::Result<String> {
    let sites = sites()?;
    suites.iter().map(|suite| source(&sites, suite)).collect()
}

/// The URLs of the machine's package sources, one a line.
fn sites() -> anyhow::Result<String> {
    capture::run(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]), |_| {})
        .context("failed to list apt's package sources (this needs Debian)")
}

/// The line of a list of sources for one suite of Debian.
fn source(sites: &str, suite: &str) -> anyhow::Result<String> {
    let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
    let site =
        site_of(sites, archive).context("none of this machine's package sources is Debian's")?;
    Ok(format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} {suite} main\n"
    ))
}

/// The URL of a Debian archive: the configured one, or else one next to another Debian archive of
/// this machine.
fn site_of(sites: &str, archive: &str) -> Option<String> {
    let mut named = sites
        .lines()
        .map(|site| site.trim_end_matches('/'))
        .filter(|site| site.contains("/debian"));
    let exact = named.clone().find(|site| site.rsplit('/').next() == Some(archive));
    exact.map(str::to_owned).or_else(|| {
        let mirror = named.next()?.rsplit_once("/debian")?.0;
        Some(format!("{mirror}/{archive}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codename_is_read_from_os_release() {
        assert_eq!(
            codename("NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n").unwrap(),
            "bookworm"
        );
        assert!(codename("ID=other\n").unwrap_err().to_string().ends_with("is other"));
    }

    #[test]
    fn a_configured_archive_is_used() {
        let sites = "http://mirror.test/debian\nhttp://security.test/debian-security/\n\
                     https://vendor.test/apt\n";
        assert_eq!(site_of(sites, "debian").as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(
            site_of(sites, "debian-security").as_deref(),
            Some("http://security.test/debian-security")
        );
    }

    #[test]
    fn a_missing_archive_is_assumed_next_to_a_configured_one() {
        assert_eq!(
            site_of("http://mirror.test/debian\n", "debian-security").as_deref(),
            Some("http://mirror.test/debian-security")
        );
        assert_eq!(site_of("https://vendor.test/apt\n", "debian"), None);
    }
}
