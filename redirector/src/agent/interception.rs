//! Whose DNS goes to the shim: what the configuration wants, where we are attached, and what this
//! host allows.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::{
    agent::event_loop::Owner,
    config::{Config, Intercept},
    control::api,
    datapath::{self, Datapath, InterceptScope, ShimEndpoint},
    dns::{BoundShim, InterceptPorts},
    error::error_chain,
};

/// DNS interception.
pub(crate) struct Interception {
    /// Where the shim takes intercepted DNS, or why it can't.
    ports: Result<InterceptPorts, WhyNot>,
    /// What is intercepted now, or why nothing is.
    pub(crate) now: Result<InterceptScope, WhyNot>,
}

/// Why nothing is intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WhyNot {
    /// In words.
    pub(crate) reason: String,
    /// Whether that is what the configuration wants.
    pub(crate) wanted: bool,
}

impl WhyNot {
    fn as_wanted(reason: &str) -> Self {
        Self { reason: reason.to_owned(), wanted: true }
    }
}

const AT_ROOT: &str = "the programs are attached at the root, and a whole host's DNS is not taken \
    unasked: dns.intercept = \"on\" does";

impl Interception {
    /// Opens the shim's ports for it, and tells the datapath where they are. Nothing is intercepted
    /// yet.
    pub(crate) fn prepare(
        shim: Option<&mut BoundShim>,
        datapath: &mut Datapath,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let ports = match shim {
            None => Err(WhyNot::as_wanted("dns.listen is empty, so there is no DNS shim")),
            Some(_) if config.dns.intercept == Intercept::Off => {
                Err(WhyNot::as_wanted("dns.intercept is \"off\""))
            }
            Some(shim) => {
                let resolver_of = datapath.resolver_lookup();
                let ports = shim.intercept(
                    datapath::DNS_SLOTS,
                    Box::new(move |slot| resolver_of.resolver(slot)),
                );
                ports.map_err(|error| WhyNot { reason: error_chain(&error), wanted: false })
            }
        };
        let at = ports.as_ref().map_or_else(
            |_| ShimEndpoint::default(),
            |ports| ShimEndpoint {
                ipv4: ports.ipv4,
                ipv6: ports.ipv6,
                first_port: ports.first_port,
            },
        );
        datapath.set_shim(&at)?;
        Ok(Self { ports, now: Err(WhyNot::as_wanted("the agent is starting")) })
    }

    /// What is to be intercepted, where the programs are attached at the root, or are not.
    fn wanted(&self, intercept: &Intercept, at_root: bool) -> Result<InterceptScope, WhyNot> {
        if let Err(why_not) = &self.ports {
            return Err(why_not.clone());
        }
        if *intercept == Intercept::Auto && at_root {
            return Err(WhyNot::as_wanted(AT_ROOT));
        }
        Ok(match intercept {
            Intercept::Resolvers(resolvers) => InterceptScope::Listed(resolvers.clone()),
            _ => InterceptScope::Everything,
        })
    }

    /// The resolvers of the configuration that no address of the shim's can answer for.
    pub(crate) fn unserved(&self, intercept: &Intercept) -> Vec<IpAddr> {
        let (Intercept::Resolvers(resolvers), Ok(ports)) = (intercept, &self.ports) else {
            return Vec::new();
        };
        let served = |resolver: &IpAddr| {
            if resolver.is_ipv4() { ports.ipv4.is_some() } else { ports.ipv6.is_some() }
        };
        resolvers.iter().filter(|resolver| !served(resolver)).copied().collect()
    }

    /// The first of the host's own nameservers whose family the shim has no address of, when every
    /// resolver's DNS is to be intercepted: executors often have the host's.
    pub(crate) fn out_of_family(
        &self,
        nameservers: impl IntoIterator<Item = IpAddr>,
    ) -> Option<IpAddr> {
        let (Ok(InterceptScope::Everything), Ok(ports)) = (&self.now, &self.ports) else {
            return None;
        };
        // A loopback or link-local one is no executor's by its address.
        let is_others = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        nameservers.into_iter().find(|ip| ports.ipv6.is_none() && is_others(ip))
    }
}

impl Owner {
    /// Brings interception to what is wanted now.
    pub(crate) fn intercept(&mut self) {
        let wanted = self.interception.wanted(&self.at_start.dns.intercept, self.attached.at_root);
        if wanted == self.interception.now {
            return;
        }
        let what = wanted.clone().unwrap_or_default();
        self.interception.now = match self.live.datapath.intercept(&what) {
            Ok(()) => wanted,
            Err(error) => Err(WhyNot { reason: error_chain(&error), wanted: false }),
        };
        match &self.interception.now {
            Ok(InterceptScope::Listed(resolvers)) => {
                info!(?resolvers, "the DNS of executors to these resolvers goes to the shim")
            }
            Ok(_) => info!("the DNS of executors goes to the shim"),
            Err(why) => info!("the DNS of executors is left alone: {}", why.reason),
        }
    }

