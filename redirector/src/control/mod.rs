//! The control API: HTTP with JSON on a unix socket; its server, its client and their shared types.
//!
//! A request becomes a [`Command`] in the queue of the agent's event loop, and the loop's reply
//! becomes the response. So the queue serialises changes, and a client that disconnects never
//! leaves a partial change: a command enters the queue only after its whole body was parsed, and is
//! then executed even if the client is gone.

pub mod api;
mod client;
mod command;
mod error;
mod event_hub;
mod hand_over;
mod handlers;
mod peer_cred;
mod plural;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod uncovered;

pub use client::{Client, ClientError, EventStream};
pub use command::{Caller, Command, Handle, Reply};
pub use error::{ApiError, ErrorBody, ErrorCode};
pub use event_hub::{EventHub, KEPT, Subscription};
pub use hand_over::{HandOver, Predecessor, Successor};
pub(crate) use plural::count;
pub use server::{Limits, Server};
pub use socket::SocketError;
pub(crate) use uncovered::uncovered;
