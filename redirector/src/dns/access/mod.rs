//! Who may ask, and how much.

mod acl;
mod limits;
mod rate_limit;

pub(crate) use acl::{Access, Client};
pub(crate) use limits::Limits;
pub(crate) use rate_limit::{Quotas, RATE, REFUSALS, Share, Shares};
