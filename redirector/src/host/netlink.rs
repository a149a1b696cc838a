//! Netlink: a connection for one operation, and its errors.

use std::{io, net::IpAddr};

use rtnetlink::Handle;

/// Why the host could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another route of this host covers the pool.
    #[error(
        "this host already has a route for `pool.{key} = \"{pool}\"` ({route}): choose a pool that \
            nothing uses, or set `pool.guard = false` if that route never leads off this host"
    )]
    PoolIsRouted {
        /// The range of the pool: `ipv4` or `ipv6`.
        key: &'static str,
        /// The pool.
        pool: String,
        /// The other route.
        route: String,
    },
    /// Connects to the pool can't be refused with resets.
    #[error("{cause}")]
    NoResets {
        /// What this kernel lacks.
        cause: String,
    },
    /// The kernel refused a netlink request.
    #[error("failed to {action}{}", hint(source))]
    Netlink {
        /// The operation.
        action: String,
        /// The errno.
        source: io::Error,
    },
    /// The shim's listen address could not be added.
    #[error("failed to add {address} to lo{}", hint(source))]
    Address {
        /// The address.
        address: IpAddr,
        /// The errno.
        source: io::Error,
    },
}

/// The usual cause of an errno of netlink.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (CAP_NET_ADMIN is needed)",
        _ => "",
    }
}

impl HostError {
    pub(crate) fn netlink(action: impl Into<String>, error: rtnetlink::Error) -> Self {
        Self::Netlink { action: action.into(), source: to_io(error) }
    }
}

/// Converts a netlink error: the errno that the kernel answered, else the error's text.
pub(crate) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Runs `work` with a netlink connection of its own.
pub(crate) async fn with_netlink<T>(
    work: impl AsyncFnOnce(Handle) -> Result<T, HostError>,
) -> Result<T, HostError> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|source| HostError::Netlink { action: "open a netlink socket".into(), source })?;
    let connection = tokio::spawn(connection);
    let result = work(handle).await;
    connection.abort();
    result
}
