//! DNS interception: how executors get the addresses of sources, given the configuration and what
//! this host allows. Packets need nothing of the agent once they are published; interception at
//! sockets, the fallback, needs the shim.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::bail;
use tracing::{info, warn};

use crate::{
    config::{Config, Intercept, Upstream},
    control::api::{self, InterceptWay},
    datapath::{self, Datapath, InterceptionStatus, MAX_RESOLVERS, ShimEndpoint},
    dns::{BoundShim, InterceptPorts},
    error::error_chain,
    net::Nameservers,
};

/// After an agent that was killed, this one has to live so long before it intercepts at sockets: if
/// it is killed too, queries for every name fail for two seconds.
pub(crate) const MIN_LIFE: Duration = Duration::from_secs(10);

/// How the agent before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predecessor {
    /// There was none, or it has ended, and with it the interception.
    Ended,
    /// It has handed over: what it intercepted stays intercepted.
    HandedOver,
    /// It was killed. This agent has waited beside it since then, without a fault.
    Killed(Option<Instant>),
}

/// DNS interception.
pub(crate) struct Interception {
    way: InterceptWay,
    /// Why nothing is intercepted, if so.
    disabled: Option<Disabled>,
    /// The resolvers that are intercepted at sockets.
    resolvers: Vec<IpAddr>,
    /// Where the shim receives their queries.
    ports: Option<InterceptPorts>,
    /// When to begin, if not at once.
    paused_until: Option<Instant>,
    /// Whether the pause begins with [`Interception::start`].
    pauses_at_start: bool,
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

impl Interception {
    /// Prepares what the configuration wants. Nothing is intercepted at sockets until
    /// [`Interception::start`], except what an agent that has handed over intercepted; with packets
    /// no connect to port 53 is ever rewritten.
    ///
    /// # Errors
    /// When the configuration insists on packets and this kernel refuses the programs, or the
    /// kernel refuses to write a map.
    pub(crate) fn prepare(
        shim: Option<&mut BoundShim>,
        (datapath, predecessor): (&mut Datapath, Predecessor),
        config: &Config,
    ) -> anyhow::Result<Self> {
        if predecessor != Predecessor::HandedOver {
            datapath.intercept(false)?;
        }
        let mut prepared = Self {
            way: way(config.dns.intercept),
            disabled: None,
            resolvers: Vec::new(),
            ports: None,
            paused_until: match predecessor {
                Predecessor::Killed(Some(since)) => Some(since + MIN_LIFE),
                _ => None,
            },
            pauses_at_start: predecessor == Predecessor::Killed(None),
        };
        match config.dns.intercept {
            Intercept::Sockets => prepared.prepare_sockets(shim, datapath, config)?,
            _ => {
                datapath.list_resolvers(&[])?;
                datapath.set_shim(&ShimEndpoint::default())?;
            }
        }
        prepared.disabled = match (config.dns.intercept, datapath.packet_error()) {
            (Intercept::Off, _) => Some(Disabled::by_config("dns.intercept is \"off\"")),
            (Intercept::Packets, Some(error)) => bail!(
                "dns.intercept is \"packets\", and this kernel refuses the packet programs: {}",
                error_chain(error)
            ),
            (Intercept::Auto, Some(error)) => Some(Disabled::by_fault(error)),
            _ => prepared.disabled,
        };
        Ok(prepared)
    }

    fn prepare_sockets(
        &mut self,
        shim: Option<&mut BoundShim>,
        datapath: &mut Datapath,
        config: &Config,
    ) -> anyhow::Result<()> {
        let Some(shim) = shim else {
            self.disabled = Some(Disabled::by_config("dns.listen is empty, so there is no shim"));
            return Ok(());
        };
        self.resolvers = config.dns.intercept_resolvers.clone();
        if self.resolvers.is_empty() {
            self.resolvers = nameservers(shim);
        }
        let by_slot = datapath.list_resolvers(&self.resolvers)?;
        match shim.intercept(&by_slot) {
            Ok(ports) => {
                let InterceptPorts { ipv4, ipv6, first_port } = ports;
                datapath.set_shim(&ShimEndpoint { ipv4, ipv6, first_port })?;
                self.ports = Some(ports);
            }
            Err(error) => self.disabled = Some(Disabled::by_fault(&error)),
        }
        if self.resolvers.is_empty() {
            let reason = "dns.intercept_resolvers is empty, and /etc/resolv.conf names no \
                nameserver except ourselves";
            self.disabled = Some(Disabled { reason: reason.to_owned(), by_config: false });
        }
        Ok(())
    }

