//! The whole product on the real kernel: the agent with exactly its three capabilities, real
//! clients, a real registry behind real load balancers.

mod cgroups;
mod change;
mod clients;
mod errors;
mod events;
mod explain;
mod hierarchy;
mod interception;
mod leak;
mod loads;
mod loops;
mod neighbours;
mod operate;
mod readme;
mod resolvers;
mod restart;
mod rig;
mod snapshots;
mod source;
mod stage;
mod storm;
mod supervised;
mod top;
mod verify;
