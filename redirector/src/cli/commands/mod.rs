//! One file per verb, or folder per noun.

pub(crate) mod check;
mod check_destinations;
mod check_interfaces;
mod check_search_list;
pub(crate) mod config;
pub(crate) mod controller;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod ready;
pub(crate) mod reload;
pub(crate) mod route;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod unload;
pub(crate) mod verify;
