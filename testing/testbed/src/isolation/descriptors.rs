//! A thread without a free file descriptor.

use std::{fs::File, io, thread};

/// Runs `action` in a thread with descriptors of its own, none of which is free. Those of the
/// process are untouched, and closed in the thread but for the standard streams.
pub fn without_descriptors<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    let exhausted = || {
        // SAFETY: what is closed is a copy that only this thread has, and nothing in it is used by
        // `action`, which gets no descriptor.
        let left = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) };
        assert_eq!(left, 0, "{}", io::Error::last_os_error());
        let mut held = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        action()
    };
    let ended = thread::scope(|scope| scope.spawn(exhausted).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
