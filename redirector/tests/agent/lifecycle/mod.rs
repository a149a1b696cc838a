//! Start, restart, supervision and load.

mod restart;
mod storm;
mod supervised;
