//! Which interfaces are guests', which are the host's own, and which are left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use crate::{
    config::{InterfaceSpec, is_match},
    datapath::{InterfaceRole, foreign_filters},
    host::{self, Link},
};

/// The names that container runtimes and network plug-ins give to the host side of a container's
/// or a guest's interface.
const GUEST_NAMES: &[&str] = &["veth", "tap", "eni", "cali", "lxc", "gke", "azv"];

/// What is done with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The programs of this role are attached.
    Attach(InterfaceRole),
    /// Only names are answered for this guest, for a reason.
    NamesOnly(String),
    /// Nothing is attached, for a reason.
    Skip(String),
}

impl Decision {
    /// The role of an interface that is attached to.
    pub(crate) fn role(&self) -> Option<InterfaceRole> {
        match self {
            Self::Attach(role) => Some(*role),
            Self::NamesOnly(_) => Some(InterfaceRole::Guest),
            Self::Skip(_) => None,
        }
    }

    /// Why nothing is attached, or only names are answered.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Attach(_) => None,
            Self::NamesOnly(reason) | Self::Skip(reason) => Some(reason),
        }
    }
}

/// What a decision takes into account beside the interface.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Every interface, by index.
    pub(crate) links: BTreeMap<u32, Link>,
    /// Those with a default route.
    pub(crate) uplinks: BTreeSet<u32>,
    /// Why packets to containers bypass the egress of their interfaces.
    pub(crate) egress_bypass: Option<String>,
}

impl Surroundings {
    /// Lists the interfaces of the calling thread's network namespace. Our own programs are those
    /// that are pinned below `bpffs`.
    pub(crate) fn read(bpffs: &Path) -> io::Result<Self> {
        let links = host::links()?.into_iter().map(|link| (link.index, link)).collect();
        let uplinks = host::uplinks()?;
        let mut surroundings = Self { links, uplinks, egress_bypass: None };
        surroundings.egress_bypass = surroundings.find_egress_bypass(bpffs);
        Ok(surroundings)
    }

    /// Cilium's host routing takes packets from the uplink straight into the containers
    /// (bpf_redirect_peer), past the egress of their interfaces. The names of programs on the TCX
    /// hook take CAP_SYS_ADMIN, so what counts is that Cilium is here and a foreign program is on
    /// an uplink's ingress.
    fn find_egress_bypass(&self, bpffs: &Path) -> Option<String> {
        self.links.values().find(|link| link.name == "cilium_host")?;
        self.uplinks.iter().find_map(|index| {
            let name = &self.links.get(index)?.name;
            let found = foreign_filters(bpffs, *index).ok()?;
            found.iter().any(|program| program.hook.ends_with("ingress")).then(|| {
                format!(
                    "Cilium's program on {name} may pass packets to containers by \
                        bpf_redirect_peer, past our egress program"
                )
            })
        })
    }
}

/// What is done with `link`.
pub(crate) fn decide(
    link: &Link,
    surroundings: &Surroundings,
    specs: &[InterfaceSpec],
) -> Decision {
    if let Some(pattern) = excluded_by(&link.name, specs) {
        return Decision::Skip(format!("excluded by `!{pattern}` of attach.interfaces"));
    }
    if !link.has_ethernet {
        return Decision::Skip("its packets have no Ethernet header".into());
    }
    if link.is_loopback {
        return Decision::Attach(InterfaceRole::Host);
    }
    if is_listed(&link.name, specs) {
        return Decision::Attach(InterfaceRole::Guest);
    }
    let role = match automatic_role(link, surroundings) {
        Ok(role) => role,
        Err(reason) => return Decision::Skip(reason),
    };
    match (role, &surroundings.egress_bypass) {
        (InterfaceRole::Host, _) => Decision::Attach(role),
        (InterfaceRole::Guest, _) if !specs.contains(&InterfaceSpec::Auto) => {
            Decision::Skip("no pattern of attach.interfaces matches it".into())
        }
        (InterfaceRole::Guest, None) => Decision::Attach(role),
        (InterfaceRole::Guest, Some(reason)) => Decision::NamesOnly(reason.clone()),
    }
}

/// The role of an interface with an Ethernet header, by kind and name.
fn automatic_role(link: &Link, surroundings: &Surroundings) -> Result<InterfaceRole, String> {
    let controller = link.controller.and_then(|index| surroundings.links.get(&index));
    if let Some(Link { kind, name, .. }) = controller
        && matches!(kind.as_str(), "bond" | "team")
    {
        return Err(format!("a port of {name}, which has the programs"));
    }
    if surroundings.uplinks.contains(&link.index) {
        return Ok(InterfaceRole::Host);
    }
    let is_guest = match link.kind.as_str() {
        // Both ends are here while a runtime is still setting up a container.
        "veth" => link.peer_is_elsewhere,
        "tun" => true,
        "netkit" => link.is_netkit_primary,
        "vrf" => return Err("a VRF: its ports are attached to".into()),
        "" | "bond" | "bridge" | "dummy" | "ipvlan" | "macvlan" | "team" | "vlan" => false,
        // A kind that this table does not know, in a container's place.
        _ => GUEST_NAMES.iter().any(|prefix| link.name.starts_with(prefix)),
    };
    Ok(if is_guest { InterfaceRole::Guest } else { InterfaceRole::Host })
}

