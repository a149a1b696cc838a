//! The datapath's scenarios on other kernels.

mod boot;
mod guest;
mod kernels;
mod machine;
mod modules;
mod passed;
mod run;
mod table;

pub(crate) use run::{Args, ensure_passes, prepare, run};
