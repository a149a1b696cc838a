//! `cargo xtask setup`: what the other tasks need, found without asking a package manager, and installed when it is missing.
//!
//! On Debian by apt, in one call; elsewhere only Rust's own tools by rustup, and the rest is named. Every other task calls [`ensure`].

mod apt;
pub(crate) mod aside;
pub(crate) mod needs;
mod python;
pub(crate) mod toolchain;

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, bail};

use self::needs::{Group, Package};
use crate::{exec, lock, progress::Step};
use xtask::{testbed, workspace};

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only list what is missing; exit 1 when something is
    #[arg(long)]
    check: bool,
    /// What to prepare for; everything when left out
    #[arg(value_enum)]
    groups: Vec<Group>,
}

/// Runs the task; whether nothing is missing any more.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let groups = if args.groups.is_empty() { &needs::ALL[..] } else { &args.groups };
    if args.check {
        let plan = Plan::make(groups)?;
        plan.lines().iter().for_each(|line| println!("{line}"));
        return Ok(plan.is_empty());
    }
    if ensure(groups)? {
        eprintln!("setup: done");
    } else {
        eprintln!("setup: nothing is missing");
    }
    Ok(true)
}

/// Installs what is missing for these groups, saying first what; whether there was anything to install.
pub(crate) fn ensure(groups: &[Group]) -> anyhow::Result<bool> {
    if Plan::make(groups)?.is_empty() {
        return Ok(false);
    }
    let _lock = lock::acquire(&workspace::tools_dir().join("setup.lock"))?;
    // Whoever held the lock may have installed it.
    let mut plan = Plan::make(groups)?;
    if plan.is_empty() {
        return Ok(false);
    }
    announce(&plan);
    if !plan.packages.is_empty() && apt::present() && !apt::has_lists() {
        apt::update()?;
        let known = Plan::make(groups)?;
        if known.nightly != plan.nightly {
            announce(&known);
        }
        plan = known;
    }
    plan.carry_out()?;
    let left = Plan::make(groups)?;
    if !left.is_empty() {
        bail!("still missing after setup:\n  {}", left.lines().join("\n  "));
    }
    Ok(true)
}

fn announce(plan: &Plan) {
    eprintln!("setup installs:");
    plan.lines().iter().for_each(|line| eprintln!("  {line}"));
}

/// What is missing, by who installs it.
#[derive(Debug, Default)]
struct Plan {
    packages: Vec<Package>,
    components: Vec<&'static str>,
    nightly: bool,
    /// Why the BPF toolchain is not whole.
    toolchain: Option<String>,
    python: bool,
}

impl Plan {
    fn make(groups: &[Group]) -> anyhow::Result<Self> {
        let missing = |package: &Package| groups.contains(&package.group) && !package.probe.present();
        let mut plan = Self { packages: needs::packages().filter(missing).collect(), ..Self::default() };
        if groups.contains(&Group::Toolchain) {
            plan.need_toolchain()?;
        }
        if groups.contains(&Group::Tests) {
            plan.components = missing_components();
            plan.python = !python::present();
            if plan.python
                && apt::present()
                && !plan.packages.iter().any(|package| package.name == needs::PYTHON_VENV.name)
                && !python::can_make()
            {
                plan.packages.push(needs::PYTHON_VENV);
            }
        }
        Ok(plan)
    }

    fn need_toolchain(&mut self) -> anyhow::Result<()> {
        let Err(problem) = toolchain::find() else { return Ok(()) };
        if env::var_os(toolchain::LINKER_OVERRIDE).is_some_and(|path| !path.is_empty()) && toolchain::find_pair().is_ok() {
            return Err(problem);
        }
        self.toolchain = Some(format!("{problem:#}"));
        if toolchain::find_pair().is_err() {
            if apt::present() && distribution_has_compiler()? {
                self.packages.extend(needs::DISTRIBUTION_COMPILER);
            } else {
                self.nightly = true;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.components.is_empty() && !self.nightly && self.toolchain.is_none() && !self.python
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.packages.is_empty() {
            let names: Vec<_> = self.packages.iter().map(|package| package.name).collect();
            lines.push(format!("{}: {} (their services are not started)", apt::count(names.len()), names.join(" ")));
        }
        if !self.components.is_empty() {
            lines.push(format!("by rustup: {}", self.components.join(", ")));
        }
        if self.nightly {
            lines.push("by rustup: the nightly toolchain with rust-src".to_owned());
        }
        if let Some(problem) = &self.toolchain {
            lines.push(format!("bpf-linker {}, built by cargo in about half a minute, since {problem}", toolchain::LINKER_VERSION));
        }
        if self.python {
            lines.push(format!(
                "a Python environment with {} in {}",
                testbed::packages::PYPI.join(", "),
                workspace::python_home().display()
            ));
        }
        lines
    }

    fn carry_out(&self) -> anyhow::Result<()> {
        if !self.packages.is_empty() {
            if !apt::present() {
                let programs: Vec<_> = self.packages.iter().map(|package| package.name).collect();
                bail!("this machine has no apt: install with its own package manager what Debian has as {}", programs.join(", "));
            }
            apt::install(&self.packages)?;
        }
        if !self.components.is_empty() {
            rustup(&["component", "add"], &self.components)?;
        }
        if self.nightly {
            rustup(&["toolchain", "install", "nightly", "--profile", "minimal", "--component"], &["rust-src"])?;
        }
        if self.toolchain.is_some() {
            let pair = toolchain::find_pair().context("no BPF toolchain: `cargo xtask setup toolchain` could not complete it")?;
            toolchain::install_linker(&pair.llvm)?;
        }
        if self.python {
            python::install()?;
        }
        Ok(())
    }
}

/// Whether apt's sources have the compiler that ships a core library for BPF; taken for granted until their lists were fetched.
fn distribution_has_compiler() -> anyhow::Result<bool> {
    let names: Vec<_> = needs::DISTRIBUTION_COMPILER.iter().map(|package| package.name).collect();
    Ok(!apt::has_lists() || apt::unknown(&names)?.is_empty())
}

/// rustfmt and clippy, where the running toolchain lacks them.
fn missing_components() -> Vec<&'static str> {
    let Some(bin) = env::var_os("CARGO").and_then(|cargo| Path::new(&cargo).parent().map(Path::to_path_buf)) else { return Vec::new() };
    // Only beside cargo: on the PATH rustup puts a stand-in for each, whether the toolchain has it or not.
    let programs = [("rustfmt", "rustfmt"), ("cargo-clippy", "clippy")];
    programs.into_iter().filter(|(program, _)| !bin.join(program).is_file()).map(|(_, component)| component).collect()
}

fn rustup(words: &[&str], last: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("rustup");
    command.args(words).args(last);
    let step = Step::start(exec::shown(&command));
    exec::run(&mut command, |line| step.note(line))
        .with_context(|| format!("failed to install by rustup: `{}` would", exec::shown(&command)))?;
    step.done();
    Ok(())
}
