//! The agent's state on disk: routes, leases, and who changed what.
//!
//! | in the state directory | is |
//! |---|---|
//! | `routes.json`, `leases.json` | the stored routes and every lease, as of the last compaction |
//! | `journal` | each change since then, a line each |
//! | `history/` | who changed what, before that |
//!
//! A change is one line at the end of the journal and one sync: leases, routes and record change
//! together. A reader reads the two files and then applies the journal. Now and then, and at each
//! start, the journal is compacted into the files. A power cut or a kill in between does no harm,
//! since a line states the result of its change and can be applied any number of times.

mod history;
mod journal;
mod lease_change;
mod lease_table;
mod leases;
mod offline;
mod record;
mod state_dir;

pub use self::{
    lease_change::LeaseChange,
    lease_table::PoolFull,
    leases::{LeaseError, LeaseWarning, Leases},
    offline::leased,
    record::{Author, Change, Record, UndoError},
    state_dir::{OpenedState, State, StateError},
};
