//! The pools of VIPs: load-time constants, which the verifier knows.

use aya_ebpf::Global;
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    decide::{Pool4, Pool6},
};

#[unsafe(no_mangle)]
static POOL4_BASE: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static POOL4_MASK: Global<u32> = Global::new(u32::MAX);

#[unsafe(no_mangle)]
static POOL6_BASE0: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static POOL6_BASE1: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static POOL6_BASE2: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static POOL6_BASE3: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
static HAS_POOL6: Global<u32> = Global::new(0);

/// The IPv4 pool.
#[inline(always)]
pub(crate) fn pool4() -> Pool4 {
    Pool4 { base: Ip4Be(POOL4_BASE.load()), mask: POOL4_MASK.load() }
}

/// The IPv6 pool, if there is one.
#[inline(always)]
pub(crate) fn pool6() -> Option<Pool6> {
    if HAS_POOL6.load() == 0 {
        return None;
    }
    let base =
        Ip6Be([POOL6_BASE0.load(), POOL6_BASE1.load(), POOL6_BASE2.load(), POOL6_BASE3.load()]);
    Some(Pool6 { base, mask: POOL4_MASK.load() })
}
