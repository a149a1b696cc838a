//! The pins: their directories, upgrading from another version, reading and removing them.

pub(crate) mod compat;
pub(crate) mod inspect;
pub(crate) mod layout;
pub(crate) mod mark;
pub(crate) mod pools;
pub(crate) mod upgrade;
pub(crate) mod version;
