//! Looks up the addresses of a name at DNS servers.
//!
//! We query with hickory-proto's messages and sockets of our own. hickory-resolver reports a CNAME
//! loop as an authoritative "no", cannot repeat a query without EDNS, and drops replies without a
//! question, which is how old servers reject EDNS.

mod chain;
mod exchange;
mod replay;
mod resolvers;
mod result;
mod server;

pub use replay::replay;
pub(super) use resolvers::Resolvers;
pub(super) use result::{Family, FamilyResult, LookupResult};
