//! The DNS shim and the follower of destinations, against real sockets, real clients, and an
//! upstream that misbehaves on demand.

mod access;
mod answer;
mod clients;
mod corpus;
mod follower;
mod forward;
mod lookups;
mod loops;
mod message;
mod mock;
mod restart;
mod shim;
mod slots;
mod zone;
