//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets, how it ended.

mod choice;
mod connect;
mod fate;

pub use choice::{Choice, choose};
pub use connect::{Pool4, Tables, Verdict, connect};
pub use fate::{End, end_of_connect};
