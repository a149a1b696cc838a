//! PLACEHOLDER until the config helper's `route::Destination` lands: take theirs at merge, this file holds nothing else.

use std::net::IpAddr;

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A DNS name, followed as it changes.
    Name(String),
    /// Literal addresses.
    Addresses(Vec<IpAddr>),
}
