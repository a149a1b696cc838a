//! The tables, the load-time constants, and how an element is reached, read and counted in.

use aya_ebpf::{
    Global,
    btf_maps::{Array, RingBuf, SkStorage},
    helpers::generated::{bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_sk_storage_get},
    macros::btf_map,
    programs::SockAddrContext,
};
use redirector_common::{
    addr::{Ip4Be, Ip6Be},
    agent::{AgentState, Control},
    backend::{BackendId, Health},
    decide::{Pool4, Pool6},
    event::{EventStats, RING_BYTES},
    origin::Origin,
    route::{RouteEntry, Slot},
    stats::{BackendStats, BackendTimes, RouteStats, RouteTimes, latency_bucket},
};

// The sizes here are placeholders: the loader sets them from the pool.

/// See [`redirector_common::names::ROUTES`].
#[btf_map]
pub(crate) static RD_ROUTES: Array<RouteEntry, 1> = Array::new();

/// See [`redirector_common::names::SLOTS`].
#[btf_map]
pub(crate) static RD_SLOTS: Array<Slot, 1> = Array::new();

/// See [`redirector_common::names::HEALTH`].
#[btf_map]
pub(crate) static RD_HEALTH: Array<Health, 1> = Array::new();

/// See [`redirector_common::names::ORIGINS`].
#[btf_map]
static RD_ORIGINS: SkStorage<Origin> = SkStorage::new();

/// See [`redirector_common::names::ROUTE_STATS`].
#[btf_map]
pub(crate) static RD_ROUTE_STATS: Array<RouteStats, 1> = Array::new();

/// See [`redirector_common::names::BACKEND_STATS`].
#[btf_map]
static RD_BKND_STATS: Array<BackendStats, 1> = Array::new();

/// See [`redirector_common::names::AGENT`]. Written by agents; pinned beside the tables that it
/// describes.
#[btf_map]
static RD_AGENT: Array<AgentState, 1> = Array::new();

/// See [`redirector_common::names::BACKENDS6`].
#[btf_map]
pub(crate) static RD_BACKENDS6: Array<Ip6Be, 1> = Array::new();

/// See [`redirector_common::names::CONTROL`].
#[btf_map]
static RD_CONTROL: Array<Control, 1> = Array::new();

/// See [`redirector_common::names::ROUTE_TIMES`].
#[btf_map]
static RD_ROUTE_TIMES: Array<RouteTimes, 1> = Array::new();

/// See [`redirector_common::names::BACKEND_TIMES`].
#[btf_map]
static RD_BKND_TIMES: Array<BackendTimes, 1> = Array::new();

/// See [`redirector_common::names::EVENTS`].
#[btf_map]
static RD_EVENTS: RingBuf<(), { RING_BYTES as usize }> = RingBuf::new();

/// See [`redirector_common::names::EVENT_STATS`].
#[btf_map]
static RD_EVENT_STATS: Array<EventStats, 1> = Array::new();

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

/// The pool; the verifier knows it as two constants.
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

/// The element of an array at `index`.
///
/// The kernel takes the key from the stack. Without CAP_PERFMON it puts a barrier behind each store
/// to the stack that may be the first to its place, and knows that one is not only where the place
/// has seen stores of half a word (6.18): the key is the upper half of one, and all lookups of a
/// program share it. The pointer goes through an instruction that the compiler can't see through,
/// or it would move the key elsewhere.
#[inline(always)]
pub(crate) fn element<T, const N: usize>(array: &Array<T, N>, index: u32) -> Option<*mut T> {
    #[repr(C, align(8))]
    struct Key {
        lower: core::mem::MaybeUninit<u32>,
        index: u32,
    }
    let mut key = Key { lower: core::mem::MaybeUninit::uninit(), index };
    let place = opaque(&raw mut key);
    // SAFETY: `place` is `key`, which outlives the call; the helper reads four bytes of it and
    // returns null or an element.
    let element = unsafe {
        bpf_map_lookup_elem(
            (&raw const *array).cast_mut().cast(),
            (&raw const (*place).index).cast(),
        )
    };
    if element.is_null() { None } else { Some(element.cast()) }
}

/// The counters at `index`.
#[inline(always)]
pub(crate) fn counters<T, const N: usize>(
    array: &Array<T, N>,
    index: u32,
) -> Option<&'static mut T> {
    // SAFETY: a map value stays mapped while a program runs; counters are only touched through
    // `add`.
    element(array, index).map(|counters| unsafe { &mut *counters })
}

/// The same pointer, but the compiler does not know it.
#[inline(always)]
fn opaque<T>(pointer: *mut T) -> *mut T {
    #[cfg(target_arch = "bpf")]
    let pointer = {
        let mut pointer = pointer;
        // SAFETY: copies a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nostack)) };
        pointer
    };
    pointer
}

/// What the agent says at this moment.
#[inline(always)]
pub(crate) fn control() -> Control {
    // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read in one
    // access.
    element(&RD_CONTROL, 0).map_or_else(Control::default, |control| unsafe { read_once(control) })
}

/// The agent's last sign of life, in nanoseconds of `CLOCK_MONOTONIC`; 0 for none.
#[inline(always)]
pub(crate) fn heartbeat_ns() -> u64 {
    // SAFETY: as above; an aligned word is read in one access.
    element(&RD_AGENT, 0)
        .map_or(0, |agent| unsafe { core::ptr::read_volatile(&raw const (*agent).heartbeat_ns) })
}

