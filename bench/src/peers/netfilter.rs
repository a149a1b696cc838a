//! Address translation by the kernel: nftables with a rule for each route or with a map, and
//! iptables, both of nftables and legacy. Rules are at the output of the client's network
//! namespace, as those of a Kubernetes service proxy are on the node.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use testbed::{Executor, Sandbox, packages, process};

use super::{
    peer::{FIRST_VIP, Peer, Routes, vip},
    site::Site,
};

/// Longest time of a command: with 50,000 rules each takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Which rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// nftables, a rule for each route.
    Rules,
    /// nftables, one rule with a map.
    Map,
    /// `iptables-nft`.
    IptablesNft,
    /// `iptables-legacy`.
    IptablesLegacy,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Rules, Self::Map, Self::IptablesNft, Self::IptablesLegacy];

    fn program(self) -> &'static str {
        match self {
            Self::Rules | Self::Map => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// A client whose connects the kernel translates.
pub(crate) struct Netfilter {
    kind: Kind,
    port: u16,
    routes: u32,
    /// Of the rule that is changed next.
    handle: String,
    executor: Executor,
}

impl Netfilter {
    /// A client without rules yet.
    pub(crate) fn new(site: &Site, kind: Kind) -> Result<Self> {
        let name = match kind {
            Kind::Rules => "nftrules",
            Kind::Map => "nftmap",
            Kind::IptablesNft => "iptablesnft",
            Kind::IptablesLegacy => "iptableslegacy",
        };
        let (port, executor) = (site.port, site.executor(name)?);
        Ok(Self { kind, port, routes: 0, handle: String::new(), executor })
    }

    /// Whether the kernel has it: newer ones may be built without the legacy tables.
    pub(crate) fn is_supported(&self) -> Result<bool> {
        let mut list = self.command(self.kind.program())?;
        list.args(if self.kind.program() == "nft" {
            &["list", "ruleset"][..]
        } else {
            &["-w", "-t", "nat", "-S"]
        });
        Ok(process::finish(list, LIMIT)?.status.success())
    }

    fn command(&self, program: &str) -> Result<Command> {
        Ok(self.sandbox().command(packages::path_of(program)?))
    }

    /// Runs a script of `nft`; returns its output.
    fn nft(&self, script: &str) -> Result<String> {
        let mut nft = self.command("nft")?;
        nft.args(["-f", "-"]);
        Ok(process::finish_with_input(nft, script.as_bytes(), LIMIT)?
            .success()
            .context("failed to set up nftables")?
            .stdout)
    }

    fn rules(&self, routes: Routes) -> String {
        (0..routes.count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "  {}", self.rule(number, routes.backends));
            text
        })
    }

    fn rule(&self, number: u32, backends: &[Ipv4Addr]) -> String {
        let (vip, port) = (vip(number), self.port);
        match backends {
            [backend] => format!("ip daddr {vip} tcp dport {port} dnat to {backend}:{port}"),
            _ => {
                let numbered = backends.iter().enumerate();
                let map: Vec<_> = numbered.map(|(n, backend)| format!("{n} : {backend}")).collect();
                let (count, map) = (map.len(), map.join(", "));
                format!(
                    "ip daddr {vip} tcp dport {port} dnat to numgen random mod {count} \
                     map {{ {map} }}"
                )
            }
        }
    }

    fn element(&self, number: u32, backend: Ipv4Addr) -> String {
        format!("{} . {port} : {backend} . {port}", vip(number), port = self.port)
    }

    fn map(&self, routes: Routes) -> String {
        let elements: Vec<_> =
            (0..routes.count).map(|number| self.element(number, routes.backends[0])).collect();
        format!(
            " map routes {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; \
             elements = {{ {} }} }}\n",
            elements.join(", ")
        )
    }

    fn load_nft(&self, routes: Routes) -> Result<()> {
        let (map, rules) = if self.kind == Kind::Map {
            let rule = "  dnat ip to ip daddr . tcp dport map @routes\n".to_owned();
            (self.map(routes), rule)
        } else {
            (String::new(), self.rules(routes))
        };
        // One transaction, whether there is a table or not.
        self.nft(&format!(
            "table ip peer\ndelete table ip peer\ntable ip peer {{\n{map} chain output {{\n  \
             type nat hook output priority -100;\n{rules} }}\n}}\n"
        ))
        .map(drop)
    }

    fn iptables_rule(&self, number: u32, backend: Ipv4Addr, matches: &str) -> String {
        let (vip, port) = (vip(number), self.port);
        format!(
            "-d {vip}/32 -p tcp -m tcp --dport {port} {matches}-j DNAT --to-destination \
             {backend}:{port}"
        )
    }

    fn load_iptables(&self, routes: Routes) -> Result<()> {
        let mut text = "*nat\n".to_owned();
        for number in 0..routes.count {
            for (position, backend) in routes.backends.iter().enumerate() {
                let left = routes.backends.len() - position;
                let matches = if left > 1 {
                    format!("-m statistic --mode random --probability {} ", 1.0 / left as f64)
                } else {
                    String::new()
                };
                let rule = self.iptables_rule(number, *backend, &matches);
                let _ = writeln!(text, "-A OUTPUT {rule}");
            }
        }
        text.push_str("COMMIT\n");
        let program = format!("{}-restore", self.kind.program());
        let restore = self.command(&program)?;
        process::finish_with_input(restore, text.as_bytes(), LIMIT)?
            .success()
            .with_context(|| format!("failed to run {program}"))?;
        Ok(())
    }

    /// The handle of a route's rule, which `nft replace` needs.
    fn find_handle(&self, number: u32) -> Result<String> {
        let list = self.nft_list()?;
        let of_rule = format!(" {} ", vip(number));
        list.lines()
            .find(|line| line.contains(&of_rule))
            .and_then(|line| line.rsplit_once("# handle "))
            .map(|(_, handle)| handle.trim().to_owned())
            .with_context(|| format!("route {number} has no rule in:\n{list}"))
    }

    fn nft_list(&self) -> Result<String> {
        let mut nft = self.command("nft")?;
        nft.args(["-a", "list", "chain", "ip", "peer", "output"]);
        Ok(process::finish(nft, LIMIT)?.success().context("failed to list rules")?.stdout)
    }
}

