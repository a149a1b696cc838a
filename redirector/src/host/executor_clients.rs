//! Which clients of the shim are this host or its executors: the kernel would send the reply to
//! itself, or out of an interface such as the host's end of a veth, without a gateway. A network
//! that the host shares with its neighbours leads out of another interface.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteType},
};

use super::links::{Link, list_links, list_uplinks, output_interface, route_request};
use crate::net::route_socket::RouteSocket;

/// How long a client stays known.
const KNOWN_AGE: Duration = Duration::from_secs(30);
/// Most clients that are known at a time; a node has a few hundred.
const MAX_KNOWN: usize = 8192;
/// Unknown clients that are looked up in a second, so that a flood of them costs little; the others
/// are strangers.
const MAX_LOOKUPS: u32 = 2000;
/// The interfaces are read again for one that is not among the executors', at most this often for
/// each: it may have become one of theirs.
const RECHECK: Duration = Duration::from_millis(50);
/// The same for an uplink, which all strangers come from.
const UPLINK_RECHECK: Duration = Duration::from_secs(2);

/// The clients that are known, and the interfaces.
pub(crate) struct ExecutorClients {
    state: Mutex<State>,
}

impl fmt::Debug for ExecutorClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorClients").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    known: HashMap<IpAddr, Instant>,
    /// Held, so that look-ups need no free descriptor.
    socket: Option<RouteSocket>,
    interfaces: Option<Interfaces>,
    /// When an interface was found not to be an executor's, by index.
    strangers: HashMap<u32, Instant>,
    /// The beginning of the current second, and the look-ups in it.
    second: Option<(Instant, u32)>,
}

impl ExecutorClients {
    /// Knows no client yet, and reads the interfaces of this thread's network.
    pub(crate) fn open() -> Self {
        let mut socket = RouteSocket::open().ok();
        let interfaces = socket.as_mut().and_then(|socket| Interfaces::read(socket).ok());
        Self { state: Mutex::new(State { socket, interfaces, ..State::default() }) }
    }

    /// Whether the address is the host's own or of one of its executors.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if state.known.get(&address).is_some_and(|until| now < *until) {
            return true;
        }
        let found = state.may_look_up(now) && state.look_up(address, now).unwrap_or(false);
        if found {
            state.remember(address, now);
        }
        found
    }
}

#[cfg(test)]
impl ExecutorClients {
    /// Knows these clients.
    pub(crate) fn fixed(clients: impl IntoIterator<Item = IpAddr>) -> Self {
        let until = Instant::now() + KNOWN_AGE;
        let known = clients.into_iter().map(|client| (client, until)).collect();
        Self { state: Mutex::new(State { known, ..State::default() }) }
    }
}

impl State {
    fn may_look_up(&mut self, now: Instant) -> bool {
        match &mut self.second {
            Some((began, count)) if now.duration_since(*began) < Duration::from_secs(1) => {
                *count += 1;
                *count <= MAX_LOOKUPS
            }
            second => {
                *second = Some((now, 1));
                true
            }
        }
    }

    fn remember(&mut self, address: IpAddr, now: Instant) {
        if self.known.len() >= MAX_KNOWN {
            self.known.retain(|_, until| now < *until);
        }
        if self.known.len() < MAX_KNOWN {
            self.known.insert(address, now + KNOWN_AGE);
        }
    }

    fn look_up(&mut self, address: IpAddr, now: Instant) -> io::Result<bool> {
        let mut socket = self.socket.take().map_or_else(RouteSocket::open, Ok)?;
        let found = match route_to(&mut socket, address) {
            Some(Way::Local) => true,
            // As with Cilium, whose pods are behind an address of the host.
            Some(Way::Gateway(gateway)) => {
                matches!(route_to(&mut socket, gateway), Some(Way::Local))
            }
            Some(Way::Direct(interface)) => self.is_of_executors(&mut socket, interface, now)?,
            None => false,
        };
        self.socket = Some(socket);
        Ok(found)
    }

    fn is_of_executors(
        &mut self,
        socket: &mut RouteSocket,
        interface: u32,
        now: Instant,
    ) -> io::Result<bool> {
        let read = self.interfaces.as_ref();
        if read.is_some_and(|read| read.executors.contains_key(&interface)) {
            return Ok(true);
        }
        let is_uplink = read.is_some_and(|read| read.uplinks.contains(&interface));
        let recheck = if is_uplink { UPLINK_RECHECK } else { RECHECK };
        let is_recent = |at: &Instant| now.duration_since(*at) < recheck;
        if self.strangers.get(&interface).is_some_and(is_recent) {
            return Ok(false);
        }
        let read = self.interfaces.insert(Interfaces::read(socket)?);
        let is_of_executors = read.executors.contains_key(&interface);
        if !is_of_executors {
            self.strangers.retain(|_, at| now.duration_since(*at) < UPLINK_RECHECK);
            self.strangers.insert(interface, now);
        }
        Ok(is_of_executors)
    }
}

/// Where the kernel sends a packet.
enum Way {
    /// To this host.
    Local,
    /// Out of the interface with this index.
    Direct(u32),
    /// By another host.
    Gateway(IpAddr),
}

