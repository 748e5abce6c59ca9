//! What the C library does with memory that was freed.

/// Keeps up to 64 MiB of freed memory instead of giving it back: librdkafka allocates as much again for the next
/// fetch, and each page that is given anew is zeroed first (8 % of a fill's processor time). Does nothing where the
/// C library is not glibc.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: two numbers of malloc's own (mallopt(3)), set before there are other threads.
    unsafe {
        // The first turns off that the other adapts itself; 32 MiB is the most that is taken.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
    }
}
