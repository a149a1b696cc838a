//! The programs that run inside executors, as files: next to the program that needs them, or
//! built when a test is run without them (`cargo test -p redirector` in a fresh clone).

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace;

/// Building the test bed from nothing takes about half a minute on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// The client programs of the test bed.
pub fn client() -> Result<PathBuf> {
    static CLIENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            find("testbed", "testbed-client", "testing/testbed/src")
                .map_err(|error| format!("{error:#}"))
        })
        .clone()
        .map_err(anyhow::Error::msg)
}

/// The debug build of `binary`, a program of `package`, whose sources are in `sources` of the
/// workspace. It is built only where it is missing or older than its sources.
pub fn find(package: &str, binary: &str, sources: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("failed to find this program's own path")?;
    // Tests are in `deps`, examples in `examples`, below the profile's directory.
    if let Some(built) = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(binary))
        .find(|path| path.is_file())
        && modified(&built)? >= newest(&workspace::root().join(sources))?
    {
        return Ok(built);
    }
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--package", package, "--bin", binary]);
    process::finish(build, BUILD_LIMIT)?
        .success()
        .with_context(|| format!("failed to build {binary} with cargo"))?;
    let built = workspace::target_dir().join("debug").join(binary);
    ensure!(built.is_file(), "cargo built no {}", built.display());
    Ok(built)
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("failed to read the time of {}", path.display()))
}

/// When a file below `folder` was last changed.
fn newest(folder: &Path) -> Result<SystemTime> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    entries.filter_map(Result::ok).map(|entry| entry.path()).try_fold(
        SystemTime::UNIX_EPOCH,
        |newest_yet, path| {
            let changed = if path.is_dir() { newest(&path)? } else { modified(&path)? };
            Ok(newest_yet.max(changed))
        },
    )
}
