//! Memory that is free, given back to the kernel.

/// Gives all memory that the allocator holds and nobody uses back to the kernel. The allocator does that by itself only when
/// it is called again some time later, which in a process at rest may be never.
///
/// Takes up to some milliseconds; whoever needs the memory again has it zeroed page by page. So it is for after something
/// that needed much, not for the way of traffic. Without mimalloc as the allocator of the process it has no effect.
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: takes no pointer and hands none out; mimalloc allows it at any time on any thread. What it frees of other
    // threads is only what they have freed.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    /// Bytes that the kernel counts as resident.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn what_is_free_leaves_the_process() {
        const MIB: usize = 1 << 20;
        let held: Vec<Vec<u8>> = (0..64_000).map(|i| vec![u8::try_from(i % 251).unwrap(); 1024]).collect();
        let full = resident();
        drop(held);
        give_back();
        let left = resident();
        assert!(left + 40 * MIB < full, "{} MiB, and {} MiB after all was freed", full / MIB, left / MIB);
    }
}
