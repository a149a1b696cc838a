//! The verdicts of hooks.

/// The call proceeds.
pub(crate) const ALLOW: i32 = 1;

/// The call fails with the errno set by `bpf_set_retval`, else with EPERM.
pub(crate) const DENY: i32 = 0;
