//! What the tasks need from the machine: each Debian package, and how to see without asking the package manager that its tool is there.

use std::path::Path;

use clap::ValueEnum;

use crate::exec;

/// What a task needs; each task asks only for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// What builds the programs for the kernel: a Rust compiler that knows BPF, and bpf-linker.
    Toolchain,
    /// What builds and holds the container image.
    Image,
    /// What the tests and the demo run: the customer's servers, and the clients.
    Tests,
}

/// Every group, for `cargo xtask setup` without arguments.
pub(crate) const ALL: [Group; 3] = [Group::Toolchain, Group::Image, Group::Tests];

/// How to see that something is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe {
    /// A program on the PATH.
    Program(&'static str),
    /// A file or directory.
    Path(&'static str),
}

impl Probe {
    pub(crate) fn present(self) -> bool {
        match self {
            Self::Program(name) => exec::on_path(name),
            Self::Path(path) => Path::new(path).exists(),
        }
    }
}

/// A Debian package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) probe: Probe,
    /// The service that the package would start at boot, which nobody here wants.
    pub(crate) service: Option<&'static str>,
}

const fn program(group: Group, name: &'static str, program: &'static str) -> Package {
    Package { group, name, probe: Probe::Program(program), service: None }
}

const fn path(group: Group, name: &'static str, path: &'static str) -> Package {
    Package { group, name, probe: Probe::Path(path), service: None }
}

const fn server(name: &'static str, program: &'static str, service: &'static str) -> Package {
    Package { group: Group::Tests, name, probe: Probe::Program(program), service: Some(service) }
}

/// The packages of a Debian machine, but for the compiler, which has an alternative (see `toolchain`).
pub(crate) const PACKAGES: &[Package] = &[
    program(Group::Image, "buildah", "buildah"),
    // The image test plays the manifest's pod: podman with runc (crun refuses hybrid cgroups) and a pause process.
    program(Group::Tests, "podman", "podman"),
    program(Group::Tests, "runc", "runc"),
    program(Group::Tests, "catatonit", "catatonit"),
    program(Group::Tests, "busybox-static", "busybox"),
    // The customer's side.
    server("haproxy", "haproxy", "haproxy"),
    server("nsd", "nsd", "nsd"),
    server("docker-registry", "docker-registry", "docker-registry"),
    // The executor's clients.
    program(Group::Tests, "curl", "curl"),
    program(Group::Tests, "skopeo", "skopeo"),
    program(Group::Tests, "nodejs", "node"),
    program(Group::Tests, "openjdk-17-jdk-headless", "javac"),
    program(Group::Tests, "musl-tools", "musl-gcc"),
    program(Group::Tests, "python3", "python3"),
    // Namespaces, filters, and looking at what happens.
    program(Group::Tests, "iproute2", "ip"),
    program(Group::Tests, "nftables", "nft"),
    program(Group::Tests, "bind9-dnsutils", "dig"),
    program(Group::Tests, "openssl", "openssl"),
    program(Group::Tests, "iputils-ping", "ping"),
    program(Group::Tests, "util-linux", "setpriv"),
    program(Group::Tests, "libcap2-bin", "capsh"),
    program(Group::Tests, "dnsmasq-base", "dnsmasq"),
];

/// Debian's compiler that ships a core library for BPF; pulls the shared libLLVM that bpf-linker is linked against.
pub(crate) const DISTRIBUTION_COMPILER: &[Package] = &[
    path(Group::Toolchain, "rustc-web", "/usr/lib/rustlib/bpfel-unknown-none"),
    path(Group::Toolchain, "libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none"),
];

/// What Debian's Python lacks to make an environment.
pub(crate) const PYTHON_VENV: Package = path(Group::Tests, "python3-venv", "/usr/share/doc/python3-venv");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        let mut names: Vec<_> = PACKAGES.iter().chain(DISTRIBUTION_COMPILER).map(|package| package.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a package is listed twice");
    }

    #[test]
    fn a_program_that_is_there_is_seen_and_one_that_is_not_is_missed() {
        assert!(Probe::Program("sh").present());
        assert!(!Probe::Program("no-such-program-of-ours").present());
    }
}
