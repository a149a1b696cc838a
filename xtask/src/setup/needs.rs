//! What the tasks need from the machine: each Debian package, and how to see without asking the
//! package manager that its tool is there.

use std::path::Path;

use clap::ValueEnum;
use testbed::packages;

/// What a task needs; each task asks only for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// What builds the programs for the kernel: a Rust compiler that knows BPF, and bpf-linker.
    Toolchain,
    /// What builds and holds the container image.
    Image,
    /// What the tests and the demo run: the customer's servers, and the clients.
    Tests,
    /// What emulates the machines that other kernels are tried on.
    Machines,
    /// What checks the dependencies' licences and sources.
    Dependencies,
}

/// Every group, for `cargo xtask setup` without arguments.
pub(crate) const ALL: [Group; 5] =
    [Group::Toolchain, Group::Image, Group::Tests, Group::Machines, Group::Dependencies];

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
            Self::Program(name) => packages::is_installed(name),
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
}

const fn program(group: Group, name: &'static str, program: &'static str) -> Package {
    Package { group, name, probe: Probe::Program(program) }
}

const fn path(group: Group, name: &'static str, path: &'static str) -> Package {
    Package { group, name, probe: Probe::Path(path) }
}

/// What the image and its tests take; what the test bed takes, it lists itself
/// (`testbed::packages`).
const OWN: &[Package] = &[
    program(Group::Image, "buildah", "buildah"),
    // The image test plays the manifest's pod: podman with runc (crun refuses hybrid cgroups) and a
    // pause process, and an executor's container.
    program(Group::Tests, "podman", "podman"),
    program(Group::Tests, "runc", "runc"),
    program(Group::Tests, "catatonit", "catatonit"),
    program(Group::Tests, "busybox-static", "busybox"),
    // Clients of the real-kernel tests, beside those of the test bed.
    program(Group::Tests, "nodejs", "node"),
    program(Group::Tests, "default-jdk-headless", "javac"),
    program(Group::Tests, "musl-tools", "musl-gcc"),
    program(Group::Tests, "openssl", "openssl"),
    // Freezes a table, so that the kernel refuses an agent's sign of life.
    program(Group::Tests, "bpftool", "bpftool"),
    program(Group::Machines, "qemu-system-x86", "qemu-system-x86_64"),
    program(Group::Machines, "qemu-system-arm", "qemu-system-aarch64"),
    // What links programs for the other architecture; its standard library is kept aside
    // (`vm::cross`).
    program(Group::Machines, "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    path(Group::Machines, "libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
    // Older kernels come as packages that are compressed so.
    program(Group::Machines, "xz-utils", "xz"),
];

/// The services that some of these packages would start at boot, which nobody here wants.
const SERVICES: &[&str] = &["docker-registry", "haproxy", "nginx", "nsd", "prometheus", "unbound"];

impl Package {
    /// The service that the package would start at boot.
    pub(crate) fn service(&self) -> Option<&'static str> {
        // nginx is in packages of several sizes.
        SERVICES.iter().copied().find(|service| {
            self.name == *service || self.name.strip_prefix(service) == Some("-light")
        })
    }
}

/// The packages of a Debian machine, but for the compiler, which has an alternative (see
/// `toolchain`).
pub(crate) fn packages() -> impl Iterator<Item = Package> {
    let test_bed =
        testbed::packages::DEBIAN.iter().map(|&(name, tool)| program(Group::Tests, name, tool));
    OWN.iter().copied().chain(test_bed)
}

/// Debian's compiler that ships a core library for BPF; pulls the shared libLLVM that bpf-linker is
/// linked against.
pub(crate) const DISTRIBUTION_COMPILER: &[Package] = &[
    path(Group::Toolchain, "rustc-web", "/usr/lib/rustlib/bpfel-unknown-none"),
    path(Group::Toolchain, "libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none"),
];

/// What Debian's Python lacks to make an environment.
pub(crate) const PYTHON_VENV: Package =
    path(Group::Tests, "python3-venv", "/usr/share/doc/python3-venv");

/// What a package manager calls these.
pub(crate) fn names(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        let mut names: Vec<_> = packages()
            .chain(DISTRIBUTION_COMPILER.iter().copied())
            .map(|package| package.name)
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a package is listed twice");
    }

    #[test]
    fn every_service_belongs_to_a_package() {
        let served: Vec<_> = packages().filter_map(|package| package.service()).collect();
        assert!(SERVICES.iter().all(|service| served.contains(service)), "{served:?}");
    }

    #[test]
    fn a_program_that_is_there_is_seen_and_one_that_is_not_is_missed() {
        assert!(Probe::Program("sh").present());
        assert!(!Probe::Program("no-such-program-of-ours").present());
    }
}
