//! Hides values from the optimiser, by an inline instruction that copies a register to itself.

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

/// The same number. The compiler would turn an atomic addition of 0 into an atomic "or", which
/// kernels before 5.12 refuse: "BPF_STX uses reserved fields" (5.10). `black_box` would go through
/// the stack: "attempt to corrupt spilled pointer on stack" (5.10 and 6.1).
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

/// The same number, which the compiler takes for a new one at each call, so that it computes
/// derived values again instead of keeping them.
#[inline(always)]
pub(crate) fn reload(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: copies a register to itself. Not `pure`, or calls with the same number would be
        // merged.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
        number
    };
    number
}
