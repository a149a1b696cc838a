//! Reads the answer to an address query: follows CNAMEs to addresses, to another name that must be
//! queried, or to an authoritative "no".

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record},
};

use super::result::{Family, FamilyResult};
use crate::backend::address_policy::AddressPolicy;

/// The most CNAMEs from a name to its addresses. BIND and Unbound stop at 11.
const MAX_CNAMES: usize = 16;

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The result.
    Done(FamilyResult),
    /// The answer ends with the name of a CNAME, whose addresses need another query.
    Query(Name),
}

/// A name and the CNAMEs from it, across several answers.
#[derive(Debug)]
pub(super) struct CnameChain<'a> {
    policy: &'a AddressPolicy,
    family: Family,
    names: Vec<Name>,
    ttl: Option<u32>,
}

impl<'a> CnameChain<'a> {
    pub(super) fn new(name: Name, family: Family, policy: &'a AddressPolicy) -> Self {
        Self { policy, family, names: vec![name], ttl: None }
    }

    /// The name that is queried next.
    pub(super) fn name(&self) -> &Name {
        self.names.last().expect("a chain has the name it starts with")
    }

    /// Reads the answer to a query for [`CnameChain::name`].
    pub(super) fn follow(&mut self, answer: &Message) -> Step {
        let code = answer.metadata.response_code;
        if ![ResponseCode::NoError, ResponseCode::NXDomain].contains(&code) {
            return failed(format!("answered {}", rcode_name(code)));
        }
        let before = self.names.len();
        loop {
            let owned =
                |record: &&Record| record.dns_class == DNSClass::IN && &record.name == self.name();
            let here: Vec<&Record> = answer.answers.iter().filter(owned).collect();
            if let Some(found) = self.addresses(&here) {
                return Step::Done(found);
            }
            let alias = here.into_iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
                _ => None,
            });
            let Some((target, ttl)) = alias else { break };
            if self.names.contains(&target) {
                return failed(format!("answered with a CNAME loop at {target}"));
            }
            if self.names.len() > MAX_CNAMES {
                return failed(format!("answered with a chain of over {MAX_CNAMES} CNAMEs"));
            }
            self.add_ttl(ttl);
            self.names.push(target);
        }
        let has_moved = self.names.len() > before;
        match negative(answer, code) {
            Negative::NoSuchName(ttl) => empty("no such name", ttl),
            Negative::NoAddress(ttl @ Some(_)) => empty("no address", ttl),
            // Without an SOA the server may only have stopped at the CNAME.
            _ if has_moved => Step::Query(self.name().clone()),
            Negative::NoAddress(None) => empty("no address", None),
            Negative::Referral => {
                failed("answered with a referral: it does not resolve names for us".into())
            }
        }
    }

    /// The addresses among the records of the chain's last name.
    fn addresses(&mut self, records: &[&Record]) -> Option<FamilyResult> {
        let kind = self.family.record_type();
        let records = records.iter().filter(|record| record.record_type() == kind);
        let found: Vec<(IpAddr, u32)> =
            records.filter_map(|record| Some((record.data.ip_addr()?, record.ttl))).collect();
        let ttl = found.iter().map(|(_, ttl)| *ttl).min()?;
        // The TTL of a CNAME counts as well: after it, the name may lead elsewhere.
        self.add_ttl(ttl);
        let (addresses, rejected) = self.policy.partition(found.into_iter().map(|(ip, _)| ip));
        if addresses.is_empty() {
            let rejected: Vec<_> = rejected.iter().map(ToString::to_string).collect();
            let error = format!("answered with no usable address: {}", rejected.join(", "));
            return Some(FamilyResult::Failed(error));
        }
        let ttl = Duration::from_secs(self.ttl.unwrap_or(0).into());
        Some(FamilyResult::Addresses { addresses, rejected, ttl })
    }

    fn add_ttl(&mut self, ttl: u32) {
        self.ttl = Some(self.ttl.map_or(ttl, |before| before.min(ttl)));
    }
}

/// Why an answer has no address.
enum Negative {
    /// NXDOMAIN, and how long that is valid if there is an SOA.
    NoSuchName(Option<Duration>),
    /// NODATA, and how long that is valid if there is an SOA.
    NoAddress(Option<Duration>),
    /// The server names other servers.
    Referral,
}

fn negative(answer: &Message, code: ResponseCode) -> Negative {
    // RFC 2308 section 5: the lesser of the SOA's TTL and its MINIMUM field.
    let ttl = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(Duration::from_secs(record.ttl.min(soa.minimum).into())),
        _ => None,
    });
    let names_servers = answer.authorities.iter().any(|record| matches!(record.data, RData::NS(_)));
    match code {
        ResponseCode::NXDomain => Negative::NoSuchName(ttl),
        _ if ttl.is_none() && names_servers => Negative::Referral,
        _ => Negative::NoAddress(ttl),
    }
}

fn empty(missing: &str, ttl: Option<Duration>) -> Step {
    let reason = format!("answered that there is {missing}");
    Step::Done(FamilyResult::Empty { reason, ttl })
}

fn failed(error: String) -> Step {
    Step::Done(FamilyResult::Failed(error))
}

fn rcode_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        other => other.to_string(),
    }
}
