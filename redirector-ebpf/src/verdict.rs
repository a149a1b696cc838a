//! The verdicts of hooks.

/// The call proceeds.
pub(crate) const ALLOW: i32 = 1;

/// The call fails with the errno set by `bpf_set_retval`, else with EPERM.
pub(crate) const DENY: i32 = 0;

/// A packet is left to the next program: TCX_NEXT and TC_ACT_UNSPEC.
pub(crate) const NEXT: i32 = -1;

/// A packet is dropped: TC_ACT_SHOT.
pub(crate) const DROP: i32 = 2;

/// No verdict: the caller continues.
pub(crate) const CONTINUE: i32 = 64;
