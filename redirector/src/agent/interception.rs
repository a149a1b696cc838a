//! DNS interception: which queries of executors go to the shim, given the configuration, the
//! attached cgroups, and what this host allows.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::{
    config::{Config, Intercept},
    control::api,
    datapath::{self, Datapath, InterceptScope, InterceptionStatus, ShimEndpoint},
    dns::{BoundShim, InterceptPorts},
    error::error_chain,
};

/// DNS interception.
pub(crate) struct Interception {
    /// Where the shim receives intercepted queries.
    ports: Result<InterceptPorts, Disabled>,
    /// What is intercepted now.
    current: Result<InterceptScope, Disabled>,
}

/// Why nothing is intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disabled {
    /// The reason, for a person.
    pub(crate) reason: String,
    /// Whether the configuration disables it, rather than a fault.
    pub(crate) by_config: bool,
}

impl Disabled {
    fn by_config(reason: &str) -> Self {
        Self { reason: reason.to_owned(), by_config: true }
    }

    fn by_fault(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { reason: error_chain(error), by_config: false }
    }
}

const AT_ROOT: &str = "the programs are attached at the root, and the DNS of a whole host is \
    intercepted only with dns.intercept = \"on\"";

impl Interception {
    /// Opens the shim's ports for intercepted queries, and passes them to the datapath. Nothing is
    /// intercepted yet.
    pub(crate) fn prepare(
        shim: Option<&mut BoundShim>,
        datapath: &mut Datapath,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let ports = match shim {
            None => Err(Disabled::by_config("dns.listen is empty, so there is no DNS shim")),
            Some(_) if config.dns.intercept == Intercept::Off => {
                Err(Disabled::by_config("dns.intercept is \"off\""))
            }
            Some(shim) => {
                let resolvers = datapath.resolver_lookup();
                shim.intercept(datapath::DNS_SLOTS, Box::new(move |slot| resolvers.resolver(slot)))
                    .map_err(|error| Disabled::by_fault(&error))
            }
        };
        let endpoint = ports.as_ref().map_or_else(
            |_| ShimEndpoint::default(),
            |ports| ShimEndpoint {
                ipv4: ports.ipv4,
                ipv6: ports.ipv6,
                first_port: ports.first_port,
            },
        );
        datapath.set_shim(&endpoint)?;
        Ok(Self { ports, current: Err(Disabled::by_config("the agent is starting")) })
    }

    /// What is intercepted now, or why nothing is.
    pub(crate) fn current(&self) -> Result<&InterceptScope, &Disabled> {
        self.current.as_ref()
    }

    /// Intercepts what the configuration wants, given whether the programs are attached at the
    /// root.
    pub(crate) fn update(&mut self, datapath: &mut Datapath, intercept: &Intercept, at_root: bool) {
        let wanted = self.wanted(intercept, at_root);
        if wanted == self.current {
            return;
        }
        self.current = match datapath.intercept(&wanted.clone().unwrap_or_default()) {
            Ok(()) => wanted,
            Err(error) => Err(Disabled::by_fault(&error)),
        };
        match &self.current {
            Ok(InterceptScope::Listed(resolvers)) => {
                info!(?resolvers, "DNS of executors to these resolvers is intercepted")
            }
            Ok(_) => info!("DNS of executors is intercepted"),
            Err(disabled) => info!("DNS of executors is not intercepted: {}", disabled.reason),
        }
    }

    /// Gives the slots of idle resolvers to others.
    pub(crate) fn release_idle_resolvers(&self, datapath: &mut Datapath) {
        // Without interception no resolver needs a slot.
        if self.current.is_err() {
            return;
        }
        if let Err(error) = datapath.release_idle_resolvers() {
            warn!("failed to release the slots of idle resolvers: {}", error_chain(&error));
        }
    }

    /// For `status`.
    pub(crate) fn info(&self, datapath: &Datapath) -> api::InterceptionInfo {
        let status = datapath.interception().unwrap_or_default();
        info(status, self.current.as_ref().err().map(|disabled| disabled.reason.clone()))
    }

    /// Resolvers listed in the configuration that no listen address of the shim can answer for.
    pub(crate) fn unserved(&self, intercept: &Intercept) -> Vec<IpAddr> {
        let (Intercept::Resolvers(resolvers), Ok(ports)) = (intercept, &self.ports) else {
            return Vec::new();
        };
        let is_served = |resolver: &IpAddr| {
            if resolver.is_ipv4() { ports.ipv4.is_some() } else { ports.ipv6.is_some() }
        };
        resolvers.iter().filter(|resolver| !is_served(resolver)).copied().collect()
    }

