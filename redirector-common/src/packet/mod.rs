//! The tables of the packet datapath: names that are answered in place, and the flows of guests.

pub mod flow;
pub mod interface;
pub mod name;
pub mod stats;
