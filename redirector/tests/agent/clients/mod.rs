//! Connects of real clients.

mod admission;
mod git_over_ssh;
mod leak;
mod names_and_tls;
mod source_ips;
