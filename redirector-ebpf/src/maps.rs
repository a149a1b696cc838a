//! The tables, with functions to find and read elements and to add to counters.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    btf_maps::{Array, RingBuf, SkStorage},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_ringbuf_query, bpf_sk_storage_get,
    },
    macros::btf_map,
    programs::SockAddrContext,
};
use redirector_common::{
    addr::Ip6Be,
    agent::{AgentState, Control},
    backend::{BackendId, Health},
    event::{EventStats, RING_BYTES},
    event_budget::{self, EventBudget},
    origin::Origin,
    route::{RouteEntry, Slot},
    sampling::Sampling,
    stats::{BackendStats, BackendTimes, RouteStats, RouteTimes, latency_bucket},
};

use crate::opaque;

// The sizes here are placeholders: the loader computes them from the pool.

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

/// See [`redirector_common::names::EVENT_BUDGETS`].
#[btf_map]
static RD_EVENT_ROOM: Array<EventBudget, { event_budget::ELEMENTS as usize }> = Array::new();

/// The element of an array at `index`.
///
/// The kernel reads the key from the stack. Without CAP_PERFMON it puts a speculation barrier
/// behind each store that may be the first to its stack slot; it knows that a store is not the
/// first only where the slot has seen stores of half a word (6.18). So the key is the upper half of
/// a slot that all lookups of a program share. The pointer is opaque, or the compiler would move
/// the key elsewhere.
#[inline(always)]
pub(crate) fn element<T, const N: usize>(array: &Array<T, N>, index: u32) -> Option<*mut T> {
    #[repr(C, align(8))]
    struct Key {
        lower: core::mem::MaybeUninit<u32>,
        index: u32,
    }
    let mut key = Key { lower: core::mem::MaybeUninit::uninit(), index };
    let place = opaque::pointer(&raw mut key);
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
    // SAFETY: a map value stays mapped while a program runs; counters are changed through `add`
    // only.
    element(array, index).map(|counters| unsafe { &mut *counters })
}

/// The settings that the agent may change at any time.
#[inline(always)]
pub(crate) fn control() -> Control {
    // SAFETY: a map value stays mapped while a program runs; 8 aligned bytes are read in one
    // access.
    element(&RD_CONTROL, 0).map_or_else(Control::default, |control| unsafe { read_once(control) })
}

/// The agent's last heartbeat in nanoseconds of `CLOCK_MONOTONIC`; 0: none.
#[inline(always)]
pub(crate) fn heartbeat_ns() -> u64 {
    // SAFETY: as above; an aligned word is read in one access.
    element(&RD_AGENT, 0)
        .map_or(0, |agent| unsafe { core::ptr::read_volatile(&raw const (*agent).heartbeat_ns) })
}

/// Reads an 8-byte element in one load. The compiler may split a plain copy into loads of its
/// fields, with a concurrent store in between.
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
    // SAFETY: takes nothing and changes nothing of ours.
    unsafe { bpf_ktime_get_ns() }
}

/// The origin of a socket, if one was recorded. A context's socket that may be null must be
/// compared with null before; one that can't be null (the context of `sock_release` itself) must
/// not be: "R6 pointer comparison prohibited" without CAP_PERFMON (6.18).
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

/// The origin of a socket; a new one, all zero, if none was recorded.
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

/// Counts an event that is lost since the ring is full.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(stats) = counters(&RD_EVENT_STATS, 0) {
        add(&mut stats.lost, 1);
    }
}

/// How a failure of `client` is reported; [`Sampling::OFF`]: not at all, and it is counted.
#[inline(always)]
pub(crate) fn admit_failure(client: u64, now_ns: u64) -> Sampling {
    let Some(budget) = element(&RD_EVENT_ROOM, event_budget::element_of(client)) else {
        return Sampling::ALL;
    };
    // SAFETY: a map value stays mapped while a program runs; an aligned word is read and written in
    // one access.
    let state = unsafe {
        let state = core::ptr::read_volatile(&raw const (*budget).state);
        let state = event_budget::add_failure(state, now_ns);
        core::ptr::write_volatile(&raw mut (*budget).state, state);
        state
    };
    let sampling = event_budget::report(state);
    if sampling.is_off() {
        // SAFETY: as above; the counter is changed through `add` only.
        add(unsafe { &mut (*budget).suppressed }, 1);
    }
    sampling
}

/// Whether the ring has room for a success; one that is left out is counted as lost.
#[inline(always)]
pub(crate) fn admit_success() -> bool {
    // SAFETY: the ring is one.
    let used = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA)) };
    let has_room = used < u64::from(RING_BYTES) - event_budget::FAILURES_BYTES;
    if !has_room {
        count_lost();
    }
    has_room
}

/// The ring of events, as an argument of the helpers.
#[inline(always)]
pub(crate) fn ring() -> *mut core::ffi::c_void {
    (&raw const RD_EVENTS).cast_mut().cast()
}

/// The latencies of route `index`.
#[inline(always)]
pub(crate) fn route_times(index: u32) -> Option<&'static mut RouteTimes> {
    counters(&RD_ROUTE_TIMES, index)
}

/// The latencies of backend `id`.
#[inline(always)]
pub(crate) fn backend_times(id: BackendId) -> Option<&'static mut BackendTimes> {
    counters(&RD_BKND_TIMES, id.0)
}

/// Counts a connect that was established after `ns` nanoseconds.
#[inline(always)]
pub(crate) fn count_latency(times: &mut RouteTimes, ns: u64) {
    // The mask is for the verifier; the compiler must not remove it.
    let bucket = opaque::number(latency_bucket(ns)) & 0xf;
    // SAFETY: there are fifteen buckets with one more counter behind them, which no bucket number
    // refers to.
    let counter = unsafe { &mut *(&raw mut times.latency).cast::<u64>().add(bucket as usize) };
    add(counter, 1);
}

/// Adds to a counter, atomically. An amount that the compiler may know to be 0 must be
/// passed through [`opaque::number`].
#[inline(always)]
pub(crate) fn add(counter: &mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the counter is 8 aligned bytes of a map value, which every program changes only in
    // this way. `AtomicU64::fetch_add` does not exist for this target, which has the addition but,
    // before the third version of the instruction set (5.12), no compare-and-swap.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            counter, amount,
        );
    }
    // For the lints only: they run on the host's target.
    #[cfg(not(target_arch = "bpf"))]
    {
        *counter = counter.wrapping_add(amount);
    }
}
