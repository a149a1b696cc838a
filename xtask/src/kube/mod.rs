//! `cargo xtask kube`: the tests on a real Kubernetes, which is built from Debian's source once.

mod build;
mod run;

pub(crate) use run::{Args, run};
