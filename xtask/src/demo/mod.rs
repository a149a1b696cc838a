//! The demo, and the pictures of it for the documentation.

pub(crate) mod captures;
mod fixture;
mod picture;
mod run;
mod screenshots;
mod steps;
mod transcript;

pub(crate) use run::{Args, run};
