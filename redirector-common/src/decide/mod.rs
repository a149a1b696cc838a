//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets, how it ended.

mod choice;
mod connect;
mod fate;
#[cfg(test)]
mod test_tables;

pub use choice::{Choice, Families, choose};
pub use connect::{Client, Pool4, Pool6, Read, Tables, Verdict, connect};
pub use fate::{End, end_of_connect};
