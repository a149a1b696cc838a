//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets,
//! how it ended.

mod balance;
mod connect;
mod dns;
mod fast_path;
mod lookup;
mod outcome;
mod pool;
mod port_map;
mod select_bit;
#[cfg(test)]
mod test_tables;
mod unroll;

pub use balance::{Candidates, Drawing, Drawn, Families, survey};
pub use connect::{Choice, Client, Extras, Tables, Verdict, connect, refusal};
pub use dns::{Claims, Held, Reach, Slots, is_alive, reach, slot_of};
pub use fast_path::{one_of_few, only};
pub use lookup::{Asked, Pick, Read, pick};
pub use outcome::{End, end_of_connect};
pub use pool::{Pool4, Pool6};
pub use port_map::{Found, Ports, find_port};
