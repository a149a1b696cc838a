//! The result of a look-up.

use std::{fmt, net::IpAddr, time::Duration};

use hickory_proto::rr::RecordType;

use crate::backend::address_policy::RejectedAddress;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend) enum Family {
    V4,
    V6,
}

impl Family {
    /// The type of its address records.
    pub(super) fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The result of one look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) struct LookupResult {
    pub(in crate::backend) v4: FamilyResult,
    pub(in crate::backend) v6: FamilyResult,
}

/// The result of one look-up for one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) enum FamilyResult {
    /// At least one address to use.
    Addresses {
        addresses: Vec<IpAddr>,
        /// Those that are not used.
        rejected: Vec<RejectedAddress>,
        /// The shortest TTL of the records that lead to them.
        ttl: Duration,
    },
    /// The name authoritatively has no address.
    Empty {
        /// NODATA or NXDOMAIN, as a message.
        reason: String,
        /// How long the answer is valid, if it has an SOA.
        ttl: Option<Duration>,
    },
    /// No reliable answer.
    Failed(String),
}