    /// The first of the host's nameservers of an address family that the shim does not listen on,
    /// while every resolver is intercepted: executors often use the host's nameservers.
    pub(crate) fn unserved_nameserver(
        &self,
        nameservers: impl IntoIterator<Item = IpAddr>,
    ) -> Option<IpAddr> {
        let (Ok(InterceptScope::Everything), Ok(ports)) = (&self.current, &self.ports) else {
            return None;
        };
        // Executors cannot use a loopback or link-local address of the host.
        let is_reachable_v6 = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        nameservers.into_iter().find(|ip| ports.ipv6.is_none() && is_reachable_v6(ip))
    }

    fn wanted(&self, intercept: &Intercept, at_root: bool) -> Result<InterceptScope, Disabled> {
        if let Err(disabled) = &self.ports {
            return Err(disabled.clone());
        }
        if *intercept == Intercept::Auto && at_root {
            return Err(Disabled::by_config(AT_ROOT));
        }
        Ok(match intercept {
            Intercept::Resolvers(resolvers) => InterceptScope::Listed(resolvers.clone()),
            _ => InterceptScope::Everything,
        })
    }
}

/// Ends the interception, as nobody will answer from here on.
pub(crate) fn stop(datapath: &mut Datapath) {
    if let Err(error) = datapath.intercept(&InterceptScope::Nothing) {
        warn!(
            "failed to end the interception of DNS; it ends within 2 s, when the heartbeat is \
                stale: {}",
            error_chain(&error)
        );
    }
}

/// The kernel's counters in the API's shape, and why nothing is intercepted, if so.
pub(crate) fn info(status: InterceptionStatus, reason: Option<String>) -> api::InterceptionInfo {
    let resolver = |at: datapath::InterceptedResolver| api::InterceptedResolver {
        address: at.address,
        intercepted: at.intercepted,
    };
    api::InterceptionInfo {
        on: reason.is_none(),
        reason,
        listed_only: status.listed_only,
        resolvers: status.resolvers.into_iter().map(resolver).collect(),
        bypassed_heartbeat_stale: status.heartbeat_stale,
        bypassed_resolver_slots_full: status.slots_full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));

    fn v6() -> IpAddr {
        "fd00::53".parse().expect("an address")
    }

    fn interception(ports: Result<InterceptPorts, Disabled>) -> Interception {
        Interception { ports, current: Ok(InterceptScope::Nothing) }
    }

    fn ports() -> InterceptPorts {
        InterceptPorts { ipv4: Some([169, 254, 20, 53].into()), ipv6: None, first_port: 5310 }
    }

    #[test]
    fn auto_intercepts_pods_but_not_a_whole_host() {
        let ready = interception(Ok(ports()));
        assert_eq!(ready.wanted(&Intercept::Auto, false), Ok(InterceptScope::Everything));
        let disabled = ready.wanted(&Intercept::Auto, true).expect_err("the root");
        assert!(disabled.by_config && disabled.reason.contains("\"on\""), "{disabled:?}");
        assert_eq!(ready.wanted(&Intercept::On, true), Ok(InterceptScope::Everything));
        let listed = vec![V4];
        assert_eq!(
            ready.wanted(&Intercept::Resolvers(listed.clone()), true),
            Ok(InterceptScope::Listed(listed))
        );
    }

    #[test]
    fn a_fault_is_distinguished_from_the_configuration() {
        let fault = interception(Err(Disabled {
            reason: "failed to bind UDP 169.254.20.53:5310".to_owned(),
            by_config: false,
        }));
        for intercept in [Intercept::Auto, Intercept::On, Intercept::Resolvers(vec![V4])] {
            let disabled = fault.wanted(&intercept, false).expect_err("no port");
            assert!(!disabled.by_config && disabled.reason.contains("5310"), "{disabled:?}");
        }
        assert!(
            interception(Err(Disabled::by_config("off")))
                .wanted(&Intercept::Off, false)
                .expect_err("off")
                .by_config
        );
    }

    #[test]
    fn a_host_nameserver_that_the_shim_cannot_serve_is_named() {
        let link_local = "fe80::1".parse().expect("an address");
        let mut interception = interception(Ok(ports()));
        assert_eq!(interception.unserved_nameserver([V4, v6()]), None, "nothing is intercepted");
        interception.current = Ok(InterceptScope::Everything);
        assert_eq!(interception.unserved_nameserver([V4, link_local, v6()]), Some(v6()));
        interception.ports =
            Ok(InterceptPorts { ipv6: Some("fd00::54".parse().expect("an address")), ..ports() });
        assert_eq!(interception.unserved_nameserver([V4, v6()]), None);
    }

    #[test]
    fn a_listed_resolver_of_an_unserved_family_is_named() {
        let intercept = Intercept::Resolvers(vec![V4, v6()]);
        assert_eq!(interception(Ok(ports())).unserved(&intercept), [v6()]);
        assert_eq!(interception(Ok(ports())).unserved(&Intercept::Auto), Vec::<IpAddr>::new());
    }
}
