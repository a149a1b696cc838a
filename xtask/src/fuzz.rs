//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, built by the stable
//! compiler.
//!
//! `cargo fuzz` needs a nightly compiler for its sanitizers. The coverage, which finds new paths,
//! works with any compiler; the fuzzed code has no `unsafe`, so memory errors need no sanitizer.
//!
//! Only the workspace's crates have coverage and assertions: the dependencies are compiled once,
//! for the release build. A path in a dependency counts only if our code then does something else.

use std::{fs, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, bail, ensure};
use testbed::{capture, workspace};

use crate::{arch::Arch, build_ebpf, flags, progress::Step};

const TARGETS: [&str; 9] =
    ["answer", "config", "hosts", "http", "import", "query", "reply", "request", "resolv_conf"];
/// Time of all targets together as a stage of the tests, in seconds.
const STAGE_SECONDS: u32 = 360;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets [default: all]
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Time for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Number of inputs for each target, instead of a time
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u64>,
}

/// All targets at once, as a stage of the tests.
pub(crate) fn ensure_passes() -> anyhow::Result<()> {
    let step = Step::start("building the fuzz targets");
    capture::run(&mut build()?, |line| step.note(line))?;
    step.done();
    let seconds = STAGE_SECONDS / TARGETS.len() as u32;
    let step = Step::start(format!("fuzzing {} for {seconds} s", TARGETS.join(", ")));
    let results: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let fuzzers = TARGETS.map(|target| {
            scope
                .spawn(move || capture::run(&mut fuzzer(target, Budget::Seconds(seconds))?, |_| {}))
        });
        fuzzers
            .into_iter()
            .zip(TARGETS)
            .map(|(fuzzer, target)| match fuzzer.join() {
                Ok(result) => result.map(drop).with_context(|| advice(target)),
                Err(_) => bail!("the thread that watched {target} panicked"),
            })
            .collect()
    });
    let result: anyhow::Result<()> = results.into_iter().collect();
    if result.is_ok() {
        step.done()
    } else {
        step.failed()
    };
    result
}

/// Builds the targets and runs each; a failure names the input, which was saved.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let built = build()?.status().context("failed to start cargo")?;
    ensure!(built.success(), "failed to build the fuzz targets");
    let all = TARGETS.map(str::to_owned);
    let budget = args.runs.map_or(Budget::Seconds(args.seconds), Budget::Runs);
    for target in if args.targets.is_empty() { &all[..] } else { &args.targets } {
        println!("{target}: new inputs go to {}", corpus(target).display());
        let status = fuzzer(target, budget)?
            .status()
            .with_context(|| format!("failed to start the fuzz target {target}"))?;
        ensure!(status.success(), "{}", advice(target));
    }
    Ok(())
}

/// How long a target is fuzzed.
#[derive(Clone, Copy)]
enum Budget {
    Seconds(u32),
    Runs(u64),
}

/// The command that builds every target.
fn build() -> anyhow::Result<Command> {
    build_ebpf::ensure()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--release", "--package", "redirector-fuzz"]);
    cargo.args(["--features", "libfuzzer", "--bins", "--target", &Arch::HOST.target()]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags::of_release()).env_remove("RUSTFLAGS");
    cargo.env("RUSTC_WORKSPACE_WRAPPER", compiler());
    Ok(cargo)
}

/// The compiler with coverage.
fn compiler() -> PathBuf {
    workspace::root().join("testing/fuzz/rustc")
}

/// Where the target's new inputs go.
fn corpus(target: &str) -> PathBuf {
    workspace::target_dir().join("fuzz").join(target)
}

/// The command that runs a built target.
fn fuzzer(target: &str, budget: Budget) -> anyhow::Result<Command> {
    let found = corpus(target);
    fs::create_dir_all(&found).with_context(|| format!("failed to create {}", found.display()))?;
    let program = workspace::target_dir().join(Arch::HOST.target()).join("release").join(target);
    let seeds = workspace::root().join("testing/fuzz/seeds").join(target);
    let mut fuzzer = Command::new(program);
    fuzzer.arg(&found).arg(seeds).current_dir(&found);
    fuzzer.args(["-max_len=1024", "-timeout=5", "-rss_limit_mb=1024"]);
    fuzzer.args(["-print_final_stats=1", "-verbosity=0"]);
    match budget {
        Budget::Seconds(seconds) => fuzzer.arg(format!("-max_total_time={seconds}")),
        Budget::Runs(runs) => fuzzer.arg(format!("-runs={runs}")),
    };
    Ok(fuzzer)
}

/// What to do about a failure.
fn advice(target: &str) -> String {
    format!(
        "{target} found an input that makes it fail: see crash-* in {}, and add it to \
         testing/fuzz/seeds/{target}",
        corpus(target).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_for_the_target_have_coverage() {
        let compiled = |arguments: &[&str]| {
            let mut command = Command::new(compiler());
            command.arg("echo").args(arguments);
            capture::stdout(command).unwrap()
        };
        let instrumented = compiled(&["--crate-name", "redirector", "--target", "this"]);
        assert!(instrumented.starts_with("--crate-name redirector --target this --cfg fuzzing"));
        assert!(instrumented.contains("-C passes=sancov-module"), "{instrumented}");
        assert_eq!(compiled(&["--crate-name", "build"]).trim_end(), "--crate-name build");
    }
}
