//! `cargo xtask build-ebpf`: builds `redirector-ebpf` for BPF and checks the object that the binary
//! embeds.
//!
//! The object is replaced in one step, and only when it changed, so that nothing that embeds it is
//! built anew for nothing.

mod check;

use redirector_common::names;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Instant,
};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use crate::{
    lock,
    progress::{Step, seconds},
    setup::{
        self,
        needs::Group,
        toolchain::{self, Compiler, Toolchain},
    },
};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and checks it; says what it made.
pub(crate) fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let summary = ensure()?;
    eprintln!("{}: {summary} ({})", workspace::ebpf_object().display(), seconds(started.elapsed()));
    Ok(())
}

/// As [`run`], for tasks that need the object; once per process. Returns what there is to say about
/// it.
pub(crate) fn ensure() -> anyhow::Result<String> {
    static DONE: OnceLock<String> = OnceLock::new();
    if let Some(done) = DONE.get() {
        return Ok(done.clone());
    }
    let done = make()?;
    Ok(DONE.get_or_init(|| done).clone())
}

fn make() -> anyhow::Result<String> {
    setup::ensure(&[Group::Toolchain])?;
    let toolchain = toolchain::find()?;
    let _lock = lock::acquire(&build_dir().join("redirector-ebpf.lock"))?;
    let built = compile(&toolchain)?;
    let object = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    let programs: Vec<&str> = names::program_names().collect();
    let contents = check::check(&object, &programs, names::MAPS)
        .with_context(|| format!("{} is not the object that the agent expects", built.display()))?;
    publish(&object, &workspace::ebpf_object())?;
    Ok(contents.to_string())
}

/// The programs' own target directory: cargo's lock on ours is never waited for, and the flags of
/// the one never disturb the other.
pub(crate) fn build_dir() -> PathBuf {
    workspace::target_dir().join("ebpf-build")
}

fn compile(toolchain: &Toolchain) -> anyhow::Result<PathBuf> {
    let step = Step::start(format!("building redirector-ebpf with {}", toolchain.compiler.name()));
    let mut command = cargo_for(&toolchain.compiler);
    command.args([
        "build",
        "--locked",
        "--package",
        "redirector-ebpf",
        "--profile",
        "ebpf",
        "--target",
        TARGET,
    ]);
    if toolchain.compiler == Compiler::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    let linker = toolchain.linker.to_str().with_context(|| {
        format!("the linker's path is not UTF-8: {}", toolchain.linker.display())
    })?;
    let flags = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", &format!("linker={linker}")];
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", build_dir());

    let finished = capture::capture(&mut command, |line| step.note(line))?;
    if !finished.status.success() {
        step.failed();
        bail!(
            "failed to build redirector-ebpf with {} and {linker}:\n{}",
            toolchain.compiler.name(),
            finished.output.trim_end()
        );
    }
    step.done();
    // Warnings are shown, once: cargo repeats them from its cache.
    if finished.output.contains("warning:") {
        eprint!("{}", finished.output);
    }
    Ok(build_dir().join(TARGET).join("ebpf").join("redirector-ebpf"))
}

fn cargo_for(compiler: &Compiler) -> Command {
    match compiler {
        Compiler::Nightly => {
            let mut command = Command::new("rustup");
            command.current_dir(workspace::root()).args(["run", "nightly", "cargo"]);
            workspace::clean(&mut command);
            command.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            command
        }
        Compiler::Distribution(rustc) => {
            let mut command = workspace::cargo();
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command
        }
    }
}

/// Puts the object into place in one step, unless it is there already.
fn publish(object: &[u8], path: &Path) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let dir = path.parent().context("the object's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let aside = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("failed to create a file in {}", dir.display()))?;
    fs::write(aside.path(), object)
        .with_context(|| format!("failed to write {}", aside.path().display()))?;
    aside
        .persist(path)
        .with_context(|| format!("failed to move the object to {}", path.display()))?;
    Ok(())
}
