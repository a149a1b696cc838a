//! The DNS shim and the follower of destinations with real sockets, real clients, and an upstream
//! that misbehaves on demand.

mod access_control;
mod address_cache;
mod authority;
mod destination_addresses;
mod dns_tools;
mod follower;
mod follower_rig;
mod forward;
mod free_port;
mod intercept_ports;
mod loops;
mod message;
mod negative_answers;
mod reply_fidelity;
mod resolver_stacks;
mod resolvers_and_oddities;
mod running_shim;
mod scripted_upstream;
mod scripted_zone;
mod shim;
mod succession;
