//! The programs' debug log (aya-log), for whoever debugs them: on with `--log-level debug` or `redirector_ebpf=debug`. Otherwise its level is 0 at
//! load, and the verifier drops the code: nothing of it runs.

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// The programs' crate, as its messages name their origin.
const TARGET: &str = "redirector_ebpf";

/// aya-log's number for `debug`; 0 compiles every message out.
const DEBUG: u8 = 4;

/// The level that the programs are loaded with.
pub(super) fn level() -> u8 {
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) { DEBUG } else { 0 }
}

/// The reading end of the programs' log.
pub struct ProgramLog(EbpfLogger<&'static dyn log::Log>);

impl ProgramLog {
    /// Opens the log of a loaded object; nothing when it can't be read.
    pub(super) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init(ebpf).inspect_err(|error| tracing::warn!(%error, "the programs' log can't be read")).ok().map(Self)
    }

    /// Passes the programs' messages on to this process's log, for as long as it is polled.
    ///
    /// # Errors
    ///
    /// When the ring buffer can't be waited for.
    pub async fn follow(self) -> std::io::Result<()> {
        // SAFETY: the logger owns its descriptor, never replaces it, and is moved into the value that waits for it.
        let mut log = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) }?;
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
