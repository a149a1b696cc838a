//! What people use instead, one file for each, behind one trait.

pub(crate) mod bpf_maps;
pub(crate) mod cgroup_programs;
pub(crate) mod direct;
pub(crate) mod dnsmasq;
pub(crate) mod haproxy;
pub(crate) mod lineup;
pub(crate) mod netfilter;
pub(crate) mod peer;
pub(crate) mod redirector;
pub mod report;
pub(crate) mod site;
pub(crate) mod socket_lb;
