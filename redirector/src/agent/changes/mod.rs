//! Changes of the routes: commands, imports, rollbacks and reloads.

pub(crate) mod cluster;
pub(crate) mod commands;
mod history;
mod imports;
pub(crate) mod pending;
mod refusal;
pub(crate) mod reload;
pub(crate) mod replies;
pub(crate) mod route_changes;
