//! The API server of Kubernetes. An agent in a pod uses it to learn which pods its node has, and to
//! remove the node's start-up taint. Nothing that redirects waits for it.
//!
//! | module | contains |
//! |---|---|
//! | `backoff` | the pauses between attempts to reach it |
//! | `client` | the client of this pod, and why a request failed |
//! | `connection` | noticing that it is silent |
//! | `follow` | objects of one kind, listed once and watched from then on |
//! | `pod` | what the agent reads of the pods of its node |
//! | `taint` | the taint that keeps jobs away until the agent serves |

mod backoff;
mod client;
mod connection;
mod follow;
mod pod;
mod taint;

pub(crate) use backoff::Backoff;
pub(crate) use client::answer;
pub use client::{ApiError, infer, is_pod, of_pod};
pub(crate) use follow::Follow;
pub use follow::Followed;
pub use pod::{Pod, Pods, follow};
pub use taint::{TAINT, remove_taint};
