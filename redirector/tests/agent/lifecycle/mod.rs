//! Start, restart, supervision and load.

mod debug_log;
mod restart;
mod storm;
mod supervised;
