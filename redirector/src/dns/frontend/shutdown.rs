//! How long the shim still serves after it was asked to stop.

use std::time::Duration;

/// Longest time that a forwarded query may still wait for its upstream.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Interception ends in the kernel before it ends here, and a query may be on its way between the
/// two. Its socket is closed after this time without a query,
pub(super) const IDLE_CLOSE: Duration = Duration::from_millis(100);
/// or after this time in any case, since a client's connected socket may keep sending.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(400);
/// Time to send SERVFAIL to the clients that still wait at the end.
pub(super) const SERVFAIL_GRACE: Duration = Duration::from_millis(100);
