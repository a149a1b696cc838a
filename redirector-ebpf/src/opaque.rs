//! Values that the compiler must not reason about, each passed through an instruction that it can't
//! see through.

/// The same pointer.
#[inline(always)]
pub(crate) fn pointer<T>(pointer: *mut T) -> *mut T {
    #[cfg(target_arch = "bpf")]
    let pointer = {
        let mut pointer = pointer;
        // SAFETY: copies a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nostack)) };
        pointer
    };
    pointer
}

/// The same number. From an addition of 0 the compiler makes an atomic "or", which no kernel before
/// 5.12 has: "BPF_STX uses reserved fields" (5.10). `black_box` would go through the stack:
/// "attempt to corrupt spilled pointer on stack" (5.10 and 6.1).
#[inline(always)]
pub(crate) fn number(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: copies a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
        number
    };
    number
}

/// The same number, different each time to the compiler: what is computed from it is computed again
/// instead of kept.
#[inline(always)]
pub(crate) fn reload(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: copies a register to itself. Not `pure`: two of the same number would be merged.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
        number
    };
    number
}
