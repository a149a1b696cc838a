//! The Debian packages that the tasks need, each with a way to detect it without the package
//! manager.

use std::path::Path;

use clap::ValueEnum;
use testbed::packages;

/// A set of needs; each task ensures only its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// A Rust compiler for BPF, and bpf-linker.
    Toolchain,
    /// Tools for the container image.
    Image,
    /// The customer's servers, and the clients of the tests and the demo.
    Tests,
    /// Emulators for the other kernels.
    Machines,
    /// The builder of the Debian package, and the root that it is tested in.
    Package,
    /// A checker of the dependencies' licences and sources.
    Dependencies,
    /// A compiler for Kubernetes, and what runs beside it; only `cargo xtask kube` needs it.
    Cluster,
}

/// The groups of `cargo xtask setup` without arguments.
pub(crate) const ALL: [Group; 6] = [
    Group::Toolchain,
    Group::Image,
    Group::Tests,
    Group::Machines,
    Group::Package,
    Group::Dependencies,
];

/// How a package is detected.
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

/// Packages besides those of the test bed (`testbed::packages`).
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
    // Judges the unit.
    program(Group::Tests, "systemd", "systemd-analyze"),
    // Freezes a map, so that the kernel rejects an agent's heartbeat.
    program(Group::Tests, "bpftool", "bpftool"),
    program(Group::Machines, "qemu-system-x86", "qemu-system-x86_64"),
    program(Group::Machines, "qemu-system-arm", "qemu-system-aarch64"),
    // Makes the disk of the machine with systemd and Docker.
    program(Group::Machines, "e2fsprogs", "mkfs.ext4"),
    // A linker for the other architecture; its standard library is in
    // the cache (`vm::cross`).
    program(Group::Machines, "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    path(Group::Machines, "libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
    program(Group::Package, "mmdebstrap", "mmdebstrap"),
    // Kubernetes is written in Go, and its makefiles copy files.
    program(Group::Cluster, "golang-go", "go"),
    program(Group::Cluster, "make", "make"),
    program(Group::Cluster, "rsync", "rsync"),
    program(Group::Cluster, "dpkg-dev", "dpkg-source"),
    // Unpacks the packages of older kernels.
    program(Group::Machines, "xz-utils", "xz"),
];

/// Services that some of these packages would start at boot.
const SERVICES: &[&str] = &["docker-registry", "haproxy", "nginx", "nsd", "prometheus", "unbound"];

impl Package {
    /// The service that the package would start at boot.
    pub(crate) fn service(&self) -> Option<&'static str> {
        // The package of nginx has a suffix.
        SERVICES.iter().copied().find(|service| {
            self.name == *service || self.name.strip_prefix(service) == Some("-light")
        })
    }
}

/// The packages of a Debian machine, without the compiler, which has alternatives (see
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

/// Debian's package of `venv`.
pub(crate) const PYTHON_VENV: Package =
    path(Group::Tests, "python3-venv", "/usr/share/doc/python3-venv");

/// The names of these packages.
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
    fn a_program_is_detected_by_its_name() {
        assert!(Probe::Program("sh").present());
        assert!(!Probe::Program("no-such-program-of-ours").present());
    }
}
