//! Memory that is not needed any more.

/// Gives what the allocator keeps free back to the kernel (malloc_trim(3)); where there is no such call,
/// nothing. Takes milliseconds: for after a start or a reload.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches only memory that nobody has allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
