//! Clients' queries, over UDP and TCP.
//!
//! `server` opens the sockets and runs `udp` and `tcp`, which pass each query to `handler`;
//! `publisher` changes what the handler answers.

mod bind_error;
mod handler;
mod intercept_ports;
mod listener;
mod publisher;
mod server;
mod settings;
mod shutdown;
mod tcp;
mod udp;
mod udp_batch;

pub use bind_error::BindError;
pub use intercept_ports::InterceptPorts;
pub use publisher::Publisher;
pub use server::{BoundShim, adopt, bind};
pub use settings::ShimSettings;
