//! Attaching to cgroups and interfaces that come and go.

pub(crate) mod cgroup_watch;
pub(crate) mod interface_manager;
pub(crate) mod interface_roles;
pub(crate) mod manager;
pub(crate) mod pod_scope;
