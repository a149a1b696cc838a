//! Which ports of a source are redirected, and to which ports of the destination.

use std::{fmt, str::FromStr};

use redirector_common::abi::MAX_PORTS;

/// A port that a client asks for, and the destination's port that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPair {
    /// The port in the client's connect; never 0.
    pub client: u16,
    /// The port that is connected to; never 0.
    pub destination: u16,
}

/// The ports of a route: all of them, unchanged, or up to [`MAX_PORTS`] pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMap {
    /// In the order they were written, each client port once; empty means all ports.
    pairs: Vec<PortPair>,
}

/// Why a text is no port pair, or several make no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not `PORT` or `PORT:PORT`.
    #[error(
        "`{0}` is not a port or a pair of them: write `443`, or `80:8080` for client port 80 and \
            destination port 8080"
    )]
    Pair(String),
    /// Port 0.
    #[error("`{0}`: port 0 can't be connected to; write a number from 1 to 65535")]
    Zero(String),
    /// A client port that stands in the list already.
    #[error("client port {0} stands here twice: remove one")]
    Twice(u16),
    /// More pairs than the kernel's table holds.
    #[error("has {0} ports: write at most {MAX_PORTS}, or leave it out for all ports")]
    TooMany(usize),
    /// No pair.
    #[error("is an empty list: leave it out for all ports, or write at least one")]
    Empty,
}

impl PortMap {
    /// All ports, unchanged.
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads a list; an error comes with the index of the item it is about, or none when it is
    /// about the list.
    pub fn parse_list(texts: &[String]) -> Result<Self, Vec<(Option<usize>, PortError)>> {
        let mut pairs: Vec<PortPair> = Vec::with_capacity(texts.len());
        let mut errors = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match text.parse::<PortPair>() {
                Ok(pair) if pairs.iter().any(|known| known.client == pair.client) => {
                    errors.push((Some(n), PortError::Twice(pair.client)))
                }
                Ok(pair) => pairs.push(pair),
                Err(error) => errors.push((Some(n), error)),
            }
        }
        match texts.len() {
            0 => errors.push((None, PortError::Empty)),
            many if many > MAX_PORTS => errors.push((None, PortError::TooMany(many))),
            _ => {}
        }
        if errors.is_empty() { Ok(Self { pairs }) } else { Err(errors) }
    }

    /// Whether every port is redirected, unchanged.
    pub fn is_all(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs; empty when every port is redirected.
    pub fn pairs(&self) -> &[PortPair] {
        &self.pairs
    }

    /// The destination's port for a client's, or `None` when it is not redirected.
    pub fn destination(&self, client: u16) -> Option<u16> {
        match self.pairs.as_slice() {
            [] => Some(client),
            pairs => pairs.iter().find(|pair| pair.client == client).map(|pair| pair.destination),
        }
    }
}

impl FromStr for PortPair {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse::<u16>().map_err(|_| PortError::Pair(text.into())),
            false => Err(PortError::Pair(text.into())),
        };
        let (client, destination) = text.split_once(':').unwrap_or((text, text));
        let pair = Self { client: port(client)?, destination: port(destination)? };
        if pair.client == 0 || pair.destination == 0 {
            Err(PortError::Zero(text.into()))
        } else {
            Ok(pair)
        }
    }
}

impl fmt::Display for PortPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client == self.destination {
            true => write!(f, "{}", self.client),
            false => write!(f, "{}:{}", self.client, self.destination),
        }
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (n, pair) in self.pairs.iter().enumerate() {
            write!(f, "{}{pair}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Result<PortMap, Vec<(Option<usize>, PortError)>> {
        PortMap::parse_list(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_listed_port_is_mapped_and_an_unlisted_one_is_not() {
        let ports = list(&["443", "80:8080"]).expect("ports");
        assert_eq!(
            (ports.destination(443), ports.destination(80), ports.destination(22)),
            (Some(443), Some(8080), None)
        );
        assert_eq!(ports.to_string(), "443, 80:8080");
        assert_eq!(PortMap::all().destination(22), Some(22));
    }

    #[test]
    fn an_invalid_port_pair_is_refused() {
        for wrong in
            ["", "http", "80:", ":80", "80:8080:1", "65536", "-1", "+80", " 80", "80-90", "443/tcp"]
        {
            assert_eq!(wrong.parse::<PortPair>(), Err(PortError::Pair(wrong.into())), "{wrong}");
        }
        assert_eq!("0".parse::<PortPair>(), Err(PortError::Zero("0".into())));
        assert_eq!("80:0".parse::<PortPair>(), Err(PortError::Zero("80:0".into())));
    }

    #[test]
    fn a_client_port_is_mapped_once_and_the_map_is_bounded() {
        assert_eq!(list(&["443", "443:8443"]), Err(vec![(Some(1), PortError::Twice(443))]));
        assert_eq!(list(&[]), Err(vec![(None, PortError::Empty)]));
        let most: Vec<_> = (1..=MAX_PORTS).map(|port| port.to_string()).collect();
        assert!(PortMap::parse_list(&most).is_ok());
        let more: Vec<_> = (1..=MAX_PORTS + 1).map(|port| port.to_string()).collect();
        assert_eq!(PortMap::parse_list(&more), Err(vec![(None, PortError::TooMany(17))]));
    }
}