    /// Leaves DNS alone from here on, for as long as nobody answers.
    pub(crate) fn stop_intercepting(&mut self) {
        if let Err(error) = self.live.datapath.intercept(&InterceptScope::Nothing) {
            warn!(
                "failed to end the interception of DNS; it ends by itself within 2 s: {}",
                error_chain(&error)
            );
        }
    }

    /// Gives other resolvers the slots of those that nobody asks any more. While nothing is
    /// intercepted, nobody wants one.
    pub(crate) fn free_idle_resolvers(&mut self) {
        if self.interception.now.is_err() {
            return;
        }
        if let Err(error) = self.live.datapath.release_idle_resolvers() {
            warn!(
                "failed to look for resolvers that nobody asks any more: {}",
                error_chain(&error)
            );
        }
    }

    /// For `status`.
    pub(crate) fn interception_info(&self) -> api::InterceptionInfo {
        let found = self.live.datapath.interception().unwrap_or_default();
        info(found, self.interception.now.as_ref().map(drop).map_err(|why| why.reason.clone()))
    }
}

/// What the tables tell, in the API's shape; and whether it is on, or why it is not.
pub(crate) fn info(
    found: datapath::InterceptionStatus,
    now: Result<(), String>,
) -> api::InterceptionInfo {
    let resolver = |at: datapath::InterceptedResolver| api::InterceptedResolver {
        address: at.address,
        intercepted: at.intercepted,
    };
    api::InterceptionInfo {
        on: now.is_ok(),
        reason: now.err(),
        listed_only: found.listed_only,
        resolvers: found.resolvers.into_iter().map(resolver).collect(),
        bypassed_heartbeat_stale: found.heartbeat_stale,
        bypassed_resolver_slots_full: found.slots_full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interception(ports: Result<InterceptPorts, WhyNot>) -> Interception {
        Interception { ports, now: Ok(InterceptScope::Nothing) }
    }

    fn ports() -> InterceptPorts {
        InterceptPorts { ipv4: Some([169, 254, 20, 53].into()), ipv6: None, first_port: 5310 }
    }

    #[test]
    fn auto_takes_the_dns_of_pods_and_leaves_a_whole_hosts_alone() {
        let ready = interception(Ok(ports()));
        assert_eq!(ready.wanted(&Intercept::Auto, false), Ok(InterceptScope::Everything));
        let why = ready.wanted(&Intercept::Auto, true).expect_err("the root");
        assert!(why.wanted && why.reason.contains("\"on\""), "{why:?}");
        assert_eq!(ready.wanted(&Intercept::On, true), Ok(InterceptScope::Everything));
        let listed = vec![IpAddr::from([10, 96, 0, 10])];
        assert_eq!(
            ready.wanted(&Intercept::Resolvers(listed.clone()), true),
            Ok(InterceptScope::Listed(listed))
        );
    }

    #[test]
    fn what_is_not_possible_is_told_from_what_is_not_wanted() {
        let taken = interception(Err(WhyNot {
            reason: "failed to bind UDP 169.254.20.53:5310".to_owned(),
            wanted: false,
        }));
        for intercept in
            [Intercept::Auto, Intercept::On, Intercept::Resolvers(vec![[10, 96, 0, 10].into()])]
        {
            let why = taken.wanted(&intercept, false).expect_err("no port");
            assert!(!why.wanted && why.reason.contains("5310"), "{why:?}");
        }
        assert!(
            interception(Err(WhyNot::as_wanted("off")))
                .wanted(&Intercept::Off, false)
                .expect_err("off")
                .wanted
        );
    }

    #[test]
    fn a_nameserver_of_the_host_that_the_shim_can_not_answer_for_is_named() {
        let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0x53]);
        let (four, link_local) =
            (IpAddr::from([10, 96, 0, 10]), "fe80::1".parse().expect("an address"));
        let mut interception = interception(Ok(ports()));
        assert_eq!(interception.out_of_family([four, six]), None, "nothing is intercepted");
        interception.now = Ok(InterceptScope::Everything);
        assert_eq!(interception.out_of_family([four, link_local, six]), Some(six));
        interception.ports =
            Ok(InterceptPorts { ipv6: Some([0xfd00, 0, 0, 0, 0, 0, 0, 0x54].into()), ..ports() });
        assert_eq!(interception.out_of_family([four, six]), None);
    }

    #[test]
    fn a_listed_resolver_of_a_family_that_the_shim_lacks_is_named() {
        let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0x53]);
        let intercept = Intercept::Resolvers(vec![[10, 96, 0, 10].into(), six]);
        assert_eq!(interception(Ok(ports())).unserved(&intercept), [six]);
        assert_eq!(interception(Ok(ports())).unserved(&Intercept::Auto), Vec::<IpAddr>::new());
    }
}
