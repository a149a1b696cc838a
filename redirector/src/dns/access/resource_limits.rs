//! Limits of the queries and connections that the shim handles at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits that bound memory and file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceLimits {
    /// Queries that wait for upstreams; each has up to three sockets.
    pub(crate) forwarded: usize,
    /// TCP connections of clients, per address of ours.
    pub(crate) connections: usize,
}

/// The most file descriptors that the shim needs.
const MAX_DESCRIPTORS: u64 = 32_768;
/// Most queries that wait for upstreams.
const MAX_FORWARDED: u64 = 4096;
/// Most TCP connections per address.
const MAX_CONNECTIONS: u64 = 512;

impl ResourceLimits {
    /// Limits for the file descriptors of this process. Raises its soft limit first: the usual 1024
    /// exists for programs that use select().
    pub(crate) fn for_this_process() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let current = limit.current.unwrap_or(u64::MAX);
        let wanted = limit.maximum.unwrap_or(u64::MAX).min(MAX_DESCRIPTORS);
        if current >= wanted {
            return Self::for_descriptors(current);
        }
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => Self::for_descriptors(wanted),
            Err(_) => Self::for_descriptors(current),
        }
    }

    /// Half of the descriptors are for forwarding, with three sockets for each query, and a
    /// sixteenth for the connections of each address; the rest is for the agent.
    fn for_descriptors(descriptors: u64) -> Self {
        let part = |divisor: u64, most: u64| {
            usize::try_from((descriptors / divisor).clamp(16, most)).unwrap_or(16)
        };
        Self { forwarded: part(6, MAX_FORWARDED), connections: part(16, MAX_CONNECTIONS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_allow_few_queries_at_a_time() {
        assert_eq!(
            ResourceLimits::for_descriptors(256),
            ResourceLimits { forwarded: 42, connections: 16 }
        );
        assert_eq!(
            ResourceLimits::for_descriptors(u64::MAX),
            ResourceLimits { forwarded: 4096, connections: 512 }
        );
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_raised() {
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.unwrap_or(u64::MAX).min(MAX_DESCRIPTORS);
        // One less does not disturb what runs at the same time.
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted - 1), ..limit }).expect("lower");
        let limits = ResourceLimits::for_this_process();
        assert_eq!(limits, ResourceLimits::for_descriptors(wanted));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(wanted));
    }
}
