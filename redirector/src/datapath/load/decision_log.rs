//! The log of the programs, if they were built to log.

use std::{
    fmt,
    os::fd::{AsRawFd, RawFd},
};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// The log of the programs. Read it, or its ring buffer fills up and records are dropped.
pub struct DecisionLog(EbpfLogger<Forward>);

impl fmt::Debug for DecisionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecisionLog")
    }
}

/// For a reactor: readable after a record has arrived that [`DecisionLog::forward`] has not read.
impl AsRawFd for DecisionLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl DecisionLog {
    /// Takes the ring buffer out of a loaded object.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, Forward).map(Self)
    }

    /// Logs the records that have arrived, with the target `redirector::datapath::log`. Never
    /// waits.
    pub fn forward(&mut self) {
        self.0.flush();
    }
}

/// A logger that turns the records of aya-log into our log messages.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    /// At level `info` or higher: the operator asked for it.
    fn log(&self, record: &log::Record<'_>) {
        const TARGET: &str = "redirector::datapath::log";
        // The programs pad the last value with spaces.
        let line = record.args().to_string();
        let line = line.trim_end();
        match record.level() {
            log::Level::Error => tracing::error!(target: TARGET, "{}", line),
            log::Level::Warn => tracing::warn!(target: TARGET, "{}", line),
            _ => tracing::info!(target: TARGET, "{}", line),
        }
    }

    fn flush(&self) {}
}
