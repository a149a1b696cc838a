//! The cost of redirector, compared with its peers.
//!
//! The variants of a benchmark take turns within one run, and ratios compare adjacent turns: other
//! work on the machine then disturbs both sides alike. See `bench/README.md`.

pub mod agent;
mod bpf;
pub mod bulk;
pub mod cli;
mod clock;
pub mod comparison;
pub mod connect;
pub mod dns;
pub mod failover;
pub mod guests;
mod host;
mod lookup;
pub mod memory;
mod options;
pub mod packets;
pub mod peers;
mod plot;
mod rounds;
pub mod rows;
pub mod scale;
mod statistics;
pub mod steady;
pub mod targets;
pub mod throughput;
pub mod upgrade;
pub mod worker;

pub use self::options::Options;
pub use self::statistics::Spread;
