//! The control API: HTTP with JSON on a unix socket, its server, its client and the types that both
//! share.
//!
//! This module knows nothing of routes, DNS or the kernel: a request becomes a [`Command`] in the
//! queue of the agent's owner task, and the owner's reply becomes the response. So changes are
//! serialised by the queue, and a client that goes away midway changes nothing by half: a command
//! enters the queue only after the whole body was read and understood, and is then carried out
//! whether or not anybody waits.

pub mod api;
mod client;
mod command;
mod error;
mod event_hub;
mod handlers;
mod peer_cred;
mod plural;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, EventStream};
pub use command::{Caller, Command, Handle, Reply};
pub use error::{ApiError, ErrorBody, ErrorCode};
pub use event_hub::{EventHub, KEPT, Subscription};
pub(crate) use plural::count;
pub use server::{Limits, Server};
pub use socket::SocketError;
