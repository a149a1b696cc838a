//! A look-up whose server's replies are known: what the fuzz target plays.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::{
    chain::{CnameChain, Step},
    exchange::{EncodedQuery, Reply},
    result::{Family, FamilyResult},
};
use crate::{backend::address_policy::AddressPolicy, pool::Pool};

/// The IPv4 addresses of `name` by these replies, each of which gets its query's ID; none if the
/// server says that there is none.
///
/// # Errors
/// When the look-up fails, or needs another reply.
pub fn replay<'a>(
    name: &str,
    pool: Pool,
    replies: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<IpAddr>, String> {
    let (family, policy) = (Family::V4, AddressPolicy::new(pool, []));
    let name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    let mut chain = CnameChain::new(name, family, &policy);
    for reply in replies {
        let query = EncodedQuery::new(chain.name(), family.record_type(), true)
            .map_err(|error| error.to_string())?;
        match query.read(&query.addressed(reply)) {
            Some(Reply::Message(answer)) => match chain.follow(&answer) {
                Step::Done(FamilyResult::Addresses { addresses, .. }) => return Ok(addresses),
                Step::Done(FamilyResult::Empty { .. }) => return Ok(Vec::new()),
                Step::Done(FamilyResult::Failed(error)) => return Err(error),
                Step::Query(_) => {}
            },
            Some(Reply::Malformed) => return Err("a malformed message".to_owned()),
            None => {}
        }
    }
    Err("no more replies".to_owned())
}
