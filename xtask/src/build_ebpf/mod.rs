//! `cargo xtask build-ebpf`: builds `redirector-ebpf` for BPF, with and without debug logging, and
//! checks the two objects that the binary embeds.
//!
//! An object is replaced in one step, and only if it changed, so that cargo rebuilds the binary
//! only then.

mod check;
mod strip;

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
    flags, lock,
    progress::{Step, seconds},
    setup::{
        self,
        needs::Group,
        toolchain::{self, Compiler, Toolchain},
    },
};

const TARGET: &str = "bpfel-unknown-none";

/// One of the two objects.
struct Variant {
    /// What [`Step`] shows.
    name: &'static str,
    /// Features of `redirector-ebpf`.
    features: &'static [&'static str],
    /// Maps that it has beside [`names::MAPS`].
    extra_maps: &'static [&'static str],
    /// Where it is put.
    path: fn() -> PathBuf,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        name: "redirector-ebpf",
        features: &[],
        extra_maps: &[],
        path: workspace::ebpf_object,
    },
    Variant {
        name: "redirector-ebpf with debug logging",
        features: &["--features", "debug-log"],
        extra_maps: &[names::LOG_RECORDS],
        path: workspace::ebpf_debug_object,
    },
];

/// Builds and checks both objects, and prints what they contain.
pub(crate) fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let summary = ensure()?;
    eprintln!("{summary} ({})", seconds(started.elapsed()));
    Ok(())
}

/// As [`run`], for tasks that need the objects; once per process. Returns a summary of them.
pub(crate) fn ensure() -> anyhow::Result<String> {
    static DONE: OnceLock<String> = OnceLock::new();
    if let Some(done) = DONE.get() {
        return Ok(done.clone());
    }
    setup::ensure(&[Group::Toolchain])?;
    let toolchain = toolchain::find()?;
    let _lock = lock::acquire(&build_dir().join("redirector-ebpf.lock"))?;
    let made = VARIANTS.iter().map(|variant| build_object(&toolchain, variant));
    let summary = made.collect::<anyhow::Result<Vec<_>>>()?.join("\n");
    Ok(DONE.get_or_init(|| summary).clone())
}

fn build_object(toolchain: &Toolchain, variant: &Variant) -> anyhow::Result<String> {
    let built = compile(toolchain, variant)?;
    let object = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    let object = strip::without_dwarf(&object)
        .with_context(|| format!("failed to strip {}", built.display()))?;
    let maps = [names::MAPS, &[names::SCRATCH], variant.extra_maps].concat();
    let contents = check::check(&object, &maps)
        .with_context(|| format!("{} is not the object that the agent expects", built.display()))?;
    let path = (variant.path)();
    publish(&object, &path)?;
    Ok(format!("{}: {contents}", path.display()))
}

/// The programs' own target directory: it has its own lock, and its flags do not invalidate other
/// builds. Both objects share what they depend on.
pub(crate) fn build_dir() -> PathBuf {
    workspace::target_dir().join("ebpf-build")
}

fn compile(toolchain: &Toolchain, variant: &Variant) -> anyhow::Result<PathBuf> {
    let what = format!("{} with {}", variant.name, toolchain.compiler.name());
    let step = Step::start(format!("building {what}"));
    let mut command = build_command(toolchain, variant)?;
    let finished = capture::capture(&mut command, |line| step.note(line))?;
    if !finished.status.success() {
        step.failed();
        bail!(
            "failed to build {what} and {}:\n{}",
            toolchain.linker.display(),
            finished.output.trim_end()
        );
    }
    step.done();
    // Cargo repeats warnings from its cache, so they are printed once for each build.
    if finished.output.contains("warning:") {
        eprint!("{}", finished.output);
    }
    Ok(build_dir().join(TARGET).join("ebpf").join("redirector-ebpf"))
}

fn build_command(toolchain: &Toolchain, variant: &Variant) -> anyhow::Result<Command> {
    let mut command = cargo_for(&toolchain.compiler);
    command.args(["build", "--locked", "--package", "redirector-ebpf"]);
    command.args(["--profile", "ebpf", "--target", TARGET]).args(variant.features);
    if toolchain.compiler == Compiler::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    let linker = toolchain.linker.to_str().with_context(|| {
        format!("the linker's path is not UTF-8: {}", toolchain.linker.display())
    })?;
    let flags = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", &format!("linker={linker}")];
    // BTF names the source of each instruction.
    let flags = [flags.map(str::to_owned).as_slice(), &flags::without_paths()].concat();
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", build_dir());
    Ok(command)
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

/// Replaces the object in one step, unless it is the same.
fn publish(object: &[u8], path: &Path) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let dir = path.parent().context("the object's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let temporary = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("failed to create a file in {}", dir.display()))?;
    fs::write(temporary.path(), object)
        .with_context(|| format!("failed to write {}", temporary.path().display()))?;
    temporary
        .persist(path)
        .with_context(|| format!("failed to move the object to {}", path.display()))?;
    Ok(())
}
