//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets, how it ended.

mod bits;
mod choice;
mod connect;
mod dns;
mod fate;
#[cfg(test)]
mod test_tables;
mod unrolled;

pub use choice::{Candidates, Drawing, Drawn, Families, survey};
pub use connect::{
    Asked, Choice, Client, Extras, Found, Pick, Pool4, Pool6, Ports, Read, Tables, Verdict, connect, find_port, pick, refusal,
};
pub use dns::{Claims, Held, Reach, Slots, is_alive, reach, slot_of};
pub use fate::{End, end_of_connect};
