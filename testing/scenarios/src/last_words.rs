//! The end of what the datapath has logged, the verifier's reasons above all: shown only when it
//! did not load.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// What a person needs of a verifier's log, which may have millions of lines.
const KEPT: usize = 12 * 1024;

static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Ear;

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(bytes);
        let excess = said.len().saturating_sub(KEPT);
        said.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what this process logs from now on. The programs' own log stays off: it would be other
/// programs that are loaded then.
pub(crate) fn listen() {
    let log = tracing_subscriber::fmt()
        .with_env_filter("redirector::datapath=debug")
        .with_ansi(false)
        .with_writer(|| Ear);
    log.init();
}

/// The end of it.
pub(crate) fn said() -> String {
    String::from_utf8_lossy(&SAID.lock().unwrap_or_else(PoisonError::into_inner))
        .replace("\\n", "\n")
}
