//! The kinds of values that several keys share: addresses, addresses with a port, networks,
//! durations.
//!
//! Each error quotes the value and says what to write instead.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

/// The port of DNS, meant where a resolver is named without one.
const DNS_PORT: u16 = 53;

/// Why a text is not the value that its key takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not an IP address.
    #[error("`{0}` is not an IP address: write one such as `203.0.113.7` or `2001:db8::7`")]
    Address(String),
    /// An IPv4 address written as an IPv6 one.
    #[error("`{text}` is an IPv4 address written as IPv6: write `{plain}`")]
    Mapped {
        /// What was written.
        text: String,
        /// The address.
        plain: Ipv4Addr,
    },
    /// An address that no single host has.
    #[error("`{0}` is not the address of one host: write one such as `203.0.113.7`")]
    NotOneHost(IpAddr),
    /// An address without the port that this key can't do without.
    #[error("`{text}` has no port: write `{suggestion}`")]
    NoPort {
        /// What was written.
        text: String,
        /// The same with the usual port.
        suggestion: SocketAddr,
    },
    /// A port that is no port.
    #[error("`{port}` in `{text}` is not a port: write a number from 1 to 65535")]
    Port {
        /// The whole text.
        text: String,
        /// The part that should be the port.
        port: String,
    },
    /// Not an address with a port.
    #[error(
        "`{0}` is not an address with a port: write one such as `203.0.113.7:53` or \
            `[2001:db8::7]:53`"
    )]
    Socket(String),
    /// Not a network.
    #[error("`{0}` is not a network: write an address and a prefix length such as `10.1.0.0/16`")]
    Network(String),
    /// A network with host bits.
    #[error("`{text}` has bits set behind its prefix length: write `{network}`")]
    HostBits {
        /// What was written.
        text: String,
        /// The network that holds it.
        network: IpNet,
    },
    /// A duration without a unit.
    #[error("`{0}` has no unit: write `{0}s` for seconds, or another unit (`ms`, `m`, `h`)")]
    NoUnit(String),
    /// Not a duration.
    #[error("`{0}` is not a duration: write a number with its unit, such as `3s`, `500ms` or `2m`")]
    Duration(String),
    /// A duration that this key can't have.
    #[error(
        "`{text}` is out of range: write {} to {}",
        format_duration(*min),
        format_duration(*max)
    )]
    DurationRange {
        /// What was written.
        text: String,
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
}

/// The address of one host.
pub fn address(text: &str) -> Result<IpAddr, ValueError> {
    let address: IpAddr = text.parse().map_err(|_| ValueError::Address(text.into()))?;
    one_host(address, text)
}

/// Refuses addresses that no single host has, and IPv4 addresses in IPv6 notation.
fn one_host(address: IpAddr, text: &str) -> Result<IpAddr, ValueError> {
    if let IpAddr::V6(v6) = address
        && let Some(plain) = v6.to_ipv4_mapped()
    {
        return Err(ValueError::Mapped { text: text.into(), plain });
    }
    if address.is_unspecified()
        || address.is_multicast()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST)
    {
        return Err(ValueError::NotOneHost(address));
    }
    Ok(address)
}

/// An address to listen on, `ADDRESS:PORT`. Port 0 lets the system choose one.
pub fn listener(text: &str) -> Result<SocketAddr, ValueError> {
    socket(text, DNS_PORT)
}

/// An address and a port, both required; `usual` is the port that an error suggests.
pub(crate) fn socket(text: &str, usual: u16) -> Result<SocketAddr, ValueError> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        one_host(socket.ip(), text)?;
        return Ok(socket);
    }
    if let Some(ip) = bare_address(text) {
        return Err(ValueError::NoPort {
            text: text.into(),
            suggestion: SocketAddr::new(ip, usual),
        });
    }
    match text.rsplit_once(':') {
        Some((ip, port)) if bare_address(ip).is_some() => {
            Err(ValueError::Port { text: text.into(), port: port.into() })
        }
        _ => Err(ValueError::Socket(text.into())),
    }
}

/// A DNS server, `ADDRESS` or `ADDRESS:PORT`; the port is 53 when it is left out.
pub fn server(text: &str) -> Result<SocketAddr, ValueError> {
    let server = match bare_address(text) {
        Some(ip) => SocketAddr::new(one_host(ip, text)?, DNS_PORT),
        None => socket(text, DNS_PORT)?,
    };
    match server.port() {
        0 => Err(ValueError::Port { text: text.into(), port: "0".into() }),
        _ => Ok(server),
    }
}

