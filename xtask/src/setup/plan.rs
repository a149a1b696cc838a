//! What is missing on this machine, and its installation.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use super::{
    apt::{self, Lists},
    cargo_tools::{self, CargoTool},
    debian_root,
    needs::{self, Group, Package, names},
    python, toolchain, unpacked,
};
use crate::progress::Step;

/// What is missing, by installer.
#[derive(Debug, Default)]
pub(super) struct Plan {
    packages: Vec<Package>,
    components: Vec<&'static str>,
    nightly: bool,
    /// Why the BPF toolchain is incomplete.
    toolchain: Option<String>,
    python: Vec<python::Environment>,
    cargo_tools: Vec<CargoTool>,
    debian_root: bool,
    /// Packages that are unpacked instead of installed.
    unpacked: Vec<&'static str>,
}

impl Plan {
    pub(super) fn make(groups: &[Group], lists: Lists) -> anyhow::Result<Self> {
        let missing =
            |package: &Package| groups.contains(&package.group) && !package.probe.present();
        let mut plan =
            Self { packages: needs::packages().filter(missing).collect(), ..Self::default() };
        if groups.contains(&Group::Toolchain) {
            plan.need_toolchain(lists)?;
        }
        plan.cargo_tools = cargo_tools::missing(groups);
        plan.debian_root =
            groups.contains(&Group::Package) && apt::present() && !debian_root::present();
        plan.unpacked = if apt::present() { unpacked::missing(groups) } else { vec![] };
        if groups.contains(&Group::Tests) {
            plan.components = missing_components();
            plan.python = python::missing();
            if !plan.python.is_empty()
                && apt::present()
                && !plan.packages.iter().any(|package| package.name == needs::PYTHON_VENV.name)
                && !python::can_make()
            {
                plan.packages.push(needs::PYTHON_VENV);
            }
        }
        Ok(plan)
    }

    fn need_toolchain(&mut self, lists: Lists) -> anyhow::Result<()> {
        let Err(problem) = toolchain::find() else { return Ok(()) };
        if env::var_os(toolchain::LINKER_OVERRIDE).is_some_and(|path| !path.is_empty())
            && toolchain::find_pair().is_ok()
        {
            return Err(problem);
        }
        if toolchain::find_pair().is_err() {
            let apt = apt::present()
                .then(|| apt::unknown(&names(needs::DISTRIBUTION_COMPILER)))
                .transpose()?;
            match Source::of_compiler(
                apt.map(|unknown| unknown.is_empty()),
                lists,
                toolchain::has_shared_llvm(),
            ) {
                Source::Distribution => self.packages.extend(needs::DISTRIBUTION_COMPILER),
                Source::Nightly => self.nightly = true,
                Source::None => return Err(problem.context(toolchain::no_source())),
            }
        }
        self.toolchain = Some(format!("{problem:#}"));
        Ok(())
    }

