//! Attaching to cgroups that come and go.

pub(crate) mod cgroup_watch;
pub(crate) mod manager;
