//! DNS of executors.

pub(crate) mod interception;
mod loops;
mod packets;
mod resolvers;
mod strangers;
mod tenants;