    /// Whether apt's lists have to be fetched first: they lack some of the packages.
    pub(super) fn wants_lists(&self) -> anyhow::Result<bool> {
        Ok(!self.packages.is_empty()
            && apt::present()
            && !apt::unknown(&names(&self.packages))?.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packages.is_empty()
            && self.components.is_empty()
            && !self.nightly
            && self.toolchain.is_none()
            && self.python.is_empty()
            && self.cargo_tools.is_empty()
            && !self.debian_root
            && self.unpacked.is_empty()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.packages.is_empty() {
            let names: Vec<_> = self.packages.iter().map(|package| package.name).collect();
            lines.push(format!(
                "{}: {} (their services are not started)",
                apt::count(names.len()),
                names.join(" ")
            ));
        }
        if !self.components.is_empty() {
            lines.push(format!("by rustup: {}", self.components.join(", ")));
        }
        if self.nightly {
            lines.push("by rustup: the nightly toolchain with rust-src".to_owned());
        }
        if let Some(problem) = &self.toolchain {
            lines.push(format!(
                "bpf-linker {}, built by cargo in about half a minute, since {problem}",
                toolchain::LINKER_VERSION
            ));
        }
        lines.extend(self.cargo_tools.iter().map(|tool| tool.description()));
        if self.debian_root {
            lines.push(format!(
                "a minimal Debian with systemd and Docker (560 MB) in {}, by mmdebstrap",
                workspace::debian_root().display()
            ));
        }
        if !self.unpacked.is_empty() {
            lines.push(format!(
                "unpacked below {}, not installed: {}",
                workspace::tools_dir().display(),
                self.unpacked.join(", ")
            ));
        }
        lines.extend(self.python.iter().map(python::Environment::description));
        lines
    }

    pub(super) fn install(&self, lists: Lists) -> anyhow::Result<()> {
        if !self.packages.is_empty() {
            if !apt::present() {
                let programs: Vec<_> = self.packages.iter().map(|package| package.name).collect();
                bail!(
                    "this machine has no apt: install the equivalents of these Debian \
                        packages: {}",
                    programs.join(", ")
                );
            }
            let unknown = apt::unknown(&names(&self.packages))?;
            if !unknown.is_empty() {
                bail!(
                    "apt knows no package {}: are the distribution's updates and security suites \
                        among its sources?",
                    unknown.join(", ")
                );
            }
            apt::install(&self.packages, lists)?;
        }
        if !self.components.is_empty() {
            rustup(&["component", "add"], &self.components)?;
        }
        if self.nightly {
            rustup(
                &["toolchain", "install", "nightly", "--profile", "minimal", "--component"],
                &["rust-src"],
            )?;
        }
        if self.toolchain.is_some() {
            let pair = toolchain::find_pair()
                .context("no BPF toolchain: `cargo xtask setup toolchain` could not complete it")?;
            toolchain::install_linker(&pair.llvm)?;
        }
        self.python.iter().try_for_each(python::Environment::install)?;
        self.cargo_tools.iter().try_for_each(|tool| tool.install())?;
        if self.debian_root {
            debian_root::install()?;
        }
        self.unpacked.iter().try_for_each(|package| unpacked::install(package))?;
        Ok(())
    }
}

/// The source of a compiler for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Debian's packages, which depend on the shared LLVM for bpf-linker.
    Distribution,
    /// rustup's nightly, whose own LLVM cannot be used by bpf-linker.
    Nightly,
    None,
}

impl Source {
    /// `apt_knows`: whether apt's lists have the distribution's compiler, on a machine with apt.
    /// Lists that were not just fetched may be older than the compiler; until they are fetched it
    /// is assumed to exist. A nightly is useful only where the machine has an LLVM to link with.
    fn of_compiler(apt_knows: Option<bool>, lists: Lists, shared_llvm: bool) -> Self {
        match apt_knows {
            Some(true) => Self::Distribution,
            Some(false) if lists == Lists::AsFound => Self::Distribution,
            Some(false) | None if shared_llvm => Self::Nightly,
            Some(false) | None => Self::None,
        }
    }
}

/// rustfmt and clippy, where the running toolchain lacks them.
fn missing_components() -> Vec<&'static str> {
    let Some(bin) =
        env::var_os("CARGO").and_then(|cargo| Path::new(&cargo).parent().map(Path::to_path_buf))
    else {
        return Vec::new();
    };
    // Only beside cargo: rustup puts a proxy of each on the PATH, whether the toolchain has it or
    // not.
    let programs = [("rustfmt", "rustfmt"), ("cargo-clippy", "clippy")];
    programs
        .into_iter()
        .filter(|(program, _)| !bin.join(program).is_file())
        .map(|(_, component)| component)
        .collect()
}

fn rustup(words: &[&str], last: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("rustup");
    command.args(words).args(last);
    let step = Step::start(capture::command_line(&command));
    capture::run(&mut command, |line| step.note(line)).with_context(|| {
        format!("failed to install by rustup: `{}` does it", capture::command_line(&command))
    })?;
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_missing_in_old_lists_is_looked_up_in_fresh_ones() {
        assert_eq!(Source::of_compiler(Some(false), Lists::AsFound, false), Source::Distribution);
        assert_eq!(Source::of_compiler(Some(false), Lists::AsFound, true), Source::Distribution);
        assert_eq!(Source::of_compiler(Some(true), Lists::Fresh, false), Source::Distribution);
    }

    #[test]
    fn a_nightly_is_installed_only_where_bpf_linker_can_be_built() {
        assert_eq!(Source::of_compiler(Some(false), Lists::Fresh, true), Source::Nightly);
        assert_eq!(Source::of_compiler(None, Lists::AsFound, true), Source::Nightly);
        assert_eq!(Source::of_compiler(Some(false), Lists::Fresh, false), Source::None);
        assert_eq!(Source::of_compiler(None, Lists::AsFound, false), Source::None);
    }
}
