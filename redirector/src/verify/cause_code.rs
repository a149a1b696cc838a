//! The code of every cause: a stable word for programs.

use serde::{Deserialize, Serialize};

macro_rules! cause_codes {
    ($($(#[$documentation:meta])* $code:ident = $name:literal,)*) => {
        /// Why a connect does not work, or what is worth knowing about it.
        /// `docs/operator.md` has the remedy for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum CauseCode {
            $($(#[$documentation])* #[serde(rename = $name)] $code,)*
        }

        impl CauseCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The code as `-o json` has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

cause_codes! {
    /// No agent runs, so DNS is not answered.
    AgentDead = "agent_dead",
    /// The agent runs and does not answer.
    AgentSilent = "agent_silent",
    /// Every backend is ejected.
    AllEjected = "all_ejected",
    /// Some backends are ejected; the others take the connects.
    BackendEjected = "backend_ejected",
    /// The connect to the load balancer failed in an unusual way.
    BackendFailed = "backend_failed",
    /// The load balancer refused the connect.
    BackendRefused = "backend_refused",
    /// The load balancer did not answer the connect.
    BackendTimeout = "backend_timeout",
    /// No route leads to the load balancer.
    BackendUnreachable = "backend_unreachable",
    /// The certificate is invalid in another way.
    BadCertificate = "bad_certificate",
    /// The certificate has expired.
    CertificateExpired = "certificate_expired",
    /// The certificate is not valid yet.
    CertificateNotYetValid = "certificate_not_yet_valid",
    /// The server requires a client certificate.
    ClientCertificate = "client_certificate",
    /// The load balancer accepted the connection and closed it.
    ClosedEarly = "closed_early",
    /// The configuration file is broken; an earlier version is in use.
    ConfigError = "config_error",
    /// The path works; the server requires credentials.
    CredentialsWanted = "credentials_wanted",
    /// The datapath refused the connect.
    Denied = "denied",
    /// The path works; the server forbids the request.
    Forbidden = "forbidden",
    /// This host forbids the connect after it was redirected.
    ForbiddenHere = "forbidden_here",
    /// A program of another owner is on the same hook.
    ForeignProgram = "foreign_program",
    /// The process is a VMM: its guest has a network stack of its own.
    GuestKernel = "guest_kernel",
    /// What a guest does not get of a route.
    GuestLimits = "guest_limits",
    /// No hook of ours saw the connect.
    HookMissed = "hook_missed",
    /// The executor's /etc/hosts has the name.
    HostsEntry = "hosts_entry",
    /// The HTTP request failed.
    HttpFailed = "http_failed",
    /// No packet program serves connects of the interface's guest.
    InterfaceNotServed = "interface_not_served",
    /// The kernel rejected a route update.
    KernelUpdateFailed = "kernel_update_failed",
    /// The executor's nameserver is on its own loopback.
    LoopbackResolver = "loopback_resolver",
    /// The server does not serve this name.
    Misdirected = "misdirected",
    /// No address of the route's destination is known.
    NoBackends = "no_backends",
    /// The executor's resolv.conf names no nameserver.
    NoNameserver = "no_nameserver",
    /// No certificate authorities were found.
    NoRoots = "no_roots",
    /// No route has this source.
    NoRoute = "no_route",
    /// The programs are attached to no cgroup.
    NotAttached = "not_attached",
    /// The answer is not HTTP.
    NotHttp = "not_http",
    /// The route is not live.
    NotLive = "not_live",
    /// The nameserver is not the shim, and its traffic is not intercepted.
    NotTheShim = "not_the_shim",
    /// The answer is no SSH banner.
    NotSsh = "not_ssh",
    /// The answer is not TLS.
    NotTls = "not_tls",
    /// The address is not a virtual address.
    NotVirtual = "not_virtual",
    /// The nameserver is not the shim; it may still forward to it.
    OtherResolver = "other_resolver",
    /// The answer is the virtual address of something else.
    OtherVip = "other_vip",
    /// The route does not list the port.
    PortNotListed = "port_not_listed",
    /// A variable sends the client to a proxy.
    Proxy = "proxy",
    /// A proxy answered in place of the server.
    ProxyAnswered = "proxy_answered",
    /// The answer is the load balancer's own address.
    RealAddress = "real_address",
    /// The search list of the job's resolver leads the name to another route.
    SearchList = "search_list",
    /// The load balancer has no healthy server.
    ServerDown = "server_down",
    /// The server reports an error.
    ServerError = "server_error",
    /// The shim can't be reached from the executor's network.
    ShimUnreachable = "shim_unreachable",
    /// The connection was accepted, and then nothing came.
    SilentAfterConnect = "silent_after_connect",
    /// The agent's heartbeat is too old.
    StaleHeartbeat = "stale_heartbeat",
    /// TLS failed in an unusual way.
    TlsFailed = "tls_failed",
    /// No common TLS version or cipher.
    TlsIncompatible = "tls_incompatible",
    /// The server refused the handshake.
    TlsRefused = "tls_refused",
    /// The certificate's issuer is not trusted.
    UnknownIssuer = "unknown_issuer",
    /// The server sends clients to a host that is no source.
    UnmappedHost = "unmapped_host",
    /// The load balancer has only addresses of a family that the executor cannot use.
    UnusableFamily = "unusable_family",
    /// The virtual address belongs to no route.
    VipWithoutRoute = "vip_without_route",
    /// The cgroup is not below one that the programs are attached to.
    WrongCgroup = "wrong_cgroup",
    /// The certificate is for another name.
    WrongName = "wrong_name",
}
