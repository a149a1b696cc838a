//! Destinations: the load balancer, by its DNS name or by its addresses.

use std::{fmt, net::IpAddr};

use redirector_common::abi::MAX_BACKENDS;

use super::source::is_label;
use crate::spanned::scalar::{self, ValueError};

/// The load balancer that a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A DNS name, in lower case and without the final dot; its addresses are followed.
    Name(String),
    /// Fixed addresses, 1 to [`MAX_BACKENDS`], none twice, in the order they were written.
    Addresses(Vec<IpAddr>),
}

/// Why a text, or a list of them, is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Neither a name nor an address.
    #[error(
        "`{0}` is neither a DNS name nor an IP address: write one such as \
            `artifactory.public.company.net` or `203.0.113.7`"
    )]
    Neither(String),
    /// A name with a port.
    #[error("`{text}` has a port: write `{host}` here and the port in `ports`, as in `443:{port}`")]
    Port {
        /// What was written.
        text: String,
        /// The part before the port.
        host: String,
        /// The port.
        port: u16,
    },
    /// A URL.
    #[error("`{0}` is a URL: write the host name alone")]
    Url(String),
    /// A wildcard.
    #[error("`{0}` is a wildcard: write one name, which every source that matches shares")]
    Wildcard(String),
    /// A name in a list.
    #[error(
        "`{0}` is not an IP address: a list holds addresses only; write one name alone, without \
            brackets"
    )]
    NameInList(String),
    /// An empty list.
    #[error("is an empty list: write a DNS name, or at least one address")]
    Empty,
    /// Too long a list.
    #[error("has {0} addresses: write at most {MAX_BACKENDS}")]
    TooMany(usize),
    /// An address that stands in the list already.
    #[error("`{0}` stands here twice: remove one")]
    Twice(IpAddr),
    /// Something else about an address.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Destination {
    /// Reads a single text: a name or one address.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(Self::Addresses(vec![scalar::address(bare)?]));
        }
        if text.contains("://") {
            return Err(DestinationError::Url(text.into()));
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && let Ok(port) = port.parse()
        {
            return Err(DestinationError::Port { text: text.into(), host: host.into(), port });
        }
        if text.contains('*') {
            return Err(DestinationError::Wildcard(text.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // A last label of digits is no top-level domain: the text is an address gone wrong.
        let numeric = name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        match name.len() <= 253 && !numeric && name.split('.').all(is_label) {
            true => Ok(Self::Name(name)),
            false => Err(DestinationError::Neither(text.into())),
        }
    }

    /// Reads a list of addresses; an error comes with the index of the item it is about, or none
    /// when it is about the list.
    pub fn parse_list(texts: &[String]) -> Result<Self, Vec<(Option<usize>, DestinationError)>> {
        let mut addresses = Vec::with_capacity(texts.len());
        let mut errors = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match scalar::address(text) {
                Ok(address) if addresses.contains(&address) => {
                    errors.push((Some(n), DestinationError::Twice(address)))
                }
                Ok(address) => addresses.push(address),
                Err(ValueError::Address(_)) => match Self::parse(text) {
                    Ok(_) => errors.push((Some(n), DestinationError::NameInList(text.clone()))),
                    Err(error) => errors.push((Some(n), error)),
                },
                Err(error) => errors.push((Some(n), error.into())),
            }
        }
        match texts.len() {
            0 => errors.push((None, DestinationError::Empty)),
            many if many > MAX_BACKENDS => errors.push((None, DestinationError::TooMany(many))),
            _ => {}
        }
        if errors.is_empty() { Ok(Self::Addresses(addresses)) } else { Err(errors) }
    }

    /// The addresses, when they are fixed.
    pub fn addresses(&self) -> Option<&[IpAddr]> {
        match self {
            Self::Name(_) => None,
            Self::Addresses(addresses) => Some(addresses),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Addresses(addresses) => {
                for (n, address) in addresses.iter().enumerate() {
                    write!(f, "{}{address}", if n == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_name_or_an_address() {
        assert_eq!(
            Destination::parse("Artifactory.Public.company.NET."),
            Ok(Destination::Name("artifactory.public.company.net".into()))
        );
        assert_eq!(
            Destination::parse("203.0.113.7"),
            Ok(Destination::Addresses(vec![[203, 0, 113, 7].into()]))
        );
        assert!(matches!(Destination::parse("[2001:db8::7]"), Ok(Destination::Addresses(_))));
        assert!(matches!(Destination::parse("2001:db8::7"), Ok(Destination::Addresses(_))));
    }

    #[test]
    fn neither_name_nor_address_is_refused_with_the_remedy() {
        for wrong in ["", ".", "203.0.113", "203.0.113.256", "a..b", "a b", "-a.b", "a:b"] {
            assert_eq!(
                Destination::parse(wrong),
                Err(DestinationError::Neither(wrong.into())),
                "{wrong}"
            );
        }
        let remedy = |text| Destination::parse(text).expect_err("refused").to_string();
        assert_eq!(
            remedy("lb.net:8443"),
            "`lb.net:8443` has a port: write `lb.net` here and the port in `ports`, as in \
                `443:8443`"
        );
        assert_eq!(
            remedy("https://lb.net/"),
            "`https://lb.net/` is a URL: write the host name alone"
        );
        assert!(remedy("*.lb.net").contains("wildcard"));
        assert!(remedy("0.0.0.0").contains("not the address of one host"));
    }

    #[test]
    fn a_list_contains_each_address_once() {
        let list = |texts: &[&str]| {
            Destination::parse_list(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
        };
        assert!(list(&["203.0.113.7", "2001:db8::7"]).is_ok());
        assert_eq!(list(&[]), Err(vec![(None, DestinationError::Empty)]));
        let errors =
            list(&["203.0.113.7", "lb.net", "203.0.113.7", "x y"]).expect_err("three problems");
        assert_eq!(errors.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
        let many: Vec<_> = (0..=MAX_BACKENDS).map(|n| format!("203.0.113.{n}")).collect();
        assert_eq!(
            Destination::parse_list(&many),
            Err(vec![(None, DestinationError::TooMany(65))])
        );
    }
}
