//! The stages in their phases; those that are quick and often fail come first.
//!
//! Every cargo command builds the same packages with the same flags, so the tree is compiled once
//! for running and once for checking. The release builds have directories of their own, so cargo's
//! lock does not make the background wait for the foreground. The fuzz targets use the release's
//! dependencies.

use std::{fs, num::NonZero, process::Command, thread};

use anyhow::{Context as _, bail};
use testbed::workspace;

use super::{
    dependencies, libtest,
    stage::{Phase, Stage},
};
use crate::{
    build, build_ebpf, deb, fuzz, image, own_program, reproduce,
    setup::{self, needs},
    vm,
};

/// Arguments of every cargo command: the programs for the kernel have stages of their own.
const PACKAGES: [&str; 4] = ["--locked", "--workspace", "--exclude", "redirector-ebpf"];

/// The test of the rules that no lint checks.
const CONVENTIONS_TEST: &str = "conventions";

/// The test that runs the manifest's pod.
const IMAGE_TEST: &str = "daemonset";

/// The test that installs the Debian package.
const PACKAGE_TEST: &str = "package";

/// The test that swaps the programs under load, and the number of its connects when it runs alone;
/// next to other tests it makes fewer.
const SWAPS_TEST: &str = "swaps::twenty_swaps_under_load_lose_no_connect_and_no_count";
const CONNECTS: &str = "1000000";

const SETUP: &str = "setup";
const PROGRAMS: &str = "build-ebpf";
const RELEASE: &str = "release build";
const IMAGE: &str = "image";
const PACKAGE: &str = "Debian package";

/// The stages that every other stage needs.
fn basis() -> Phase {
    Phase::sequence(vec![
        Stage::task(SETUP, || setup::ensure(&needs::ALL).map(drop)),
        Stage::task(PROGRAMS, || build_ebpf::ensure().map(drop)).after(SETUP),
    ])
}

/// Every check and test; `quick` leaves out what needs a release build.
pub(super) fn complete(quick: bool) -> anyhow::Result<Vec<Phase>> {
    let mut checked = Phase::sequence(checks()?);
    let mut phases = vec![basis()];
    if quick {
        phases.push(checked);
    } else {
        checked.background = release_builds();
        phases.extend([checked, with_release_build(), alone()]);
    }
    for stage in phases.iter_mut().skip(1).flat_map(Phase::stages_mut) {
        stage.needs.insert(0, PROGRAMS);
    }
    Ok(phases)
}

/// Only the tests whose name contains the filter.
pub(super) fn filtered(filter: &str, quick: bool) -> anyhow::Result<Vec<Phase>> {
    let filter = filter.to_owned();
    let mut names = kernel_tests()?;
    names.push(CONVENTIONS_TEST.to_owned());
    let mut stages = Vec::new();
    if !quick {
        names.extend([IMAGE_TEST, PACKAGE_TEST].map(str::to_owned));
        stages.push(Stage::task(IMAGE, || image::ensure_archive().map(drop)).after(PROGRAMS));
        stages.push(Stage::task(PACKAGE, deb::ensure_package).after(PROGRAMS));
    }
    let tests = Stage::tests("tests", move || {
        privileged()?;
        let mut command = tests(&["--lib", "--bins"], &names);
        command.arg(&filter);
        Ok(command)
    });
    stages.push(tests.after(if quick { PROGRAMS } else { IMAGE }));
    Ok(vec![basis(), Phase::sequence(stages)])
}

/// The stages that need only a debug build.
fn checks() -> anyhow::Result<Vec<Stage>> {
    let kernel_tests = kernel_tests()?;
    Ok(vec![
        Stage::program("formatting", || Ok(cargo(&["fmt", "--all", "--check"]))),
        Stage::program("dependencies", dependencies::policy),
        dependencies::advisories(),
        Stage::program("lints of the programs", || Ok(lint_programs(&[]))),
        Stage::program("lints of the logging programs", || {
            Ok(lint_programs(&["--features", "debug-log"]))
        }),
        Stage::program("lints", || Ok(lint())),
        Stage::program("documentation", || Ok(document())),
        Stage::tests("conventions", || Ok(tests(&["--test", CONVENTIONS_TEST], &[]))),
        Stage::tests("unit tests", || Ok(tests(&["--lib", "--bins"], &[]))),
        // Passes if no documentation has an example.
        Stage::program("documentation's examples", || Ok(doc_tests())),
        Stage::tests("real-kernel tests", move || {
            privileged()?;
            let mut command = tests(&[], &kernel_tests);
            command.arg(format!("--test-threads={}", kernel_test_threads()));
            Ok(command)
        }),
    ])
}

