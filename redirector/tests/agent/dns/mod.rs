//! DNS of executors.

mod interception;
mod loops;
mod packets;
mod resolvers;
mod tenants;
