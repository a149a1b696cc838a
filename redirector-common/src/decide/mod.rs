//! Pure decisions, made in the kernel and tested here: what a connect does, which backend it gets,
//! how it ended.

mod backend;
mod balance;
mod connect;
mod dns;
mod fast_path;
mod lookup;
mod outcome;
mod packed;
mod pool;
mod port_map;
mod select_bit;
mod select_state;
mod tables;
#[cfg(test)]
mod test_tables;
mod unroll;

pub use backend::{Choice, Extras};
pub use balance::survey;
pub use connect::{Verdict, connect, refusal};
pub use dns::{Claims, Held, Reach, Slots, is_alive, reach, slot_of};
pub use fast_path::{one_of_few, only};
pub use lookup::pick;
pub use outcome::{End, end_of_connect};
pub use packed::{Asked, Candidates, Drawing, Drawn, Families, Found, Pick, Ports};
pub use pool::{Pool4, Pool6};
pub use port_map::find_port;
pub use tables::{Client, Tables};