    /// Intercepts at sockets from here on, if the configuration wants it.
    pub(crate) fn start(&mut self, datapath: &mut Datapath) {
        if std::mem::take(&mut self.pauses_at_start) {
            self.paused_until = Some(Instant::now() + MIN_LIFE);
        }
        if self.way != InterceptWay::Sockets {
            self.paused_until = None;
        }
        let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        if self.disabled.is_none() && is_paused {
            info!(
                "DNS of executors is intercepted once this agent has run for {} s, since the last \
                    one was killed",
                MIN_LIFE.as_secs()
            );
            return;
        }
        self.paused_until = None;
        if self.way == InterceptWay::Sockets && self.disabled.is_none() {
            match datapath.intercept(true) {
                Ok(()) => {
                    info!(resolvers = ?self.resolvers, "DNS to these resolvers goes to the shim")
                }
                Err(error) => self.disabled = Some(Disabled::by_fault(&error)),
            }
        }
        if let Some(disabled) = &self.disabled {
            info!("DNS of executors is not intercepted: {}", disabled.reason);
        }
    }

    /// Intercepts at sockets, if the time has come. Called with every tick.
    pub(crate) fn resume(&mut self, datapath: &mut Datapath) {
        if self.paused_until.is_some_and(|until| Instant::now() >= until) {
            self.start(datapath);
        }
    }

    /// Why nothing is intercepted for a while, if so.
    pub(crate) fn pause(&self) -> Option<String> {
        let left = self.paused_until?.saturating_duration_since(Instant::now()).as_secs() + 1;
        Some(format!("for {left} s more, since the last agent was killed"))
    }

    /// How the configuration wants DNS to be intercepted.
    pub(crate) fn way(&self) -> InterceptWay {
        self.way
    }

    /// Why nothing is intercepted, if so.
    pub(crate) fn disabled(&self) -> Option<&Disabled> {
        self.disabled.as_ref()
    }

    /// For `status`.
    pub(crate) fn info(&self, datapath: &Datapath) -> api::InterceptionInfo {
        let reason = self.disabled.as_ref().map(|disabled| disabled.reason.clone());
        let reason = reason.or_else(|| Some(format!("paused {}", self.pause()?)));
        info(datapath.interception().unwrap_or_default(), self.way, reason)
    }

    /// Listed resolvers that no listen address of the shim can answer for.
    pub(crate) fn unserved(&self) -> Vec<IpAddr> {
        let Some(ports) = &self.ports else { return Vec::new() };
        let is_served = |resolver: &IpAddr| {
            if resolver.is_ipv4() { ports.ipv4.is_some() } else { ports.ipv6.is_some() }
        };
        self.resolvers.iter().filter(|resolver| !is_served(resolver)).copied().collect()
    }
}

fn way(intercept: Intercept) -> InterceptWay {
    match intercept {
        Intercept::Auto | Intercept::Packets => InterceptWay::Packets,
        Intercept::Sockets => InterceptWay::Sockets,
        Intercept::Off => InterceptWay::Off,
    }
}

/// The host's nameservers, which executors on its network use, and often others.
fn nameservers(shim: &BoundShim) -> Vec<IpAddr> {
    let servers =
        Nameservers::new(vec![Upstream::System], shim.local_addrs()).as_clients_see().current();
    servers.iter().map(|server| server.ip()).take(MAX_RESOLVERS).collect()
}

/// Ends the interception at sockets, as nobody will answer from here on.
pub(crate) fn stop(datapath: &mut Datapath) {
    if let Err(error) = datapath.intercept(false) {
        warn!(
            "failed to end the interception of DNS; it ends within 2 s, when the heartbeat is \
                stale: {}",
            error_chain(&error)
        );
    }
}

/// The kernel's counters in the API's shape, and why nothing is intercepted, if so.
pub(crate) fn info(
    status: InterceptionStatus,
    way: InterceptWay,
    reason: Option<String>,
) -> api::InterceptionInfo {
    let resolver = |at: datapath::InterceptedResolver| api::InterceptedResolver {
        address: at.address,
        intercepted: at.intercepted,
    };
    api::InterceptionInfo {
        on: reason.is_none(),
        way,
        reason,
        resolvers: status.resolvers.into_iter().map(resolver).collect(),
        bypassed_heartbeat_stale: status.heartbeat_stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_resolver_of_an_unserved_family_is_named() {
        let (v4, v6) = ("10.96.0.10".parse().unwrap(), "fd00::53".parse().unwrap());
        let ports =
            InterceptPorts { ipv4: Some([169, 254, 20, 53].into()), ipv6: None, first_port: 334 };
        let mut sockets = Interception {
            way: InterceptWay::Sockets,
            disabled: None,
            resolvers: vec![v4, v6],
            ports: Some(ports),
            paused_until: None,
            pauses_at_start: false,
        };
        assert_eq!(sockets.unserved(), [v6]);
        sockets.ports = None;
        assert_eq!(sockets.unserved(), Vec::<IpAddr>::new());
    }
}
