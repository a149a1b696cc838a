//! `cargo xtask executor-vm`: the package on a virtual machine with systemd and Docker.

mod image;
mod run;

pub(crate) use run::{Args, run};
