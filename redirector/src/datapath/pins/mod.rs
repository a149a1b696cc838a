//! The pins: their folders, taking them over from another version, reading and removing them.

pub(crate) mod compat;
pub(crate) mod inspect;
pub(crate) mod layout;
pub(crate) mod upgrade;
pub(crate) mod version;
