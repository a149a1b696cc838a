//! The API server of Kubernetes, as an agent in a pod uses it: to learn which pods its node has,
//! and to remove the node's start-up taint. Nothing that redirects waits for it.
//!
//! | module | contains |
//! |---|---|
//! | `client` | requests, with the token and the authority that the kubelet mounts |
//! | `lines` | the lines of a response that lasts for minutes |
//! | `pod` | what the agent reads of a pod |
//! | `follow` | the pods of this node, listed once and watched from then on |
//! | `taint` | the taint that keeps jobs away until the agent serves |

mod client;
mod follow;
mod lines;
mod pod;
mod taint;

pub use client::{ApiError, Client};
pub use follow::{Pods, follow};
pub use pod::Pod;
pub use taint::{TAINT, remove_taint};
