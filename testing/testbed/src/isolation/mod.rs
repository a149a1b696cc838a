//! The isolation of a rig from the machine: namespaces, mounts, cgroups, and their removal.

pub(crate) mod cgroup;
pub(crate) mod cleanup;
pub(crate) mod descriptors;
pub(crate) mod isolated_netns;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod rig_name;
pub(crate) mod sandbox;
pub(crate) mod scope;
pub(crate) mod sysctl;
