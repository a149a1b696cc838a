//! Start, restart, supervision and load.

mod debug_log;
mod exhaustion;
mod files;
mod hand_over;
mod interrupted_hand_over;
mod pool_change;
mod purge;
mod restart;
mod storm;
mod supervised;
mod unit;
mod unread_log;
