//! Giving memory back to the system: a full pool's change takes a hundred megabytes for a second, which the allocator would keep for good.

/// Gives back what is free. Takes some milliseconds when there is much of it.
pub(super) fn give_back() {
    // Other C libraries give back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and touches nothing but the allocator's own free memory, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
