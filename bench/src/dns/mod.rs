//! The DNS shim beside unbound and dnsmasq.

mod dnsperf;
mod in_kernel;
mod latency;
mod program_times;
mod report;
mod run;
mod servers;
mod soak;

pub use self::report::{Latency, Ratio, Report, Turn};
pub use self::run::{EXAMPLE, Options, run};
pub use self::soak::Soak;
