//! The end of the datapath's log, with the verifier's messages: shown when loading failed.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Bytes that are kept of a verifier's log, which may have millions of lines.
const KEPT: usize = 12 * 1024;

static TAIL: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tail = TAIL.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(bytes);
        let excess = tail.len().saturating_sub(KEPT);
        tail.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what this process logs from now on.
pub(crate) fn start() {
    let log = tracing_subscriber::fmt()
        .with_env_filter("redirector::datapath=debug")
        .with_ansi(false)
        .with_writer(|| LogWriter);
    log.init();
}

/// The end of the log.
pub(crate) fn text() -> String {
    String::from_utf8_lossy(&TAIL.lock().unwrap_or_else(PoisonError::into_inner))
        .replace("\\n", "\n")
}
