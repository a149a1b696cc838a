//! What this kernel, these privileges and foreign programs allow.

pub(crate) mod check;
pub(crate) mod debug_log;
pub(crate) mod features;
pub(crate) mod foreign;
pub(crate) mod kernel;
pub(crate) mod preflight;
pub(crate) mod privileges;
