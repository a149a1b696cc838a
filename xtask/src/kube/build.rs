//! The programs of Kubernetes, built from Debian's source packages. Debian's own packages have only
//! kubectl, but this source is the whole tree with its dependencies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use testbed::{capture, workspace};

use crate::{
    lock,
    progress::{Step, seconds},
    setup::private_apt::Apt,
};

/// Debian's release with these sources and a compiler that builds them.
const SUITE: &str = "bookworm";

/// A source package of Debian, with the SHA-256 of its files, by the ends of their names.
struct Source {
    package: &'static str,
    version: &'static str,
    files: [(&'static str, &'static str); 2],
}

const KUBERNETES: Source = Source {
    package: "kubernetes",
    version: "1.20.5+really1.20.2-1.1+deb12u1",
    files: [
        (".orig.tar.gz", "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc"),
        (".debian.tar.xz", "9b6e5fd41769d2b5badf2e73b274e3bcd90f85e13d06a1a4a845ccce018127d8"),
    ],
};
/// Replaces Kubernetes' own copy: that one reads maps in a way that Go changed in 1.18, so the API
/// server would crash on the first custom resource.
const REFLECT2: Source = Source {
    package: "golang-github-modern-go-reflect2",
    version: "1.0.2-2",
    files: [
        (".orig.tar.gz", "86049e7ba480c7da86b3d459f13a7c6c383a769134bf4eac0023a0aa024244de"),
        (".debian.tar.xz", "b2fbdbc93fe56bc9710f12db22424770a8f23cfb602cd3f16a6d7179d9f909dd"),
    ],
};
const REFLECT2_COPY: &str = "vendor/github.com/modern-go/reflect2";
const PROGRAMS: [&str; 4] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];
/// Five minutes on two idle cores.
const LIMIT: Duration = Duration::from_secs(3600);

/// The programs in the cache of tools; they are built if they are missing.
pub(super) fn ensure() -> anyhow::Result<()> {
    if is_built() {
        return Ok(());
    }
    let tools = workspace::tools_dir();
    let _lock = lock::acquire(&tools.join("kubernetes.lock"))?;
    if is_built() {
        return Ok(());
    }
    let started = Instant::now();
    let step = Step::start("building Kubernetes 1.20.2 from Debian's source");
    let temporary = tempfile::tempdir_in(&tools).context("failed to create a build directory")?;
    fetch(temporary.path(), &step)?;
    replace_copy(temporary.path())?;
    compile(temporary.path(), &step)?;
    publish(temporary.path())?;
    step.done_with(&seconds(started.elapsed()));
    Ok(())
}

fn is_built() -> bool {
    PROGRAMS.iter().all(|program| workspace::kubernetes_home().join(program).is_file())
}

/// Fetches the source packages, checks them and unpacks each into the folder of its name.
fn fetch(folder: &Path, step: &Step) -> anyhow::Result<()> {
    let apt = Apt::of_sources(&workspace::tools_dir().join("apt-sources"), SUITE)?;
    apt.update(step)?;
    for source in [KUBERNETES, REFLECT2] {
        let files = folder.join(format!("{}.files", source.package));
        fs::create_dir(&files).with_context(|| format!("failed to create {}", files.display()))?;
        let what = format!("{}={}", source.package, source.version);
        let mut command = apt.command("apt-get");
        command.args(["source", "--download-only", &what]);
        capture::run(command.current_dir(&files), |line| step.note(line))
            .with_context(|| format!("failed to fetch the source of {what}"))?;
        for (end, sum) in source.files {
            check(&file(&files, end)?, sum)?;
        }
        let mut unpack = Command::new("dpkg-source");
        unpack.args(["--no-check", "--extract"]).arg(file(&files, ".dsc")?);
        unpack.arg(folder.join(source.package));
        capture::run(&mut unpack, |line| step.note(line))?;
    }
    Ok(())
}

fn check(path: &Path, sum: &str) -> anyhow::Result<()> {
    let line = capture::run(Command::new("sha256sum").arg(path), |_| {})?;
    let found = line.split_whitespace().next().unwrap_or_default();
    if found != sum {
        bail!("{} has the SHA-256 {found} instead of {sum}", path.display());
    }
    Ok(())
}

fn file(folder: &Path, end: &str) -> anyhow::Result<PathBuf> {
    let files =
        fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut paths = files.flatten().map(|file| file.path());
    paths
        .find(|path| path.to_string_lossy().ends_with(end))
        .with_context(|| format!("the source package has no file *{end}"))
}

fn replace_copy(folder: &Path) -> anyhow::Result<()> {
    let copy = folder.join(KUBERNETES.package).join(REFLECT2_COPY);
    fs::remove_dir_all(&copy).with_context(|| format!("failed to remove {}", copy.display()))?;
    fs::rename(folder.join(REFLECT2.package), &copy)
        .with_context(|| format!("failed to replace {}", copy.display()))
}

/// Its makefiles want the tree at its import path, and no modules.
fn compile(folder: &Path, step: &Step) -> anyhow::Result<()> {
    let source = folder.join(KUBERNETES.package);
    let imports = source.join(".go/src/k8s.io");
    fs::create_dir_all(&imports).context("failed to create Go's folder")?;
    std::os::unix::fs::symlink("../../..", imports.join("kubernetes"))
        .context("failed to link the source")?;
    let targets = PROGRAMS.map(|program| format!("cmd/{program}")).join(" ");
    let mut make = Command::new("make");
    make.arg(format!("WHAT={targets}"))
        .current_dir(&source)
        .env_remove("GOFLAGS")
        .env("GOPATH", source.join(".go"))
        .env("GOCACHE", folder.join("cache"))
        .env("HOME", folder)
        .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .envs([("KUBE_GIT_VERSION", "v1.20.2"), ("KUBE_GIT_COMMIT", "debian")])
        .envs([("KUBE_GIT_TREE_STATE", "archive")])
        .envs([("KUBE_GIT_MAJOR", "1"), ("KUBE_GIT_MINOR", "20")]);
    let finished = capture::capture_within(&mut make, LIMIT, |line| step.note(line))?;
    ensure!(finished.status.success(), "failed to build Kubernetes:\n{}", finished.output);
    Ok(())
}

fn publish(folder: &Path) -> anyhow::Result<()> {
    let home = workspace::kubernetes_home();
    fs::create_dir_all(&home).with_context(|| format!("failed to create {}", home.display()))?;
    for program in PROGRAMS {
        let built = folder.join(KUBERNETES.package).join("_output/local/go/bin").join(program);
        fs::rename(&built, home.join(program))
            .with_context(|| format!("failed to keep {}", built.display()))?;
    }
    Ok(())
}