fn excluded_by<'s>(name: &str, specs: &'s [InterfaceSpec]) -> Option<&'s str> {
    specs.iter().find_map(|spec| match spec {
        InterfaceSpec::Except(pattern) if is_match(pattern, name) => Some(pattern.as_str()),
        _ => None,
    })
}

fn is_listed(name: &str, specs: &[InterfaceSpec]) -> bool {
    specs
        .iter()
        .any(|spec| matches!(spec, InterfaceSpec::Pattern(pattern) if is_match(pattern, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: u32 = 90;
    const BOND: u32 = 91;
    const UPLINK: u32 = 92;

    fn surroundings() -> Surroundings {
        let links =
            BTreeMap::from([(BRIDGE, link("br0", "bridge")), (BOND, link("bond0", "bond"))]);
        Surroundings { links, uplinks: BTreeSet::from([UPLINK]), egress_bypass: None }
    }

    fn link(name: &str, kind: &str) -> Link {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Link { index: 5, name, kind, has_ethernet: true, ..Link::default() }
    }

    fn far_veth(name: &str) -> Link {
        Link { peer: Some(2), peer_is_elsewhere: true, ..link(name, "veth") }
    }

    fn port(of: u32, link: Link) -> Link {
        Link { controller: Some(of), ..link }
    }

    fn auto(link: &Link) -> Decision {
        decide(link, &surroundings(), &[InterfaceSpec::Auto])
    }

    #[test]
    fn roles_follow_from_kind_and_place() {
        use InterfaceRole::{Guest, Host};
        let lo = Link { is_loopback: true, ..link("lo", "") };
        let netkit = Link { is_netkit_primary: true, ..link("nk0", "netkit") };
        let uplink = Link { index: UPLINK, ..far_veth("eth0") };
        let table = [
            (lo, Host),
            (link("eth0", ""), Host),
            (port(BRIDGE, link("eth0", "")), Host),
            (uplink, Host),
            (link("br0", "bridge"), Host),
            (link("bond0", "bond"), Host),
            (link("eth0.7", "vlan"), Host),
            (link("mac0", "macvlan"), Host),
            (link("vxlan.calico", "vxlan"), Host),
            (far_veth("veth1a2b"), Guest),
            (far_veth("pod1"), Guest),
            (port(BRIDGE, far_veth("vm0")), Guest),
            (link("veth1a2b", "veth"), Host),
            (link("cilium_host", "veth"), Host),
            (link("tap0", "tun"), Guest),
            (port(BRIDGE, link("vnet3", "tun")), Guest),
            (netkit, Guest),
            (link("nk1", "netkit"), Host),
            (link("azv123", "some-new-kind"), Guest),
            (link("x0", "some-new-kind"), Host),
        ];
        for (link, role) in table {
            assert_eq!(auto(&link), Decision::Attach(role), "{link:?}");
        }
    }

    #[test]
    fn what_can_not_be_served_is_skipped_with_a_reason() {
        let tunnel = Link { has_ethernet: false, ..link("wg0", "wireguard") };
        for (link, reason) in [
            (tunnel, "no Ethernet header"),
            (port(BOND, link("eth1", "")), "a port of bond0"),
            (link("red", "vrf"), "a VRF"),
        ] {
            let Decision::Skip(found) = auto(&link) else { panic!("{link:?}") };
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn patterns_select_whatever_the_kind_and_exclude() {
        let spec = |text: &str| match text.strip_prefix('!') {
            Some(pattern) => InterfaceSpec::Except(pattern.into()),
            None if text == "auto" => InterfaceSpec::Auto,
            None => InterfaceSpec::Pattern(text.into()),
        };
        let decide = |link: &Link, specs: &[&str]| {
            let specs: Vec<_> = specs.iter().map(|text| spec(text)).collect();
            decide(link, &surroundings(), &specs)
        };
        let guest = Decision::Attach(InterfaceRole::Guest);
        let host = Decision::Attach(InterfaceRole::Host);
        assert_eq!(decide(&link("vlan7", "vlan"), &["vlan*"]), guest);
        assert_eq!(decide(&link("eth0", ""), &["vlan*"]), host);
        assert!(matches!(decide(&far_veth("veth0"), &["tap*"]), Decision::Skip(_)));
        assert_eq!(decide(&far_veth("veth0"), &["auto", "tap*"]), guest);
        let excluded = decide(&far_veth("veth0"), &["auto", "!veth*"]);
        assert_eq!(excluded.reason(), Some("excluded by `!veth*` of attach.interfaces"));
        let tunnel = Link { has_ethernet: false, ..link("tun0", "tun") };
        assert!(matches!(decide(&tunnel, &["tun0"]), Decision::Skip(_)));
    }

    #[test]
    fn guests_whose_egress_is_bypassed_get_names_only() {
        let surroundings = Surroundings { egress_bypass: Some("Cilium".into()), ..surroundings() };
        let decide = |link: &Link, specs: &[InterfaceSpec]| decide(link, &surroundings, specs);
        let auto = [InterfaceSpec::Auto];
        assert_eq!(decide(&far_veth("lxc1"), &auto), Decision::NamesOnly("Cilium".into()));
        assert_eq!(decide(&link("eth0", ""), &auto), Decision::Attach(InterfaceRole::Host));
        // Who names it knows better.
        let named = [InterfaceSpec::Pattern("lxc*".into())];
        assert_eq!(decide(&far_veth("lxc1"), &named), Decision::Attach(InterfaceRole::Guest));
    }
}
