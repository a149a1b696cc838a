//! Guests: workloads whose sockets no cgroup program of the node sees, or whose packets take
//! another way than those of a pod behind a veth pair.
//!
//! ```text
//!   MicroVm          qemu ── tap0 ─ br0 ─ eth0 │ vm1 ─ ignite0 (node, the platform's iptables)
//!                    or tap0 and eth0 mirrored to each other, as Kata does
//!   GVisor           runsc's own network stack ─ eth0 │ pod1 (node)
//!   NestedDocker     container ─ docker0 (in the pod) ─ eth0 │ pod1 (node)
//!   PodmanContainer  container ─ eth0 │ podman's bridge (node)
//!   RootlessGuest,   tap0 ─ slirp4netns or pasta (a process in the node's network)
//!   RootlessPodman
//!   Macvlan          eth0, a child of the node's uplink
//! ```

mod containers;
mod guest;
mod gvisor;
mod initramfs;
mod macvlan;
mod micro_vm;
mod micro_vm_host;
mod nested_docker;
mod podman;
mod rootless_guest;
mod rootless_podman;
mod rootless_user;
mod serial_shell;

pub use guest::Guest;
pub use gvisor::GVisor;
pub use macvlan::Macvlan;
pub use micro_vm::{MicroVm, MicroVmOptions, Wiring};
pub use micro_vm_host::MicroVmHost;
pub use nested_docker::NestedDocker;
pub use podman::PodmanContainer;
pub use rootless_guest::{Carrier, RootlessGuest};
pub use rootless_podman::RootlessPodman;
pub use rootless_user::RootlessUser;
pub use serial_shell::SerialShell;
