//! What the probe is asked to do, and what it reports: JSON over its standard streams.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    connect::ConnectResult,
    dns::{DnsResult, MAX_NAMESERVERS},
    http::HttpResult,
    ssh::SshResult,
    tls::TlsResult,
};

/// What the child does.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::verify) struct Job {
    /// The name to ask for and to present.
    pub(in crate::verify) name: String,
    pub(in crate::verify) port: u16,
    /// The names to look up, in this order, until one has an address.
    pub(in crate::verify) candidates: Vec<String>,
    /// The one whose route is verified.
    pub(in crate::verify) wanted: String,
    /// The cgroup to join.
    pub(in crate::verify) cgroup: Option<PathBuf>,
    /// The process whose network namespace to join.
    pub(in crate::verify) pid: Option<u32>,
    /// The network namespace of a guest to join, instead of a process's.
    #[serde(default)]
    pub(in crate::verify) netns: Option<PathBuf>,
    /// What /etc/hosts says; DNS is not asked then.
    pub(in crate::verify) hosts: Option<IpAddr>,
    pub(in crate::verify) nameservers: Vec<SocketAddr>,
    /// The virtual addresses of the route: anything else is not connected to.
    pub(in crate::verify) expected: Vec<IpAddr>,
    /// Trusted authorities, PEM.
    pub(in crate::verify) roots: String,
    /// Where to stop.
    pub(in crate::verify) until: Until,
    /// What is spoken.
    pub(in crate::verify) protocol: Protocol,
    /// Whether an SSH server is as good as TLS.
    pub(in crate::verify) may_be_ssh: bool,
    /// The path to ask for.
    pub(in crate::verify) path: String,
    /// For each step.
    pub(in crate::verify) timeout: Duration,
    /// An address of the load balancer, to learn which source address the kernel takes towards it.
    pub(in crate::verify) backend: Option<SocketAddr>,
}

/// How long the child takes at most if each step may take `timeout`.
pub(in crate::verify) fn longest_time(timeout: Duration) -> Duration {
    /// Two names at each nameserver, and the connection's four.
    const STEPS: u32 = 2 * MAX_NAMESERVERS as u32 + 4;
    timeout * STEPS
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::verify) enum Protocol {
    /// HTTP over TLS.
    Tls,
    /// HTTP.
    Plain,
    /// SSH.
    Ssh,
}

/// The last step that is done.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The name is resolved
    Dns,
    /// A connection is made; for servers that use neither TLS nor HTTP
    Connect,
    /// The certificate is checked, or an SSH banner read
    Tls,
    /// An HTTP status is received
    #[default]
    Http,
}

/// What the child saw. A step that was not reached is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::verify) struct ProbeResult {
    /// Why the location could not be entered.
    pub(in crate::verify) entry_failure: Option<EntryFailure>,
    pub(in crate::verify) dns: Option<DnsResult>,
    /// The candidate that `dns` is about.
    pub(in crate::verify) answered_as: Option<String>,
    pub(in crate::verify) connect: Option<ConnectResult>,
    pub(in crate::verify) tls: Option<TlsResult>,
    pub(in crate::verify) http: Option<HttpResult>,
    pub(in crate::verify) ssh: Option<SshResult>,
    /// The source address that the executor's kernel takes towards the load balancer.
    pub(in crate::verify) source: Option<IpAddr>,
}

/// Why a location could not be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::verify) struct EntryFailure {
    pub(in crate::verify) why: String,
    /// Whether it is for want of privileges.
    pub(in crate::verify) not_permitted: bool,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::UdpSocket};

    use super::{super::dns, *};

    /// The names that were asked for at a nameserver: queries without their ID, as each is
    /// repeated.
    fn asked(nameserver: &UdpSocket) -> BTreeSet<Vec<u8>> {
        nameserver.set_nonblocking(true).expect("a socket");
        let mut query = [0; 512];
        let queries = std::iter::from_fn(|| {
            let length = nameserver.recv(&mut query).ok()?;
            Some(query[2..length].to_vec())
        });
        queries.collect()
    }

    #[test]
    fn there_is_time_to_ask_every_silent_nameserver() {
        const LONG: Duration = Duration::from_mins(1);
        let silent = [(); 4].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let servers = silent.each_ref().map(|socket| socket.local_addr().expect("an address"));
        let candidates = ["a.b.internal", "a.c.internal", "a"].map(str::to_owned);
        let (_, result) = dns::walk(&candidates, "a", &servers, Duration::from_millis(20));
        assert!(matches!(result, DnsResult::Failed { .. }), "{result:?}");
        let steps = silent.each_ref().map(|nameserver| asked(nameserver).len());
        assert_eq!(steps, [2, 2, 2, 0], "a suffix, then the name itself");
        assert!(longest_time(LONG) >= LONG * steps.iter().sum::<usize>() as u32);
    }
}
