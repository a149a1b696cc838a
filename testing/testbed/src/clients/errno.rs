//! Names of errors in reports.

use std::io;

/// The name of an error, as errno(3) has it where it is common here.
pub(crate) fn errno_name(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EMFILE) => "EMFILE",
        Some(libc::EAGAIN) => "no answer in time",
        _ if error.kind() == io::ErrorKind::TimedOut => "no answer in time",
        _ => return error.to_string(),
    };
    name.to_owned()
}
