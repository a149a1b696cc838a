//! The desired state, the actual state, and reconciling them.

pub(crate) mod desired_state;
pub(crate) mod reconciler;
