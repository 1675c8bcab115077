//! What only the C library gives, by the only unsafe code of this crate.
//!
//! No crate wraps these calls. Each is one call without a pointer that outlives it. On systems without them they do
//! nothing: the server is then less even, and holds more memory, but works.

#![allow(unsafe_code, reason = "each block says why it is sound")]

/// A thread that answers callers has the processor for this long at a time: the shortest that Linux grants.
#[cfg(target_os = "linux")]
const SHORT_SLICE_NANOS: u64 = 100_000;

/// A thread that computes: as long as Linux gives by default on a machine of a few processors.
#[cfg(target_os = "linux")]
const LONG_SLICE_NANOS: u64 = 3_000_000;

/// This thread answers callers: it asks for the processor in short slices, and so gets it at once when it wakes, before
/// threads with longer slices. Its share of the processors stays the same. Linux 6.12 and later grant this; earlier
/// ones ignore it.
pub fn answers() {
    #[cfg(target_os = "linux")]
    set_slice(SHORT_SLICE_NANOS);
}

/// This thread computes: it gives way to threads that answer.
pub fn computes() {
    #[cfg(target_os = "linux")]
    set_slice(LONG_SLICE_NANOS);
}

#[cfg(target_os = "linux")]
fn set_slice(nanos: u64) {
    // The call sets both, so an operator's own setting must be given again.
    let Ok(nice) = rustix::process::getpriority_process(None) else { return };
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        sched_policy: 0,
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY.unsigned_abs().into(),
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: nanos,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of the structure during the call, and keeps no pointer. 0 is this thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Gives memory that was freed back to the system. The allocator keeps what lies between blocks that are in use, such as
/// the streams of thousands of readers that are gone. Takes some milliseconds for each GiB, during which other threads
/// may wait for an allocation.
pub fn give_back_memory() {
    // SAFETY: it takes the locks of the allocator like any call of `free`, and has no pointer.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0)
    };
}
