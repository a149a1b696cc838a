//! Who holds a port: looked up in /proc for an error message, as far as we may read it.

use std::{
    collections::HashSet,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::dns::Transport;

/// A process that has the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID, in our PID namespace.
    pub pid: u32,
    /// Its command name (`comm`).
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

impl Holder {
    /// The process whose socket keeps us from `address`; `None` if it is in another PID namespace
    /// or we may not look.
    pub(crate) fn find(address: SocketAddr, transport: Transport) -> Option<Self> {
        let tables = match transport {
            Transport::Udp => ["/proc/self/net/udp", "/proc/self/net/udp6"],
            Transport::Tcp => ["/proc/self/net/tcp", "/proc/self/net/tcp6"],
        };
        let listening = transport == Transport::Tcp;
        let links: HashSet<String> = tables
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|text| {
                text.lines()
                    .skip(1)
                    .filter_map(|line| conflicting(line, address, listening))
                    .collect::<Vec<_>>()
            })
            .collect();
        if links.is_empty() {
            return None;
        }
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let holds = has_socket(&entry.path().join("fd"), &links);
            holds.then(|| Self { pid, command: command(&entry.path()) })
        })
    }
}

/// What /proc/PID/fd shows for the socket of this line, if its local address collides with
/// `address`.
fn conflicting(line: &str, address: SocketAddr, listening: bool) -> Option<String> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace().skip(1);
    let (ip, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    let ip = local_ip(ip)?.to_canonical();
    let collides = u16::from_str_radix(port, 16).ok()? == address.port()
        && (ip == address.ip() || ip.is_unspecified());
    (collides && (!listening || state == LISTEN)).then(|| format!("socket:[{inode}]"))
}

/// The kernel prints each 32-bit word of the address as a number of this machine's byte order.
fn local_ip(hex: &str) -> Option<IpAddr> {
    let mut octets = [0; 16];
    let words = hex.len() / 8;
    for at in 0..words.min(4) {
        let word = u32::from_str_radix(hex.get(8 * at..8 * at + 8)?, 16).ok()?;
        octets[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    match words {
        1 => Some(Ipv4Addr::from(*octets.first_chunk::<4>()?).into()),
        4 => Some(Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn has_socket(descriptors: &Path, links: &HashSet<String>) -> bool {
    let Ok(entries) = fs::read_dir(descriptors) else { return false };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| links.contains(link)))
}

fn command(process: &Path) -> String {
    fs::read_to_string(process.join("comm"))
        .map_or_else(|_| "a process".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_socket_is_found_under_our_own_process() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        let holder = Holder::find(address, Transport::Udp).expect("we hold it");
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn a_wildcard_socket_holds_every_address() {
        let listener = std::net::TcpListener::bind("[::]:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let holder = Holder::find(SocketAddr::from(([127, 0, 0, 1], port)), Transport::Tcp)
            .expect("we hold it");
        assert_eq!(holder.pid, std::process::id());
    }
}
