//! The stages, in the order in which they are worth knowing: what is quick and often wrong comes
//! first.
//!
//! Every cargo command builds the same packages with the same flags, so the tree is compiled once
//! for running and once for checking; only the image and the demo take the release build.

use std::{env, fs, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    build, build_ebpf, fuzz, image,
    setup::{self, needs},
    vm,
};
use testbed::workspace;

/// A stage of the tests.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) work: Work,
    /// Whether the stages after it make no sense when it fails.
    pub(super) needed: bool,
}

/// What a stage does.
pub(super) enum Work {
    /// A task of ours, which shows its own progress.
    Task(fn() -> anyhow::Result<()>),
    /// A program whose exit code is the result.
    Program(Box<dyn Fn() -> anyhow::Result<Command>>),
    /// A program that runs tests and counts them.
    Tests(Box<dyn Fn() -> anyhow::Result<Command>>),
}

impl Stage {
    fn needed(name: &'static str, task: fn() -> anyhow::Result<()>) -> Self {
        Self { name, work: Work::Task(task), needed: true }
    }

    fn task(name: &'static str, task: fn() -> anyhow::Result<()>) -> Self {
        Self { name, work: Work::Task(task), needed: false }
    }

    fn cargo(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::program(name, move || Ok(cargo(words)))
    }

    fn program(name: &'static str, make: impl Fn() -> anyhow::Result<Command> + 'static) -> Self {
        Self { name, work: Work::Program(Box::new(make)), needed: false }
    }

    fn tests(name: &'static str, make: impl Fn() -> anyhow::Result<Command> + 'static) -> Self {
        Self { name, work: Work::Tests(Box::new(make)), needed: false }
    }
}

/// What every cargo command of ours covers: the programs for the kernel have stages of their own.
const PACKAGES: [&str; 4] = ["--locked", "--workspace", "--exclude", "redirector-ebpf"];

/// The test of what no lint checks in the source text.
const CONVENTIONS_TEST: &str = "conventions";

/// The test that runs the manifest's pod.
const IMAGE_TEST: &str = "daemonset";

/// The test that swaps the programs under load, and how many connects it makes when it has the
/// machine to itself; beside others it makes fewer.
const SWAPS_TEST: &str =
    "swaps::twenty_swaps_of_every_program_under_full_load_lose_no_connect_and_no_count";
const CONNECTS: &str = "1000000";

/// The stages to run.
pub(super) fn plan(quick: bool, filter: Option<&str>) -> anyhow::Result<Vec<Stage>> {
    let mut stages = vec![
        Stage::needed("setup", || setup::ensure(&needs::ALL).map(drop)),
        Stage::needed("build-ebpf", || build_ebpf::ensure().map(drop)),
    ];
    let kernel_tests = kernel_tests()?;
    if let Some(filter) = filter {
        let filter = filter.to_owned();
        if !quick {
            stages.push(Stage::needed("image", || image::ensure_archive().map(drop)));
        }
        stages.push(Stage::tests("tests", move || {
            privileged()?;
            let mut command = tests(&["--lib", "--bins"], &kernel_tests);
            if !quick {
                command.args(["--test", IMAGE_TEST]);
            }
            command.args(["--", &filter]);
            Ok(command)
        }));
        return Ok(stages);
    }
    stages.extend([
        Stage::cargo("formatting", &["fmt", "--all", "--check"]),
        Stage::program("lints of the programs", || Ok(lint_programs())),
        Stage::program("lints", || Ok(lint())),
        Stage::program("documentation", || Ok(document())),
        Stage::tests("conventions", || Ok(tests(&["--test", CONVENTIONS_TEST], &[]))),
        Stage::tests("unit tests", || Ok(tests(&["--lib", "--bins"], &[]))),
        // There need not be any.
        Stage::program("documentation's examples", || Ok(tests(&["--doc"], &[]))),
    ]);
    if !kernel_tests.is_empty() {
        stages.push(Stage::tests("real-kernel tests", move || {
            privileged()?;
            Ok(tests(&[], &kernel_tests))
        }));
    }
    if !quick {
        stages.extend([
            Stage::needed("release build", || build::ensure().map(drop)),
            Stage::task("image", || image::ensure_archive().map(drop)),
            Stage::tests("the manifest's pod", || {
                privileged()?;
                Ok(tests(&["--test", IMAGE_TEST], &[]))
            }),
            Stage::tests("twenty swaps under a million connects", || {
                privileged()?;
                let mut command = tests(&["--test", "datapath"], &[]);
                command
                    .args(["--", "--exact", SWAPS_TEST])
                    .env("REDIRECTOR_TEST_CONNECTS", CONNECTS);
                Ok(command)
            }),
            Stage::program("demo", demo),
            Stage::task("other kernels", vm::ensure_passes),
            Stage::task("fuzz targets", fuzz::ensure_passes),
        ]);
    }
    Ok(stages)
}

fn cargo(words: &[&str]) -> Command {
    let mut command = workspace::cargo();
    command.args(words);
    command
}

fn lint() -> Command {
    let mut command = cargo(&["clippy"]);
    command.args(PACKAGES).args(["--all-targets", "--", "-D", "warnings"]);
    command
}

/// The programs are linted as if for this machine, where clippy is; unwinding, which they have none
/// of, is switched off.
fn lint_programs() -> Command {
    let mut command = cargo(&[
        "clippy",
        "--locked",
        "--package",
        "redirector-ebpf",
        "--config",
        "profile.dev.panic=\"abort\"",
    ]);
    command.args(["--", "-D", "warnings"]).env("CARGO_TARGET_DIR", build_ebpf::build_dir());
    command
}

fn document() -> Command {
    let mut command = cargo(&["doc", "--no-deps", "--document-private-items"]);
    command.args(PACKAGES).env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The demo as a process of its own: it takes namespaces and signals for itself.
fn demo() -> anyhow::Result<Command> {
    privileged()?;
    let own = env::current_exe().context("failed to find this program's own path")?;
    // Cargo may have built xtask anew meanwhile, with the same sources; then our own file is gone,
    // and the kernel says so in its name.
    let name = own.to_string_lossy();
    let mut command = Command::new(name.strip_suffix(" (deleted)").unwrap_or(&name));
    workspace::clean(&mut command);
    command.current_dir(workspace::root()).arg("demo");
    Ok(command)
}

fn tests(words: &[&str], names: &[String]) -> Command {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(PACKAGES).args(words);
    for name in names {
        command.args(["--test", name]);
    }
    command
}

/// The names of the integration tests: the agent's, which need the real kernel, the test bed's, the
/// fuzz targets' and xtask's own.
fn kernel_tests() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for dir in ["redirector/tests", "testing/fuzz/tests", "testing/testbed/tests", "xtask/tests"] {
        let dir = workspace::root().join(dir);
        if !dir.is_dir() {
            continue;
        }
        for entry in
            fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))?
        {
            let path = entry.with_context(|| format!("failed to read {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                || path.join("main.rs").is_file()
            {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.retain(|name| name != IMAGE_TEST);
    names.sort_unstable();
    Ok(names)
}

/// Namespaces, cgroups and programs take root; a run without must not look like one that passed.
fn privileged() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these tests make namespaces and load programs into the kernel, which takes root: run \
                `sudo -E env \"PATH=$PATH\" cargo xtask test`"
        );
    }
    Ok(())
}
