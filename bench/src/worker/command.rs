//! The commands of a measured client, one line for each.

use std::fmt;
use std::net::SocketAddrV4;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// connect() of a UDP socket that stays open: no packet, the hook alone.
    Udp,
    /// socket(), connect() and close() of a UDP socket.
    UdpLife,
    /// sendto() of one byte from a UDP socket that is not connected, to an unused port.
    UdpSend,
    /// socket(), connect(), one byte each way and close() of a TCP connection.
    Tcp,
    /// socket(), connect() and close() of a TCP socket whose connect a routing rule prohibits after
    /// the hook: no packet is sent.
    TcpProhibited,
    /// Blocks of [`BLOCK`](super::BLOCK) bytes to the server, over one connection.
    Upload,
    /// The same from the server.
    Download,
    /// Look-ups of random names among those of the first `spread` routes, at the resolver that is
    /// the target.
    LookUp,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::UdpLife => "udp-life",
            Self::UdpSend => "udp-send",
            Self::Tcp => "tcp",
            Self::TcpProhibited => "tcp-prohibited",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::LookUp => "look-up",
        })
    }
}

/// A batch of operations to random addresses among `spread` from `target` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) operation: Operation,
    pub(crate) count: u32,
    pub(crate) target: SocketAddrV4,
    pub(crate) spread: u32,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.operation, self.count, self.target, self.spread)
    }
}

impl Batch {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let operation = match words.next()? {
            "udp" => Operation::Udp,
            "udp-life" => Operation::UdpLife,
            "udp-send" => Operation::UdpSend,
            "tcp" => Operation::Tcp,
            "tcp-prohibited" => Operation::TcpProhibited,
            "upload" => Operation::Upload,
            "download" => Operation::Download,
            "look-up" => Operation::LookUp,
            _ => return None,
        };
        let (count, target, spread) =
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { operation, count, target, spread })
    }
}

/// A wait for a change: connects until the server answers at an address that ends with an octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obedience {
    pub(crate) octet: u8,
    pub(crate) target: SocketAddrV4,
    /// Before each connect, the client looks up the route's name there, and connects to the answer.
    pub(crate) lookup: Option<(SocketAddrV4, u32)>,
}

impl Obedience {
    const WORD: &str = "obey";

    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(Self::WORD)?.split_whitespace();
        let (octet, target) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let lookup = match (words.next(), words.next()) {
            (Some(resolver), Some(route)) => Some((resolver.parse().ok()?, route.parse().ok()?)),
            _ => None,
        };
        Some(Self { octet, target, lookup })
    }
}

impl fmt::Display for Obedience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Self::WORD, self.octet, self.target)?;
        let Some((resolver, route)) = self.lookup else { return Ok(()) };
        write!(f, " {resolver} {route}")
    }
}

/// What to do with connections that stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Open(u32, SocketAddrV4),
    Count,
    Close(SocketAddrV4),
}

impl Held {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(match words.next()? {
            "open" => Self::Open(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
            "count" => Self::Count,
            "close" => Self::Close(words.next()?.parse().ok()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(count, target) => write!(f, "open {count} {target}"),
            Self::Count => f.write_str("count"),
            Self::Close(target) => write!(f, "close {target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_for_held_connections_parses_to_itself() {
        let target = "198.18.0.1:443".parse().unwrap();
        for command in [Held::Open(7, target), Held::Count, Held::Close(target)] {
            assert_eq!(Held::parse(&command.to_string()), Some(command));
        }
    }

    #[test]
    fn a_printed_wait_for_a_change_parses_to_itself() {
        let target = "198.18.0.1:443".parse().unwrap();
        for lookup in [None, Some(("127.0.0.1:53".parse().unwrap(), 9))] {
            let wanted = Obedience { octet: 8, target, lookup };
            assert_eq!(Obedience::parse(&wanted.to_string()), Some(wanted));
        }
    }

    #[test]
    fn a_printed_batch_parses_to_itself() {
        let batch = Batch {
            operation: Operation::UdpLife,
            count: 12,
            target: "198.18.0.1:443".parse().unwrap(),
            spread: 65_534,
        };
        assert_eq!(Batch::parse(&batch.to_string()), Some(batch));
        assert_eq!(Batch::parse("tcp 12"), None);
    }
}
