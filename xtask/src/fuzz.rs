//! `cargo xtask fuzz`: the fuzz targets of the DNS shim under libFuzzer, built by the stable
//! compiler.
//!
//! `cargo fuzz` wants a nightly compiler for its sanitizers. What finds new paths is the coverage,
//! which LLVM's own pass gives to any compiler; memory errors are not looked for, since the fuzzed
//! code has no `unsafe`.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use crate::build_ebpf;
use testbed::workspace;

const TARGETS: [&str; 2] = ["query", "reply"];
/// Counters at each edge, and what comparisons compare with.
const COVERAGE: &str = "-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets: query, reply; all when none is named
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Time for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Number of inputs for each target, instead of a time
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u64>,
}

/// Each target for a minute, as a stage of the tests.
pub(crate) fn ensure_passes() -> anyhow::Result<()> {
    run(&Args { targets: Vec::new(), seconds: 60, runs: None })
}

/// Builds the targets and runs each; a failure names the input, which was saved.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    build_ebpf::ensure()?;
    let root = workspace::root();
    // Named, so that build scripts are not instrumented.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&root).env("RUSTFLAGS", COVERAGE);
    cargo.args([
        "build",
        "--locked",
        "--profile",
        "fuzz",
        "--package",
        "redirector-fuzz",
        "--features",
        "libfuzzer",
        "--bins",
        "--target",
        &triple,
    ]);
    ensure!(
        cargo.status().context("failed to start cargo")?.success(),
        "failed to build the fuzz targets"
    );
    let programs = workspace::target_dir().join(triple).join("fuzz");
    let all = TARGETS.map(str::to_owned);
    for target in if args.targets.is_empty() { &all[..] } else { &args.targets } {
        let found = workspace::target_dir().join("fuzz").join(target);
        fs::create_dir_all(&found)
            .with_context(|| format!("failed to make {}", found.display()))?;
        let mut fuzzer = Command::new(programs.join(target));
        fuzzer.arg(&found).arg(root.join("testing/fuzz/seeds").join(target)).current_dir(&found);
        fuzzer.args([
            "-max_len=1024",
            "-timeout=5",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "-verbosity=0",
        ]);
        match args.runs {
            Some(runs) => fuzzer.arg(format!("-runs={runs}")),
            None => fuzzer.arg(format!("-max_total_time={}", args.seconds)),
        };
        println!("{target}: new inputs go to {}", found.display());
        let status =
            fuzzer.status().with_context(|| format!("failed to start the fuzz target {target}"))?;
        ensure!(
            status.success(),
            "{target} found an input that breaks a rule: see crash-* in {}, and add it to \
                testing/fuzz/seeds/{target}",
            found.display()
        );
    }
    Ok(())
}
