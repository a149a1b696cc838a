//! Tuning of glibc's allocator: a change of a full pool needs a hundred megabytes for a second,
//! which the allocator would otherwise keep for good.

/// Prepares the allocator for large tables of short life. Call this at startup, before any thread
/// exists.
pub fn prepare() {
    // Other C libraries have no mallopt.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and sets only limits of the allocator.
    unsafe {
        // One arena, so that memory freed by one thread serves the next change in another. The
        // threads that answer DNS do not allocate, so they do not contend for it.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // A fixed threshold, so that large tables stay separate mappings: the allocator raises a
        // dynamic one when a large table is freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Returns free memory to the system. Takes some milliseconds if there is much.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and touches only free memory of the allocator, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
