//! DNS of executors.

mod interception;
mod loops;
mod resolvers;
mod tenants;
