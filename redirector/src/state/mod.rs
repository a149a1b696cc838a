//! What the agent keeps on disk: routes, leases, and who changed what.
//!
//! | in the state directory | is |
//! |---|---|
//! | `routes.json`, `leases.json` | the routes of the command line and of imports, and every lease, as of the last folding |
//! | `journal` | each change since then, a line each |
//! | `history/` | who changed what, before that |
//!
//! A change is one line at the end of the journal and one sync: leases, routes and record become
//! true together. Whatever reads the directory reads the two files and goes on from there by the
//! journal. Now and then, and at each start, the journal is folded into the files; a power cut or a
//! kill between them does no harm, since what a line says is what holds afterwards, however often
//! it is carried out.

mod history;
mod journal;
mod leases;
mod offline;
mod record;
mod state_dir;

pub use self::{
    leases::{LeaseChange, LeaseError, LeaseWarning, Leases},
    offline::leased,
    record::{Author, Change, Record, UndoError},
    state_dir::{OpenedState, State, StateError},
};
