//! A real Kubernetes on the test bed's node: etcd, the API server, the controllers, the scheduler,
//! containerd and a kubelet, from Debian's packages. `cargo xtask kube` builds it and runs the
//! tests of this crate.
//!
//! ```text
//!   machine of its own: pid, mount, cgroup and uts namespaces ──veth── the rig's customer
//!     pods 10.244.0.0/24 (bridge cni0) · services 10.96.0.0/16 (one nft rule) · node1 198.51.100.1
//! ```
//!
//! Everything ends with the [`testbed::Rig`], and the machine's other users see none of it.

mod control_plane;
mod helm;
mod images;
mod kubectl;
mod kubernetes;
mod machine;

pub use control_plane::ControlPlane;
pub use helm::Helm;
pub use images::TOOLS_IMAGE;
pub use kubectl::Kubectl;
pub use kubernetes::Kubernetes;
pub use machine::NODE;
