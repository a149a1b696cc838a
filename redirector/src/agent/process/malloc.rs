//! What the allocator does with memory that is free: a full pool's change takes a hundred megabytes
//! for a second, which it would keep for good.

/// Prepares for tables that come and go. For the start, before any thread.
pub fn prepare() {
    // Other C libraries have nothing of this.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and sets nothing but the allocator's own limits.
    unsafe {
        // What one thread has freed serves another one's change. The threads that answer DNS
        // allocate nothing, so they don't wait for each other.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Left alone, the allocator would no longer map large tables each by itself once one was
        // freed, and long-lived pieces would settle in them.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Gives back what is free. Takes some milliseconds when there is much of it.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and touches nothing but the allocator's own free memory, under its
    // own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
