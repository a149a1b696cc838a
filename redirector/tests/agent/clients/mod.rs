//! Connects of real clients.

mod leak;
mod names_and_tls;
mod source_ips;