/// Two for each core: these tests wait for timers and processes for more than half of their time.
fn kernel_test_threads() -> usize {
    2 * thread::available_parallelism().map_or(1, NonZero::get)
}

/// The stages that compile while tests wait.
fn release_builds() -> Vec<Stage> {
    vec![
        Stage::task(RELEASE, || build::ensure().map(drop)),
        Stage::task(IMAGE, || image::ensure_archive().map(drop)).after(RELEASE),
        Stage::task(PACKAGE, deb::ensure_package).after(RELEASE),
        Stage::task("programs from another folder", reproduce::compare_programs),
        Stage::task("other kernels' machines", vm::prepare),
        Stage::task("fuzz targets", fuzz::ensure_passes),
    ]
}

/// The stages that need the release build, besides the other kernels.
fn with_release_build() -> Phase {
    Phase {
        front: vec![
            Stage::tests("the manifest's pod", || {
                privileged()?;
                Ok(tests(&["--test", IMAGE_TEST], &[]))
            })
            .after(IMAGE),
            Stage::tests("the Debian package", || {
                privileged()?;
                Ok(tests(&["--test", PACKAGE_TEST], &[]))
            })
            .after(PACKAGE),
            Stage::program("demo", demo).after(RELEASE),
        ],
        background: vec![Stage::task("other kernels", vm::ensure_passes)],
    }
}

/// The stages that need the whole machine.
fn alone() -> Phase {
    Phase::sequence(vec![Stage::tests("twenty swaps under a million connects", || {
        privileged()?;
        let mut command = tests(&["--test", "datapath"], &[]);
        command.args(["--exact", SWAPS_TEST]).env("REDIRECTOR_TEST_CONNECTS", CONNECTS);
        Ok(command)
    })])
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

/// Lints the programs as if for this machine, for which clippy exists. Unwinding is switched off,
/// since the programs lack it.
fn lint_programs(features: &[&str]) -> Command {
    let mut command = cargo(&[
        "clippy",
        "--locked",
        "--package",
        "redirector-ebpf",
        "--config",
        "profile.dev.panic=\"abort\"",
    ]);
    command
        .args(features)
        .args(["--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", build_ebpf::build_dir());
    command
}

fn document() -> Command {
    let mut command = cargo(&["doc", "--no-deps", "--document-private-items"]);
    command.args(PACKAGES).env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The demo in its own process, since it enters namespaces and handles signals.
fn demo() -> anyhow::Result<Command> {
    privileged()?;
    let mut command = Command::new(own_program::path()?);
    workspace::clean(&mut command);
    command.current_dir(workspace::root()).arg("demo");
    Ok(command)
}

/// The tests of these targets; arguments of the tests may follow.
fn tests(targets: &[&str], names: &[String]) -> Command {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(PACKAGES).args(targets);
    for name in names {
        command.args(["--test", name]);
    }
    libtest::report_times(&mut command);
    command
}

fn doc_tests() -> Command {
    let mut command = cargo(&["test", "--no-fail-fast", "--doc"]);
    command.args(PACKAGES);
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
    names.retain(|name| name != IMAGE_TEST && name != PACKAGE_TEST);
    names.sort_unstable();
    Ok(names)
}

/// Namespaces, cgroups and programs need root; a run without it fails, and skips no test.
fn privileged() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these tests make namespaces and load programs into the kernel, which takes root: run \
                `sudo -E env \"PATH=$PATH\" cargo xtask test`"
        );
    }
    Ok(())
}
