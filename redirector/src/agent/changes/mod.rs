//! Commands, reloads and rollbacks.

pub(crate) mod commands;
pub(crate) mod history;
