//! Paths of the workspace, its target directory and the cache of tools; and a clean environment for
//! child processes.
//!
//! Nothing here creates a file.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's root, as an absolute path.
#[must_use]
pub fn root() -> PathBuf {
    // The variable at run time comes first, since clones may share a target directory.
    let running = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let enclosing = |folder: &PathBuf| {
        folder
            .ancestors()
            .find(|folder| folder.join("testing/testbed/Cargo.toml").is_file())
            .map(Path::to_path_buf)
    };
    running.as_ref().and_then(enclosing).or_else(|| enclosing(&built)).unwrap_or(built)
}

/// Cargo's target directory: `CARGO_TARGET_DIR` (against the current directory, as cargo reads it),
/// else `target` in the workspace.
#[must_use]
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => {
            env::current_dir().map_or_else(|_| PathBuf::from(&dir), |here| here.join(&dir))
        }
        None => root().join("target"),
    }
}

/// The object that `cargo xtask build-ebpf` makes and the binary embeds.
#[must_use]
pub fn ebpf_object() -> PathBuf {
    target_dir().join("ebpf").join("redirector-ebpf")
}

/// The object with debug logging, made and embedded likewise.
#[must_use]
pub fn ebpf_debug_object() -> PathBuf {
    target_dir().join("ebpf").join("redirector-ebpf-debug")
}

/// The static release binary that `cargo xtask build` makes.
#[must_use]
pub fn release_binary() -> PathBuf {
    target_dir().join("release").join("redirector")
}

/// The static release build of an example of the product.
#[must_use]
pub fn release_example(name: &str) -> PathBuf {
    target_dir()
        .join(format!("{}-unknown-linux-gnu/release/examples", env::consts::ARCH))
        .join(name)
}

/// The image that `cargo xtask image` makes, as an OCI archive.
#[must_use]
pub fn image_archive() -> PathBuf {
    target_dir().join("image").join("redirector.oci.tar")
}

/// The package that `cargo xtask deb` makes.
#[must_use]
pub fn debian_package() -> PathBuf {
    target_dir().join("debian").join("redirector.deb")
}

/// The minimal Debian with systemd that setup makes, to try the package in.
#[must_use]
pub fn debian_root() -> PathBuf {
    tools_dir().join("debian-root")
}

/// The programs of Kubernetes that `cargo xtask kube` builds. The name changes with how they are
/// built.
#[must_use]
pub fn kubernetes_home() -> PathBuf {
    tools_dir().join("kubernetes-1.20.2-reflect2-1.0.2")
}

/// The cache of tools that setup builds, shared by every clone of this user: below
/// `XDG_CACHE_HOME`, else `~/.cache`, else the target directory.
#[must_use]
pub fn tools_dir() -> PathBuf {
    let cache =
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(
            || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache")),
        );
    cache.map_or_else(|| target_dir().join("tools"), |cache| cache.join("redirector").join("tools"))
}

/// Where cargo keeps the sources of dependencies: `CARGO_HOME`, else `~/.cargo`.
#[must_use]
pub fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_default()
}

/// The Python environment that setup makes: `bin/pypi-server`, `bin/pip`, `bin/python`.
#[must_use]
pub fn python_home() -> PathBuf {
    tools_dir().join("python")
}

/// The Python environment of the chart's tests, which setup makes too: Helm and schemas.
#[must_use]
pub fn chart_python_home() -> PathBuf {
    tools_dir().join("chart-python")
}

/// A cargo command in the workspace, without the variables that `cargo run` added to our
/// environment: build scripts that watch them (ring's does) would otherwise run again whenever a
/// task and a user alternate.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    clean(&mut command);
    command
}

/// Removes the variables that `cargo run` and `cargo xtask test` add to a command's environment.
pub fn clean(command: &mut Command) {
    const FROM_CARGO_RUN: [&str; 4] =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if FROM_CARGO_RUN.iter().any(|prefix| text.starts_with(prefix))
            || text == "CARGO_PRIMARY_PACKAGE"
            || text == "RUSTC_WORKSPACE_WRAPPER"
            // `cargo xtask test` gives it to test programs, so that they report times.
            || text == "RUSTC_BOOTSTRAP"
        {
            command.env_remove(&name);
        }
    }
    if let Some(path) = env::var_os("LD_LIBRARY_PATH") {
        let target = target_dir();
        let kept: Vec<_> = env::split_paths(&path)
            .filter(|dir| {
                !dir.starts_with(&target)
                    && !dir.components().any(|part| part.as_os_str() == "toolchains")
            })
            .collect();
        match env::join_paths(&kept) {
            Ok(path) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", path),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}