/// An address without a port, with or without brackets.
fn bare_address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inner.parse().ok()
}

/// A network, `ADDRESS/PREFIX` without host bits, or one address.
pub fn network(text: &str) -> Result<IpNet, ValueError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| ValueError::Network(text.into()))?;
    match network == network.trunc() {
        true => Ok(network),
        false => Err(ValueError::HostBits { text: text.into(), network: network.trunc() }),
    }
}

/// A duration from `min` to `max`, in whole milliseconds.
pub(crate) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::NoUnit(text.into()));
    }
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| ValueError::Duration(text.into()))?;
    match Duration::try_from(parsed) {
        Ok(duration) if duration.subsec_nanos() % 1_000_000 != 0 => {
            Err(ValueError::Duration(text.into()))
        }
        Ok(duration) if (min..=max).contains(&duration) => Ok(duration),
        _ => Err(ValueError::DurationRange { text: text.into(), min, max }),
    }
}

/// A duration as it is read from the configuration: whole seconds, else milliseconds.
pub fn format_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(text: &str) -> Result<Duration, ValueError> {
        duration(text, Duration::from_millis(1), Duration::from_secs(3600))
    }

    #[test]
    fn durations_have_a_unit_and_round_trip() {
        for text in ["3s", "350s", "500ms", "3600s", "1500ms"] {
            assert_eq!(any(text).map(format_duration).as_deref(), Ok(text));
        }
        assert_eq!(any("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(any("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(any("3"), Err(ValueError::NoUnit("3".into())));
        for wrong in ["", "s", "3 bananas", "3.5.1s", "٣s"] {
            assert_eq!(any(wrong), Err(ValueError::Duration(wrong.into())), "{wrong}");
        }
        for range in ["-3s", "0s", "3601s", "2h"] {
            assert!(
                matches!(any(range), Err(ValueError::DurationRange { .. })),
                "{range}: {:?}",
                any(range)
            );
        }
    }

    #[test]
    fn a_listener_needs_its_port_and_a_server_has_one_anyway() {
        assert_eq!(listener("169.254.20.53:53"), Ok(([169, 254, 20, 53], 53).into()));
        assert_eq!(
            listener("169.254.20.53").expect_err("no port").to_string(),
            "`169.254.20.53` has no port: write `169.254.20.53:53`"
        );
        assert_eq!(
            listener("fd00::1").expect_err("no port").to_string(),
            "`fd00::1` has no port: write `[fd00::1]:53`"
        );
        assert!(matches!(listener("127.0.0.1:99999"), Err(ValueError::Port { .. })));
        assert!(matches!(listener("0.0.0.0:53"), Err(ValueError::NotOneHost(_))));
        assert!(matches!(listener("localhost:53"), Err(ValueError::Socket(_))));
        assert_eq!(
            server("10.0.0.2").map(|server| server.to_string()).as_deref(),
            Ok("10.0.0.2:53")
        );
        assert_eq!(
            server("[fd00::2]:5353").map(|server| server.to_string()).as_deref(),
            Ok("[fd00::2]:5353")
        );
        assert!(matches!(server("10.0.0.2:0"), Err(ValueError::Port { .. })));
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(network("10.1.0.0/16").map(|net| net.to_string()).as_deref(), Ok("10.1.0.0/16"));
        assert_eq!(network("10.1.2.3").map(|net| net.to_string()).as_deref(), Ok("10.1.2.3/32"));
        assert_eq!(
            network("10.1.2.3/16").expect_err("bits").to_string(),
            "`10.1.2.3/16` has bits set behind its prefix length: write `10.1.0.0/16`"
        );
        assert_eq!(network("10.1.0.0/33"), Err(ValueError::Network("10.1.0.0/33".into())));
    }

    #[test]
    fn an_address_belongs_to_one_host() {
        assert!(address("203.0.113.7").is_ok() && address("2001:db8::7").is_ok());
        assert_eq!(
            address("::ffff:203.0.113.7").expect_err("mapped").to_string(),
            "`::ffff:203.0.113.7` is an IPv4 address written as IPv6: write `203.0.113.7`"
        );
        for wrong in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(matches!(address(wrong), Err(ValueError::NotOneHost(_))), "{wrong}");
        }
    }
}
