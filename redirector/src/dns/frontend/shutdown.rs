//! How long the shim keeps serving after a request to stop.

use std::time::Duration;

/// Longest time that a forwarded query may still wait for its upstream.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// A socket for intercepted DNS is closed after this time without a query: interception ends in the
/// kernel first, and earlier queries may still be on their way.
pub(super) const IDLE_CLOSE: Duration = Duration::from_millis(100);
/// Such a socket is closed after this time in any case, since a client's connected socket may keep
/// sending.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(400);
/// Time to send SERVFAIL to the clients that still wait at the end.
pub(super) const SERVFAIL_GRACE: Duration = Duration::from_millis(100);
