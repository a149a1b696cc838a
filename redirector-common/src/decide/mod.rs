//! Pure decisions, which run in the kernel and are tested on the host: whether a connect is
//! redirected, its backend and its outcome, and whether a DNS query is intercepted.

mod backend;
mod balance;
mod connect;
mod dns;
#[cfg(test)]
mod exhaustive_tests;
mod fast_path;
mod flow;
mod lookup;
mod outcome;
mod packed;
mod pool;
mod port_map;
#[cfg(test)]
mod replacement_tests;
mod reset;
mod select_bit;
mod select_state;
mod tables;
#[cfg(test)]
mod test_tables;

pub use backend::{Backend, SocketOptions};
pub use balance::{latest_success, scan_eligible};
pub use connect::{Verdict, connect, deny_reason};
pub use dns::{Reach, find_slot, is_alive, reach};
pub use fast_path::{few_backends, single_backend};
pub use flow::{GuestSyn, Reply, guest_segment, guest_syn, reply, spare_port, tcp};
pub use lookup::select;
pub use outcome::{ConnectOutcome, connect_outcome};
pub use packed::{
    Candidates, ClientKey, Denial, Draw, DrawInput, Families, PortLookup, PortPairs, Selection,
};
pub use pool::{Pool4, Pool6};
pub use port_map::find_port;
pub use reset::{FinalCounters, ended_by_reset, is_early_reset};
pub use tables::{Client, Tables};
