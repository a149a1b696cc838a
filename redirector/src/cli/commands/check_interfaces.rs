//! The rows of `redirector check` about this host's interfaces.

use crate::{
    agent::{Surroundings, decide},
    config::{Config, DnsClients},
    datapath::{self, Check as Checked, DatapathError, ForeignProgram, InterfaceRole},
    host,
};

/// Which interfaces are guests' and which the host's own.
pub(crate) fn roles(config: &Config) -> Checked {
    const NAME: &str = "interfaces";
    let specs = &config.attach.interfaces;
    if specs.is_empty() {
        return Checked::ok(NAME, "none: attach.interfaces is `off`");
    }
    let surroundings = match Surroundings::read(&config.agent.bpffs) {
        Ok(surroundings) => surroundings,
        Err(error) => return Checked::ok(NAME, format!("unknown: {error}")),
    };
    let (mut guests, mut own, mut left_alone) = (Vec::new(), Vec::new(), Vec::new());
    for link in surroundings.links.values() {
        let decision = decide(link, &surroundings, specs);
        match decision.role() {
            Some(InterfaceRole::Guest) => guests.push(link.name.as_str()),
            Some(InterfaceRole::Host) => own.push(link.name.as_str()),
            None => left_alone.push(link.name.as_str()),
        }
    }
    let found = format!(
        "guests': {}; the host's own: {}; left alone: {}",
        listed(&guests),
        listed(&own),
        listed(&left_alone)
    );
    match &surroundings.egress_bypass {
        None => Checked::ok(NAME, found),
        Some(reason) => Checked::warning(
            NAME,
            format!("{found}; guests get names only: {reason}"),
            "if `cilium status` reports legacy host routing, list the interfaces: \
                attach.interfaces = [\"auto\", \"lxc*\"]",
        ),
    }
}

/// Which clients the shim answers.
pub(crate) fn dns_clients(config: &Config) -> Checked {
    const NAME: &str = "dns_clients";
    if config.dns.listen.is_empty() {
        return Checked::ok(NAME, "dns.listen is empty: there is no shim");
    }
    let mut networks: Vec<_> =
        config.dns.real_address_clients.iter().map(ToString::to_string).collect();
    let mut local = None;
    for client in &config.dns.clients {
        match client {
            DnsClients::Local => {
                let interfaces = host::executor_interfaces().unwrap_or_default();
                let interfaces: Vec<_> = interfaces.iter().map(String::as_str).collect();
                local = Some(format!("this host, clients behind: {}", listed(&interfaces)));
            }
            DnsClients::Network(network) => networks.push(network.to_string()),
        }
    }
    let networks: Vec<_> = networks.iter().map(String::as_str).collect();
    let networks = (!networks.is_empty()).then(|| format!("networks: {}", listed(&networks)));
    let answered: Vec<_> = local.into_iter().chain(networks).collect();
    Checked::ok(NAME, format!("the shim answers {}", answered.join("; ")))
}

/// A few names, and the number of the others.
fn listed(names: &[&str]) -> String {
    const MAX_NAMES: usize = 5;
    match names {
        [] => "none".to_owned(),
        few if few.len() <= MAX_NAMES => few.join(", "),
        many => format!("{} and {} more", many[..MAX_NAMES].join(", "), many.len() - MAX_NAMES),
    }
}

/// Programs and filters of other owners on the interfaces' hooks.
pub(crate) fn foreign_filters(config: &Config) -> Checked {
    const NAME: &str = "foreign_filters";
    /// More interfaces than this have the same owner's programs, as a rule.
    const MAX_INTERFACES: usize = 64;
    let links = match host::links() {
        Ok(links) => links,
        Err(error) => return Checked::ok(NAME, format!("unknown: {error}")),
    };
    let mut labels = Vec::new();
    for link in links.iter().take(MAX_INTERFACES) {
        match datapath::foreign_filters(&config.agent.bpffs, link.index) {
            Ok(found) => labels.extend(found.iter().map(|program| label(&link.name, program))),
            Err(DatapathError::NotPermitted { .. }) => {
                return Checked::ok(NAME, "unknown: not permitted to list the programs");
            }
            // An interface that is gone by now.
            Err(_) => {}
        }
    }
    match labels.as_slice() {
        [] => Checked::ok(NAME, "no other program is on the interfaces' hooks"),
        labels => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            Checked::ok(NAME, format!("ours go in front of: {}", listed(&labels)))
        }
    }
}

fn label(interface: &str, program: &ForeignProgram) -> String {
    let ForeignProgram { hook, id, name, .. } = program;
    format!("{} (ID {id}) on {hook} of {interface}", name.as_deref().unwrap_or("a program"))
}
