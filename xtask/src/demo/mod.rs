//! The demo, and the pictures that are taken of it.

pub(crate) mod captures;
mod fixture;
mod picture;
mod run;
mod steps;
mod transcript;

pub(crate) use run::{Args, run};
