//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets,
//! how it ended.

mod bits;
mod choice;
mod connect;
mod dns;
mod fate;
mod pick;
mod plain;
mod pool;
mod ports;
#[cfg(test)]
mod test_tables;
mod unrolled;

pub use choice::{Candidates, Drawing, Drawn, Families, survey};
pub use connect::{Choice, Client, Extras, Tables, Verdict, connect, refusal};
pub use dns::{Claims, Held, Reach, Slots, is_alive, reach, slot_of};
pub use fate::{End, end_of_connect};
pub use pick::{Asked, Pick, Read, pick};
pub use plain::{one_of_few, only};
pub use pool::{Pool4, Pool6};
pub use ports::{Found, Ports, find_port};
