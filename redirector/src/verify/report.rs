//! The results of `verify` and `explain`: shapes of `-o json`, documented in docs/reference/api.md.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    cause_code::CauseCode,
    guest_place::GuestPlace,
    probe::{CertificateInfo, Referrer},
    process::Process,
};
use crate::route::SourceName;

/// A cause, or information, with the next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The code, for programs.
    pub code: CauseCode,
    /// The cause, for a person.
    pub cause: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether it prevents the connection; false for information.
    pub prevents: bool,
}

impl Finding {
    /// Something that prevents the connection.
    pub(crate) fn new(code: CauseCode, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), next: Some(next.into()), prevents: true }
    }

    /// Information that prevents nothing.
    pub(crate) fn note(code: CauseCode, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { prevents: false, ..Self::new(code, cause, next) }
    }
}

/// `redirector verify -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// [`crate::control::api::VERSION`].
    pub version: u32,
    /// Whether every step is done and nothing prevents a client from doing the same.
    pub ok: bool,
    /// The name that was verified.
    pub name: String,
    /// The port.
    pub port: u16,
    /// The route that serves the name; null when none does.
    pub route: Option<SourceName>,
    /// The name that was looked up: with a search list, perhaps not the one that was given.
    #[serde(default)]
    pub answered_as: Option<String>,
    /// Where `verify` acted from; null when nothing was done.
    pub vantage: Option<Vantage>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Where the answers sent the client, and what was seen there.
    #[serde(default)]
    pub followed: Vec<Followed>,
    /// What was found; the first that `prevents` is the cause of the failure.
    pub findings: Vec<Finding>,
    /// The server's certificate, when one was shown.
    pub certificate: Option<CertificateInfo>,
    /// The expected and the actual source addresses of connects.
    pub source: SourceAddresses,
    /// The platform's own acceptance test: a line for a shell.
    pub command: Option<String>,
}

/// Where `verify` acted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vantage {
    /// The cgroup.
    pub cgroup: PathBuf,
    /// The process that `verify` acted for; null for a cgroup and the node's own network.
    pub process: Option<Process>,
    /// The place of a guest that `verify` acted from; null without `--netns` and `--interface`.
    #[serde(default)]
    pub guest: Option<GuestPlace>,
    /// The nameservers that were queried.
    pub nameservers: Vec<IpAddr>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `dns`, `connect`, `tls`, `ssh` or `http`.
    pub step: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// What was seen, for a person.
    pub detail: String,
}

/// A place that an answer referred to, and what was seen there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// What referred to it.
    pub by: Referrer,
    /// The URL.
    pub url: String,
    /// Its route.
    pub route: Option<SourceName>,
    /// The steps, as for the target.
    pub steps: Vec<Step>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Well.
    Ok,
    /// Not well; nothing after it was tried.
    Failed,
}

/// The source addresses of connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAddresses {
    /// The route's `source_ips`; empty when it leaves the choice to the kernel.
    pub expected: Vec<IpAddr>,
    /// What the executor's own network takes towards the load balancer, before any translation.
    pub executor: Option<IpAddr>,
    /// What this node takes towards the load balancer.
    pub node: Option<IpAddr>,
}

impl SourceAddresses {
    /// As text.
    pub(super) fn label(&self) -> String {
        let list = |addresses: &[IpAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
        };
        let actual = match (self.node, self.executor) {
            (Some(node), Some(executor)) if node != executor => {
                format!("{node} (this node's; the executor's own is {executor})")
            }
            (Some(one), _) | (None, Some(one)) => one.to_string(),
            (None, None) => "unknown: no route leads there".into(),
        };
        match self.expected.as_slice() {
            [] => {
                format!("the source address towards it is {actual}, unless it is translated later")
            }
            expected => format!("expected source address {}, got {actual}", list(expected)),
        }
    }

    /// Whether connects leave with another address than the route says.
    pub(super) fn wrong(&self) -> bool {
        let actual = self.node.or(self.executor);
        !self.expected.is_empty() && actual.is_some_and(|actual| !self.expected.contains(&actual))
    }
}

/// `redirector explain -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// [`crate::control::api::VERSION`].
    pub version: u32,
    /// The name or address that was explained.
    pub target: String,
    /// What a connect would do, in one line.
    pub verdict: String,
    /// Whether it would be redirected, and nothing that is known prevents it.
    pub redirected: bool,
    /// The path of a connect, one stage each: name, virtual address, route, backends, hook.
    pub path: Vec<PathStage>,
    /// The names that the process's resolver asks for, in this order, each with its route.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// What would prevent it, the first first; then what is worth knowing.
    pub findings: Vec<Finding>,
    /// The process, when one was named.
    pub process: Option<Process>,
    /// The virtual address, when there is one.
    pub vip: Option<Ipv4Addr>,
    /// The addresses that a connect may go to.
    pub backends: Vec<IpAddr>,
}

/// A name that the resolver asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The name.
    pub name: String,
    /// The route that serves it; null if its nameserver answers.
    pub route: Option<SourceName>,
}

/// One stage of a connect's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStage {
    /// `name`, `vip`, `route`, `port`, `backends`, `hook` or `process`.
    pub stage: String,
    /// What it is.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_operators_page_has_every_code_and_no_other() {
        let codes: BTreeSet<String> =
            CauseCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
        let page = include_str!("../../../docs/operator.md");
        let rows = page
            .lines()
            .skip_while(|line| !line.starts_with("| code |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let documented: BTreeSet<String> = rows
            .flat_map(|row| {
                row.split('|')
                    .nth(1)
                    .unwrap_or_default()
                    .split(',')
                    .map(|code| code.trim().trim_matches('`').to_owned())
            })
            .collect();
        assert!(codes.len() > 40, "{codes:?}");
        assert_eq!(documented, codes);
    }
}
