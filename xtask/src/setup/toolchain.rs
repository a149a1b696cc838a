//! The toolchain of the programs for the kernel: a Rust compiler for BPF, and a bpf-linker with the
//! same LLVM.
//!
//! Compilers are tried in this order: a rustup nightly with rust-src, which builds its own core;
//! the distribution's compiler that ships one. The first one whose LLVM is installed as a shared
//! library is used, since bpf-linker must read the compiler's output.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use testbed::{capture, workspace};

use crate::progress::Step;

/// The required version of bpf-linker.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The variable that names another bpf-linker than the one that setup builds.
pub(crate) const LINKER_OVERRIDE: &str = "BPF_LINKER";
/// The LLVM versions that this bpf-linker can be built for.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// A Rust compiler for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// rustup's nightly with rust-src: builds its own core.
    Nightly,
    /// The distribution's, with a core for BPF. It is stable: unstable features must be enabled for
    /// it.
    Distribution(PathBuf),
}

/// A compiler with the shared library of its LLVM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) compiler: Compiler,
    pub(crate) llvm: Llvm,
}

/// A shared libLLVM.
#[derive(Clone, Debug)]
pub(crate) struct Llvm {
    major: u32,
    library: PathBuf,
}

impl Llvm {
    /// `22.1` of `libLLVM.so.22.1`.
    fn version(&self) -> String {
        let name = self.library.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("libLLVM.so.").map_or_else(|| self.major.to_string(), str::to_owned)
    }
}

/// The installed toolchain; the error describes what is missing.
pub(crate) fn find() -> anyhow::Result<Toolchain> {
    let pair = find_pair()?;
    let linker = find_linker(&pair.llvm)?;
    Ok(Toolchain { compiler: pair.compiler, linker })
}

/// The first compiler whose LLVM is installed as a shared library for bpf-linker.
pub(crate) fn find_pair() -> anyhow::Result<Pair> {
    let mut problems = Vec::new();
    for compiler in compilers() {
        let major = llvm_of(&compiler)?;
        if !LLVM_VERSIONS.contains(&major) {
            problems.push(format!(
                "{} has LLVM {major}, bpf-linker {LINKER_VERSION} supports {LLVM_VERSIONS:?}",
                compiler.name()
            ));
        } else if let Some(llvm) = shared_llvm(major) {
            return Ok(Pair { compiler, llvm });
        } else {
            problems.push(format!(
                "{} has LLVM {major}, but this machine has no libLLVM.so.{major}.*",
                compiler.name()
            ));
        }
    }
    if problems.is_empty() {
        problems.push("no installed Rust compiler supports BPF".to_owned());
    }
    bail!("{}", problems.join("; "))
}

/// The linker for this LLVM: the one in `BPF_LINKER`, otherwise the one that setup built.
fn find_linker(llvm: &Llvm) -> anyhow::Result<PathBuf> {
    if let Some(path) =
        env::var_os(LINKER_OVERRIDE).filter(|path| !path.is_empty()).map(PathBuf::from)
    {
        check_linker(&path).with_context(|| {
            format!(
                "{LINKER_OVERRIDE}={} is not usable: unset it to use the linker that setup builds",
                path.display()
            )
        })?;
        return Ok(path);
    }
    let path = linker_path(llvm);
    if !path.is_file() {
        bail!(
            "bpf-linker {LINKER_VERSION} for LLVM {} is missing: no {}",
            llvm.version(),
            path.display()
        );
    }
    check_linker(&path)?;
    Ok(path)
}

/// Checks that the linker runs and has the required version.
fn check_linker(path: &Path) -> anyhow::Result<()> {
    let output = capture::run(Command::new(path).arg("--version"), |_| {})?;
    let version = output.trim().strip_prefix("bpf-linker ").unwrap_or(output.trim());
    if version != LINKER_VERSION {
        bail!(
            "{} is bpf-linker {version}, this workspace is built with {LINKER_VERSION}",
            path.display()
        );
    }
    Ok(())
}

/// The path of the linker that setup builds: it contains both versions, so that a new LLVM gets a
/// new linker.
fn linker_path(llvm: &Llvm) -> PathBuf {
    linker_home(llvm).join("bin").join("bpf-linker")
}

fn linker_home(llvm: &Llvm) -> PathBuf {
    workspace::tools_dir().join(format!("bpf-linker-{LINKER_VERSION}-llvm-{}", llvm.version()))
}

