//! The process and its surroundings.

pub(crate) mod config_watch;
mod journal;
pub(crate) mod lock;
mod log_queue;
pub(crate) mod logging;
pub(crate) mod malloc;
pub(crate) mod signals;
pub(crate) mod systemd;
pub(crate) mod version_record;
