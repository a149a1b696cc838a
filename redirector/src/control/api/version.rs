//! The version of the shapes.

/// The version of every shape in this module, in the field `version` of each top-level object.
pub const VERSION: u32 = 1;
