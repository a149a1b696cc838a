//! What an actor is asked, and its replies: one JSON object per connection and direction.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Connects and reads the banner.
    Connect {
        /// The address.
        target: SocketAddr,
    },
    /// Connects, and has this many octets echoed.
    Transfer {
        /// The address.
        target: SocketAddr,
        /// The octets.
        octets: usize,
    },
    /// Connects and keeps the connection.
    Hold {
        /// The address.
        target: SocketAddr,
    },
    /// Has an octet echoed over the connection that is held.
    Echo,
    /// Asks a resolver.
    Query {
        /// The resolver.
        resolver: IpAddr,
        /// The name, without its last dot.
        name: String,
        /// The type, as in a zone file.
        kind: String,
    },
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Connected.
    Connected {
        /// The server's banner.
        banner: String,
        /// The result of getpeername.
        peer: SocketAddr,
        /// How long the connect took.
        milliseconds: u64,
    },
    /// All octets came back.
    Transferred {
        /// The path MTU of the connection at its end.
        mtu: u32,
    },
    /// The connection that is held works.
    Echoed,
    /// A resolver's answer.
    Answer(Answer),
    /// The system call failed.
    Failed {
        /// The errno, 0 for an error of another kind.
        errno: i32,
        /// The error.
        error: String,
        /// How long it took.
        milliseconds: u64,
    },
}

/// A resolver's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Where it came from.
    pub(crate) from: IpAddr,
    /// The response code, as in a zone file's documentation: `NoError`.
    pub(crate) code: String,
    /// The data of the records in the answer section.
    pub(crate) records: Vec<String>,
    /// The number of records in the authority section.
    pub(crate) authorities: usize,
    /// The name in the question.
    pub(crate) name: String,
}
