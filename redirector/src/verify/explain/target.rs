//! The name or address that `explain` is given.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::verify::target::Target;

/// The name or address that `explain` is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExplainTarget {
    /// A name.
    Name(Target),
    /// An address.
    Address(IpAddr, u16),
}

impl FromStr for ExplainTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address.ip().to_canonical(), address.port()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical(), 443));
        }
        text.parse().map(Self::Name)
    }
}

impl fmt::Display for ExplainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(target) => target.fmt(f),
            Self::Address(address, port) => write!(f, "{}", SocketAddr::new(*address, *port)),
        }
    }
}