fn route_to(socket: &mut RouteSocket, address: IpAddr) -> Option<Way> {
    // Each interface has the same link-local network.
    if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
        return None;
    }
    let RouteNetlinkMessage::NewRoute(route) = socket.get(route_request(address)).ok()?? else {
        return None;
    };
    match route.header.kind {
        RouteType::Local => return Some(Way::Local),
        RouteType::Unicast => {}
        _ => return None,
    }
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(IpAddr::V4(*gateway)),
        RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => Some(IpAddr::V6(*gateway)),
        _ => None,
    });
    gateway.map(Way::Gateway).or(output_interface(&route).map(Way::Direct))
}

/// The interfaces of this host.
struct Interfaces {
    uplinks: BTreeSet<u32>,
    /// Those behind which executors are, by index.
    executors: BTreeMap<u32, String>,
}

impl Interfaces {
    fn read(socket: &mut RouteSocket) -> io::Result<Self> {
        let uplinks = list_uplinks(socket)?;
        Ok(Self { executors: of_executors(&list_links(socket)?, &uplinks), uplinks })
    }
}

/// The interfaces whose clients count as this host's executors, by name.
///
/// # Errors
///
/// If the kernel does not list the interfaces.
pub fn executor_interfaces() -> io::Result<Vec<String>> {
    let read = Interfaces::read(&mut RouteSocket::open()?)?;
    Ok(read.executors.into_values().collect())
}

/// The interfaces behind which executors are: a container's veth or netkit, a virtual machine's
/// tap, and a bridge that has only such ports. An uplink is none of them, whatever its kind.
fn of_executors(links: &[Link], uplinks: &BTreeSet<u32>) -> BTreeMap<u32, String> {
    let is_guest = |link: &Link| match link.kind.as_str() {
        _ if uplinks.contains(&link.index) => false,
        "veth" => link.peer_is_elsewhere,
        // Without an Ethernet header it is a tunnel's, which has neighbours.
        "tun" => link.has_ethernet,
        "netkit" => link.is_netkit_primary,
        _ => false,
    };
    let mut ports = BTreeMap::<u32, Vec<&Link>>::new();
    for link in links {
        link.controller.into_iter().for_each(|bridge| ports.entry(bridge).or_default().push(link));
    }
    let has_guests_only = |bridge: &Link| {
        bridge.kind == "bridge"
            && !uplinks.contains(&bridge.index)
            && ports.get(&bridge.index).is_some_and(|ports| ports.iter().all(|port| is_guest(port)))
    };
    let found = links.iter().filter(|link| is_guest(link) || has_guests_only(link));
    found.map(|link| (link.index, link.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Link { index, name, kind, has_ethernet: true, ..Link::default() }
    }

    fn port(bridge: u32, link: Link) -> Link {
        Link { controller: Some(bridge), ..link }
    }

    fn pod(index: u32, name: &str) -> Link {
        Link { peer_is_elsewhere: true, ..link(index, name, "veth") }
    }

    #[test]
    fn executors_are_behind_guests_interfaces_and_their_bridges() {
        let links = [
            link(1, "lo", ""),
            link(2, "eth0", ""),
            pod(3, "uplink"),
            pod(4, "cali1"),
            link(5, "cni0", "bridge"),
            port(5, pod(6, "veth1")),
            link(7, "br-lan", "bridge"),
            port(7, link(8, "eth1", "")),
            port(7, link(9, "vnet0", "tun")),
            link(10, "tap0", "tun"),
            Link { has_ethernet: false, ..link(11, "tun0", "tun") },
            link(12, "wg0", "wireguard"),
            link(13, "docker0", "bridge"),
            link(14, "veth-here", "veth"),
        ];
        let found = of_executors(&links, &BTreeSet::from([3]));
        let found: Vec<_> = found.values().map(String::as_str).collect();
        assert_eq!(found, ["cali1", "cni0", "veth1", "vnet0", "tap0"]);
    }

    #[test]
    fn this_host_is_found_by_its_routes() {
        let clients = ExecutorClients::open();
        assert!(clients.contains([127, 0, 0, 1].into()), "the real table");
        for stranger in ["2001:db8:ffff::1", "fe80::1", "255.255.255.255", "198.18.255.254"] {
            assert!(!clients.contains(stranger.parse().expect("an address")), "{stranger}");
        }
    }

    #[test]
    fn a_flood_of_strangers_is_looked_up_at_a_bounded_rate() {
        let (mut state, now) = (State::default(), Instant::now());
        let admitted = (0..3 * MAX_LOOKUPS).filter(|_| state.may_look_up(now)).count();
        assert_eq!(admitted, MAX_LOOKUPS as usize);
        assert!(state.may_look_up(now + Duration::from_secs(1)));
        let clients = (0..2 * MAX_KNOWN as u32).map(|n| IpAddr::V4(n.into()));
        clients.for_each(|client| state.remember(client, now));
        assert_eq!(state.known.len(), MAX_KNOWN);
        state.remember([192, 0, 2, 1].into(), now + KNOWN_AGE);
        assert_eq!(state.known.len(), 1, "those of earlier are forgotten");
    }
}
