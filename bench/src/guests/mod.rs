//! The cost of the packet datapath for guests.

mod fixture;
pub(crate) mod frames;
mod run;

pub use self::fixture::Attach;
pub use self::run::{Options, Report, measure, run, write};
