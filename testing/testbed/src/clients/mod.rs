//! What executors run: loads of connects and of queries, each as a process of its own, and the
//! handles by which a test drives them.

pub mod cli;
mod connect_load;
mod connect_storm;
mod dns_load;
mod errno;
mod flood;
mod load_process;
mod lookups;
mod operation;
mod operations;

pub use connect_load::{LoadOptions, LoadReport, connect};
pub use connect_storm::{ConnectStorm, StormOptions, StormReport};
pub use dns_load::{DnsLoad, DnsLoadOptions, DnsLoadReport};
pub use flood::{FloodKind, FloodOptions};
pub use load_process::{LoadProcess, arguments};
pub use lookups::{LookupOptions, LookupReport, Mapped};
pub use operation::{Operation, Outcome, Task, TaskKind};
pub use operations::{OperationsOptions, now_us};
