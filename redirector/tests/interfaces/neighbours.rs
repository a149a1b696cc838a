//! Foreign programs on the same hooks.
