//! The access list of the shim, and the limits of each client.

mod acl;
mod rate_limit;
mod resource_limits;

pub(crate) use acl::{Acl, ClientClass};
pub(crate) use rate_limit::{QUERIES_PER_SECOND, REFUSALS_PER_SECOND, RateLimiter};
pub(crate) use resource_limits::ResourceLimits;
