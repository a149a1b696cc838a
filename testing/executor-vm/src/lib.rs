//! A virtual machine with systemd and Docker, in the place of the test bed's node: the customer's
//! servers see its addresses, and nothing else of this machine is in its network.
//!
//! ```text
//!   executor VM (qemu, TCG)             node (a namespace)            customer (a namespace)
//!   enp0s2 198.51.100.1, .2 ── tap0 ─ bridge ─ uplink ──veth── public  203.0.113.7, .8   HAProxy
//!   ttyS1: a shell                                                     203.0.113.53      nsd
//!   docker0, Docker's networks                                         10.20.0.10        nginx
//! ```

pub mod image;
mod vm;

pub use vm::{Input, Vm};