/// Reads an 8-byte element in one load. A plain copy may be split into loads of its fields, which a
/// concurrent store can come between.
///
/// # Safety
///
/// `element` points to 8 readable bytes, aligned to 8.
#[inline(always)]
pub(crate) unsafe fn read_once<T: Copy>(element: *const T) -> T {
    const { assert!(size_of::<T>() == 8) };
    // SAFETY: the caller's promise; `T` is plain data of 8 bytes.
    unsafe {
        let word = core::ptr::read_volatile(element.cast::<u64>());
        core::mem::transmute_copy(&word)
    }
}

/// Reads an address word by word.
///
/// # Safety
///
/// `address` points to 16 readable bytes, aligned to 4.
#[inline(always)]
pub(crate) unsafe fn read_address(address: *const Ip6Be) -> Ip6Be {
    let words = address.cast::<u32>();
    // SAFETY: the caller's promise.
    unsafe {
        Ip6Be([
            core::ptr::read_volatile(words),
            core::ptr::read_volatile(words.add(1)),
            core::ptr::read_volatile(words.add(2)),
            core::ptr::read_volatile(words.add(3)),
        ])
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: takes nothing, touches nothing of ours.
    unsafe { bpf_ktime_get_ns() }
}

/// The origin of a socket, if one was recorded. A context's socket that may be null has to be
/// compared with null first; one that may not (the context of `sock_release` itself) must not be:
/// "R6 pointer comparison prohibited" without CAP_PERFMON (6.18).
#[inline(always)]
pub(crate) fn origin(sk: *mut core::ffi::c_void) -> Option<&'static mut Origin> {
    // SAFETY: the helper checks the socket and returns null or the socket's own storage, which
    // lives as long as the socket.
    unsafe {
        bpf_sk_storage_get((&raw const RD_ORIGINS).cast_mut().cast(), sk, core::ptr::null_mut(), 0)
            .cast::<Origin>()
            .as_mut()
    }
}

/// The origin of a socket, recorded now if it has none: then all zero.
#[inline(always)]
pub(crate) fn origin_or_new(ctx: &SockAddrContext) -> Option<&'static mut Origin> {
    // SAFETY: the storage is the socket's own and lives as long as it; the hook runs under the
    // socket's lock.
    unsafe { RD_ORIGINS.get_or_insert_ptr_mut(ctx, None).as_mut() }
}

/// The counters of route `index`.
#[inline(always)]
pub(crate) fn route_stats(index: u32) -> Option<&'static mut RouteStats> {
    counters(&RD_ROUTE_STATS, index)
}

/// The counters of backend `id`.
#[inline(always)]
pub(crate) fn backend_stats(id: BackendId) -> Option<&'static mut BackendStats> {
    counters(&RD_BKND_STATS, id.0)
}

/// Counts an event that the ring did not take.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(stats) = counters(&RD_EVENT_STATS, 0) {
        add(&mut stats.lost, 1);
    }
}

/// The ring of events, as the helpers want it.
#[inline(always)]
pub(crate) fn ring() -> *mut core::ffi::c_void {
    (&raw const RD_EVENTS).cast_mut().cast()
}

/// How long connects of route `index` took.
#[inline(always)]
pub(crate) fn route_times(index: u32) -> Option<&'static mut RouteTimes> {
    counters(&RD_ROUTE_TIMES, index)
}

/// How long connects to backend `id` took.
#[inline(always)]
pub(crate) fn backend_times(id: BackendId) -> Option<&'static mut BackendTimes> {
    counters(&RD_BKND_TIMES, id.0)
}

/// Counts a connect that was established after `ns` nanoseconds.
#[inline(always)]
pub(crate) fn count_latency(times: &mut RouteTimes, ns: u64) {
    // The mask is for the verifier, which the compiler must not outwit.
    let bucket = unknown(latency_bucket(ns)) & 0xf;
    // SAFETY: there are fifteen buckets and one more counter behind them; the sixteenth is never
    // meant.
    let counter = unsafe { &mut *(&raw mut times.latency).cast::<u64>().add(bucket as usize) };
    add(counter, 1);
}

/// Adds to a counter, atomically. An amount that the compiler may know to be 0 goes through
/// [`unknown`].
#[inline(always)]
pub(crate) fn add(counter: &mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the counter is 8 aligned bytes of a map value; every program touches it this way
    // only. `AtomicU64::fetch_add` does not exist for this target, which has the addition but,
    // before the instruction set's third version (5.12), no compare-and-swap.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            counter, amount,
        );
    }
    // Only for the lints, which run on the host.
    #[cfg(not(target_arch = "bpf"))]
    {
        *counter = counter.wrapping_add(amount);
    }
}

/// The same number, but the compiler does not know it. It makes an atomic "or" of an addition of 0,
/// which no kernel before 5.12 has: "BPF_STX uses reserved fields" (5.10). `black_box` would go by
/// way of the stack: "attempt to corrupt spilled pointer on stack" (5.10 and 6.1).
#[inline(always)]
pub(crate) fn unknown(amount: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let amount = {
        let mut amount = amount;
        // SAFETY: copies a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) amount, options(pure, nomem, nostack)) };
        amount
    };
    amount
}

/// The same number, each time as if it were another: the compiler works out anew what is made of
/// it.
#[inline(always)]
pub(crate) fn afresh(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: copies a register to itself. Not `pure`: two of the same number would be made
        // one.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
        number
    };
    number
}
