//! The command line and the control API.

mod change;
mod cluster_routes;
mod destinations;
mod errors;
mod events;
mod explain;
mod formats;
mod many_routes;
mod onboarding;
mod operate;
mod order;
mod pages;
mod search_lists;
mod source_ports;
mod status_page;
mod top;
mod verify;
mod verify_follow;