impl Peer for Netfilter {
    fn label(&self) -> &'static str {
        match self.kind {
            Kind::Rules => "nftables, rules",
            Kind::Map => "nftables, map",
            Kind::IptablesNft => "iptables-nft",
            Kind::IptablesLegacy => "iptables-legacy",
        }
    }

    fn sandbox(&self) -> &Sandbox {
        self.executor.sandbox()
    }

    /// An element of the map has one address.
    fn balances(&self) -> bool {
        self.kind != Kind::Map
    }

    fn load(&mut self, routes: Routes) -> Result<()> {
        self.routes = routes.count;
        match self.kind {
            Kind::Rules | Kind::Map => self.load_nft(routes),
            Kind::IptablesNft | Kind::IptablesLegacy => self.load_iptables(routes),
        }
    }

    fn spread(&self) -> u32 {
        self.routes
    }

    fn first_target(&self) -> SocketAddrV4 {
        SocketAddrV4::new(FIRST_VIP, self.port)
    }

    fn prepare_change(&mut self, number: u32) -> Result<()> {
        if self.kind == Kind::Rules {
            self.handle = self.find_handle(number)?;
        }
        Ok(())
    }

    fn change(&mut self, number: u32, backend: Ipv4Addr) -> Result<()> {
        match self.kind {
            Kind::Rules => {
                let (handle, rule) = (&self.handle, self.rule(number, &[backend]));
                self.nft(&format!("replace rule ip peer output handle {handle} {rule}\n"))?;
            }
            Kind::Map => {
                let (key, new) =
                    (format!("{} . {}", vip(number), self.port), self.element(number, backend));
                self.nft(&format!(
                    "delete element ip peer routes {{ {key} }}\n\
                     add element ip peer routes {{ {new} }}\n"
                ))?;
            }
            Kind::IptablesNft | Kind::IptablesLegacy => {
                let mut iptables = self.command(self.kind.program())?;
                let position = (number + 1).to_string();
                iptables.args(["-w", "-t", "nat", "-R", "OUTPUT", &position]);
                iptables.args(self.iptables_rule(number, backend, "").split(' '));
                process::finish(iptables, LIMIT)?
                    .success()
                    .with_context(|| format!("failed to run {}", self.kind.program()))?;
            }
        }
        Ok(())
    }
}
