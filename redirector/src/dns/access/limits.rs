//! How much the shim takes on at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits that keep memory and descriptors bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Queries that may wait for upstreams; each has up to three sockets.
    pub(crate) forwarded: usize,
    /// Of these, those of one client.
    pub(crate) share: usize,
    /// TCP connections of clients, on one address.
    pub(crate) connections: usize,
    /// Of these, those of one client, or of all strangers.
    pub(crate) connections_share: usize,
}

/// More descriptors than this are never needed.
const DESCRIPTORS: u64 = 16_384;
/// Queries that wait for upstreams, where descriptors allow.
const FORWARDED: u64 = 4096;
/// TCP connections on one address, where descriptors allow.
const CONNECTIONS: u64 = 512;

impl Limits {
    /// What the descriptors of this process allow, its soft limit raised as far as that needs:
    /// 1024, which most services inherit, is a limit for programs that use select().
    pub(crate) fn of_this_process() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let now = limit.current.unwrap_or(u64::MAX);
        let wanted = limit.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS);
        if now >= wanted {
            return Self::for_descriptors(now);
        }
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        {
            Ok(()) => Self::for_descriptors(wanted),
            Err(_) => Self::for_descriptors(now),
        }
    }

    /// Three quarters of them for forwarding, an eighth for connections; the rest is the agent's.
    fn for_descriptors(descriptors: u64) -> Self {
        let share = |part: u64, most: u64| {
            usize::try_from((descriptors / part).clamp(16, most)).unwrap_or(16)
        };
        let forwarded = share(4, FORWARDED);
        let connections = share(8, CONNECTIONS);
        Self { forwarded, share: forwarded / 4, connections, connections_share: connections / 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_mean_few_queries_at_a_time() {
        assert_eq!(
            Limits::for_descriptors(256),
            Limits { forwarded: 64, share: 16, connections: 32, connections_share: 8 }
        );
        assert_eq!(
            Limits::for_descriptors(u64::MAX),
            Limits { forwarded: 4096, share: 1024, connections: 512, connections_share: 128 }
        );
    }
}
