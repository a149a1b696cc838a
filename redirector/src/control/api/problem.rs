//! Problems: what degrades the agent, or is worth knowing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::route::SourceName;

/// A problem, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word for programs.
    pub code: ProblemCode,
    /// The route it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// What is wrong, for a person.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether it makes the state degraded; if not, it is only worth knowing.
    pub degrades: bool,
}

impl Problem {
    /// A problem of the agent as a whole that degrades it.
    pub fn new(code: ProblemCode, message: String) -> Self {
        Self { code, source: None, message, remedy: None, degrades: true }
    }

    /// The same with a remedy.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// The same for one route.
    pub fn of_source(self, source: Option<SourceName>) -> Self {
        Self { source, ..self }
    }

    /// The same, only worth knowing.
    pub fn without_degrading(self) -> Self {
        Self { degrades: false, ..self }
    }
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The kinds of [`Problem`].
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum ProblemCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)+
            /// A code that this version does not know.
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl ProblemCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in JSON and metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

problem_codes! {
    /// No agent runs.
    AgentDead = "agent_dead",
    /// An agent runs and does not answer.
    AgentSilent = "agent_silent",
    /// The programs in the kernel belong to another version, and cannot be read.
    OtherVersion = "other_version",
    /// The configuration file is invalid, the previous configuration stays in force.
    ConfigError = "config_error",
    /// A destination has never resolved since the agent started.
    Unresolved = "unresolved",
    /// A destination has no address.
    NoBackends = "no_backends",
    /// No executor can connect to a route's addresses: their family is missing.
    UnusableFamily = "unusable_family",
    /// All backends of a route are ejected, and still used.
    AllBackendsEjected = "all_backends_ejected",
    /// Attaching failed, no cgroup matches, or a configured path is no cgroup.
    NotAttached = "not_attached",
    /// Another process had removed programs or pins, which were restored.
    Restored = "restored",
    /// The bpf file system is unmounted: redirecting ends with the agent.
    PinsLost = "pins_lost",
    /// Connects from outside of the scope are not refused with resets.
    GuardWithoutResets = "guard_without_resets",
    /// A cgroup namespace hides all cgroups but the agent's own.
    CgroupsHidden = "cgroups_hidden",
    /// The kernel rejected a route update.
    KernelUpdateFailed = "kernel_update_failed",
    /// Names without a route cannot be forwarded.
    DnsFailed = "dns_failed",
    /// A DNS upstream forwards to us.
    DnsLoop = "dns_loop",
    /// The shim has refused clients that are not in `dns.clients`.
    DnsClientsRefused = "dns_clients_refused",
    /// DNS of executors cannot be intercepted.
    NotIntercepted = "not_intercepted",
    /// This kernel refuses the packet programs, or nothing can be attached to interfaces.
    PacketUnavailable = "packet_unavailable",
    /// The packet programs could not be attached to an interface.
    InterfaceFailed = "interface_failed",
    /// Another program runs before ours on an interface, and may end the chain.
    InterfacePreceded = "interface_preceded",
    /// Replies to guests may pass our egress program by: they get names only.
    EgressBypassed = "egress_bypassed",
    /// The table of guests' flows is full, or was within the last minute.
    FlowsFull = "flows_full",
    /// A guest's interface has nearly as many flows as it may have.
    InterfaceNearLimit = "interface_near_limit",
    /// A guest's interface has too many flows, or had within the last minute.
    InterfaceOverLimit = "interface_over_limit",
    /// A backend is ejected, others serve.
    BackendEjected = "backend_ejected",
    /// The resolver fails, the last good addresses stay in use.
    StaleAddresses = "stale_addresses",
    /// A destination's name leads to addresses that are never used.
    AddressesRejected = "addresses_rejected",
    /// A destination has more addresses than a route takes.
    AddressesLeftOut = "addresses_left_out",
    /// This host lacks one of a route's `source_ips`.
    SourceIpMissing = "source_ip_missing",
    /// The caller's network namespace lacks a route's `source_ips`.
    SourceIpFailed = "source_ip_failed",
    /// Keys of the configuration take effect after a restart.
    RestartNeeded = "restart_needed",
    /// A suffix of this host's search list lies at or below a wildcard's zone.
    SearchSuffix = "search_suffix",
    /// The pool was changed, and its former virtual addresses are still redirected.
    FormerPool = "former_pool",
    /// The configuration file does not state what `*` means, and has wildcards.
    OldWildcards = "old_wildcards",
    /// The state files cannot be written; changes are refused.
    StateUnwritable = "state_unwritable",
    /// A state file was damaged and quarantined at startup, or removed and restored.
    StateFile = "state_file",
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_same_in_json_and_as_str() {
        for code in ProblemCode::ALL {
            assert_eq!(serde_json::to_value(code).expect("a word"), code.as_str());
        }
        let unknown: ProblemCode = serde_json::from_str("\"of_tomorrow\"").expect("any word");
        assert_eq!(unknown, ProblemCode::Unknown);
    }
}
