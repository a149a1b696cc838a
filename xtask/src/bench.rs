//! `cargo xtask bench`: builds what a benchmark needs, and calls the crate `redirector-bench`.

pub(crate) use redirector_bench::cli::Args;

use crate::build;

/// Runs a benchmark.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.wants_build() {
        build::ensure_with_tools()?;
    }
    for example in args.wants_examples() {
        build::example(example)?;
    }
    redirector_bench::cli::run(args)
}
