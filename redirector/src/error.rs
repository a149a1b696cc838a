//! Errors: as text, and whose they are.

use std::io;

use rustix::io::Errno;

/// Whether this host caused an error: it lacks descriptors, buffers or memory, or a message is too
/// large for UDP.
pub(crate) fn is_local_error(error: &io::Error) -> bool {
    let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::MSGSIZE];
    Errno::from_io_error(error).is_some_and(|errno| local.contains(&errno))
}

/// What a call has found; none if there is nothing. An error if this host lacks descriptors or
/// memory: then it is unknown what there is, and nothing must be given up for it.
pub(crate) fn known<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_local_error(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// An error with its causes on one line. A cause that the text before it already quotes is left
/// out.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