/// Builds the linker against the shared libLLVM, and moves it into place once it runs.
pub(crate) fn install_linker(llvm: &Llvm) -> anyhow::Result<()> {
    let step =
        Step::start(format!("building bpf-linker {LINKER_VERSION} for LLVM {}", llvm.version()));
    let tools = workspace::tools_dir();
    fs::create_dir_all(&tools).with_context(|| format!("failed to create {}", tools.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix("building-")
        .tempdir_in(&tools)
        .with_context(|| format!("failed to create a directory in {}", tools.display()))?;

    // llvm-sys looks for `lib/libLLVM.so` below its prefix: a symlink replaces the development
    // package.
    let prefix = temporary.path().join("llvm");
    fs::create_dir_all(prefix.join("lib")).context("failed to create the LLVM prefix")?;
    std::os::unix::fs::symlink(&llvm.library, prefix.join("lib/libLLVM.so"))
        .context("failed to link libLLVM.so")?;

    let root = temporary.path().join("root");
    let mut command = workspace::cargo();
    // Outside the workspace: neither its configuration nor its target directory applies here.
    command
        .current_dir(&tools)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--no-default-features",
        "--features",
    ]);
    command.arg(format!("llvm-{}", llvm.major)).arg("--root").arg(&root);
    command.env("CARGO_TARGET_DIR", temporary.path().join("target")).env("LLVM_PREFIX", &prefix);
    command.envs([("CARGO_PROFILE_RELEASE_DEBUG", "0"), ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")]);
    capture::run(&mut command, |line| step.note(line))?;
    check_linker(&root.join("bin/bpf-linker"))?;

    let path = linker_path(llvm);
    let home = path.parent().unwrap_or(&tools);
    fs::create_dir_all(home).with_context(|| format!("failed to create {}", home.display()))?;
    fs::rename(root.join("bin/bpf-linker"), &path)
        .with_context(|| format!("failed to move the linker to {}", path.display()))?;
    step.done_with(&path.display().to_string());
    Ok(())
}

fn compilers() -> Vec<Compiler> {
    let mut found = Vec::new();
    if nightly_home().is_some_and(|home| home.join("lib/rustlib/src/rust/library/core").is_dir()) {
        found.push(Compiler::Nightly);
    }
    let rustc = Path::new("/usr/bin/rustc");
    if rustc.is_file() && Path::new("/usr/lib/rustlib/bpfel-unknown-none/lib").is_dir() {
        found.push(Compiler::Distribution(rustc.to_owned()));
    }
    found
}

/// The directory of rustup's nightly for this machine.
fn nightly_home() -> Option<PathBuf> {
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")))?;
    Some(rustup.join("toolchains").join(format!("nightly-{}-unknown-linux-gnu", env::consts::ARCH)))
}

impl Compiler {
    /// The compiler, for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Nightly => "rustup's nightly".to_owned(),
            Self::Distribution(path) => path.display().to_string(),
        }
    }

    fn rustc(&self) -> PathBuf {
        match self {
            Self::Nightly => nightly_home().unwrap_or_default().join("bin/rustc"),
            Self::Distribution(path) => path.clone(),
        }
    }
}

fn llvm_of(compiler: &Compiler) -> anyhow::Result<u32> {
    let mut command = Command::new(compiler.rustc());
    command.arg("-vV");
    workspace::clean(&mut command);
    let output = capture::run(&mut command, |_| {})?;
    let version = output
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next());
    version
        .and_then(|major| major.parse().ok())
        .with_context(|| format!("`{} -vV` names no LLVM version", compiler.rustc().display()))
}

fn shared_llvm(major: u32) -> Option<Llvm> {
    let arch = env::consts::ARCH;
    let places = [
        format!("/usr/lib/{arch}-linux-gnu"),
        format!("/usr/lib/llvm-{major}/lib"),
        "/usr/lib64".to_owned(),
        format!("/usr/lib64/llvm{major}/lib"),
        "/usr/lib".to_owned(),
    ];
    let prefix = format!("libLLVM.so.{major}.");
    places.iter().find_map(|place| {
        let entries = fs::read_dir(place).ok()?;
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .collect();
        names.sort_unstable();
        Some(Llvm { major, library: Path::new(place).join(names.pop()?) })
    })
}

/// Whether the machine has a shared LLVM that bpf-linker supports.
pub(crate) fn has_shared_llvm() -> bool {
    LLVM_VERSIONS.into_iter().any(|major| shared_llvm(major).is_some())
}

/// The error where neither apt nor rustup has a compiler.
pub(crate) fn no_source() -> String {
    let (first, last) = (LLVM_VERSIONS.start(), LLVM_VERSIONS.end());
    format!(
        "no source of a Rust compiler for BPF: apt has no rustc-web with libstd-rust-web-dev-bpf; \
         rustup's nightly needs a shared LLVM (libLLVM.so.{first} to .{last}), which this \
         machine's package manager may have"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_path_contains_its_version_and_llvms() {
        let llvm = Llvm { major: 22, library: "/usr/lib/x86_64-linux-gnu/libLLVM.so.22.1".into() };
        assert!(
            linker_path(&llvm)
                .ends_with(format!("bpf-linker-{LINKER_VERSION}-llvm-22.1/bin/bpf-linker"))
        );
    }

    #[test]
    fn a_program_that_is_not_our_linker_is_refused_by_name() {
        let error = check_linker(Path::new("/bin/true")).unwrap_err().to_string();
        assert!(
            error.starts_with("/bin/true is bpf-linker") && error.contains(LINKER_VERSION),
            "{error}"
        );
    }
}
