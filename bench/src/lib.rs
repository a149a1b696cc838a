//! The cost of redirector, compared with its peers.
//!
//! The variants of a benchmark take turns within one run, and ratios compare adjacent turns: other
//! work on the machine then disturbs both sides alike. See `bench/README.md`.

pub mod agent;
mod bpf;
pub mod bulk;
pub mod cli;
pub mod connect;
pub mod dns;
pub mod guests;
mod host;
mod options;
pub mod packets;
mod plot;
mod rounds;
pub mod rows;
mod statistics;
pub mod targets;
pub mod worker;

pub use self::options::Options;
pub use self::statistics::Spread;
