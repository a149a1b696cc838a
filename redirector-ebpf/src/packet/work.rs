//! The memory that the functions of one TCP segment share: what they read of the frame, the keys
//! of its flow, and what they decided.
//!
//! It is an element of a map, not the stack: the functions are global ones, which take integers
//! only, and 5.10 rejects stores of less than a word to stack that was spilled to.

use redirector_common::{
    addr::{Ip4Be, Ip6Be, MAPPED_WORD, PortBe},
    backend::{BackendId, Caller, Witness},
    packet::flow::{BriefFlow, Flow, FlowKey},
};

/// A TCP segment and its flow.
#[repr(C)]
pub(crate) struct Work {
    /// The key of the packet's direction.
    pub(crate) key: FlowKey,
    /// The key of the other direction; a key that an entry is looked for or written under.
    pub(crate) other: FlowKey,
    /// An entry that is written.
    pub(crate) entry: BriefFlow,
    /// What the packet's addresses and ports are replaced by.
    pub(crate) target: Target,
    pub(crate) segment: Segment,
    pub(crate) choice: Choice,
    pub(crate) report: Report,
    /// A header that is written.
    pub(crate) header: [u64; 8],
}

/// The other side's new address, and both new ports.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Target {
    pub(crate) peer: Ip6Be,
    pub(crate) peer_port: PortBe,
    pub(crate) guest_port: PortBe,
}

/// What is read of a segment.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Segment {
    /// The two ports as they are in the frame.
    pub(crate) ports: u32,
    /// In host order.
    pub(crate) sequence: u32,
    /// In host order.
    pub(crate) acknowledgment: u32,
    /// The offset of the TCP header in the frame.
    pub(crate) at: u32,
    /// The flags; see [`redirector_common::decide::tcp`].
    pub(crate) flags: u32,
    /// Octets of the TCP header.
    pub(crate) header_length: u32,
    /// Octets of data.
    pub(crate) payload: u32,
    /// The window as it is in the frame.
    pub(crate) window: u32,
    /// 1: IPv6.
    pub(crate) v6: u32,
    /// The checksum of an IPv4 header, as it is in the frame.
    pub(crate) check: u32,
    /// The VIP's index in the pool, of a guest's segment.
    pub(crate) index: u32,
}

/// The backend that was chosen.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Choice {
    pub(crate) address: Ip6Be,
    pub(crate) port: PortBe,
    pub(crate) is_trial: u8,
    pub(crate) all_ejected: u8,
    pub(crate) id: BackendId,
}

/// What an event says besides its flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Report {
    pub(crate) elapsed_ns: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
}

/// Reads a field of a map's element: `get!(work.key)`. No reference to it exists, since the global
/// functions that are called in between change it, too.
macro_rules! get {
    ($element:ident.$($field:tt)+) => {
        // SAFETY: an element stays mapped while a program runs; the verifier checks its bounds.
        unsafe { (*$element).$($field)+ }
    };
}
/// Writes an integer field of a map's element: `set!(work.key.direction = 1)`. Stores of zero next
/// to each other would be merged into a call of `memset`, whose loop verifiers refuse.
macro_rules! set {
    ($element:ident.$field:ident $(.$more:tt)* = $value:expr) => {{
        let value = $value;
        // SAFETY: as for reading.
        unsafe { core::ptr::write_volatile(&raw mut (*$element).$field$(.$more)*, value) }
    }};
}
/// Copies an address between fields of elements: `copy_address!(work.target.peer = flow.peer)`.
macro_rules! copy_address {
    ($to:ident.$($to_field:ident).+ = $from:ident.$($from_field:ident).+) => {
        // SAFETY: both are 16 octets, aligned to 8, of elements.
        unsafe {
            crate::packet::work::copy2(
                (&raw const (*$from).$($from_field).+).cast(),
                (&raw mut (*$to).$($to_field).+).cast(),
            )
        }
    };
}
/// An address in a field of an element, as two words: `address!(work.key.guest)`.
macro_rules! address {
    ($element:ident.$($field:ident).+) => {
        // SAFETY: 16 octets, aligned to 8, of an element.
        unsafe { crate::packet::work::read2((&raw const (*$element).$($field).+).cast()) }
    };
}
/// Writes an address of two words to a field of an element.
macro_rules! set_address {
    ($element:ident.$($field:ident).+ = $value:expr) => {{
        let words: [u64; 2] = $value;
        // SAFETY: 16 octets, aligned to 8, of an element.
        unsafe {
            let to = (&raw mut (*$element).$($field).+).cast::<u64>();
            core::ptr::write_volatile(to, words[0]);
            core::ptr::write_volatile(to.add(1), words[1]);
        }
    }};
}
pub(crate) use {address, copy_address, get, set, set_address};

/// The mapped form of an IPv4 address as two words.
#[inline(always)]
pub(crate) fn mapped(address: Ip4Be) -> [u64; 2] {
    [0, u64::from(MAPPED_WORD) | u64::from(address.0) << 32]
}

/// Copies two words. To copy a whole field the compiler would call `memmove`: "R4 pointer -=
/// pointer prohibited" (6.18).
///
/// # Safety
///
/// Both point to 16 octets, aligned to 8; `from` is readable, `to` writable.
#[inline(always)]
pub(crate) unsafe fn copy2(from: *const u64, to: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = read2(from);
        core::ptr::write_volatile(to, words[0]);
        core::ptr::write_volatile(to.add(1), words[1]);
    }
}

/// Two words.
///
/// # Safety
///
/// 16 octets are readable, aligned to 8.
#[inline(always)]
pub(crate) unsafe fn read2(from: *const u64) -> [u64; 2] {
    // SAFETY: the caller's promise.
    unsafe { [core::ptr::read_volatile(from), core::ptr::read_volatile(from.add(1))] }
}

/// Copies a key.
#[inline(always)]
pub(crate) fn copy_key(from: *const FlowKey, to: *mut FlowKey) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    // SAFETY: callers pass keys in elements, which have six words.
    unsafe {
        copy2(from, to);
        copy2(from.add(2), to.add(2));
        copy2(from.add(4), to.add(4));
    }
}

/// Copies an entry to where one is written.
#[inline(always)]
pub(crate) fn copy_flow(from: *const Flow, work: *mut Work) {
    let from = from.cast::<u64>();
    // SAFETY: callers pass an element, which has eight words.
    unsafe {
        let to = (&raw mut (*work).entry.flow).cast::<u64>();
        copy2(from, to);
        copy2(from.add(2), to.add(2));
        copy2(from.add(4), to.add(4));
        copy2(from.add(6), to.add(6));
    }
}

/// The guest at `work.key`, which connects to a backend's `port`.
#[inline(always)]
pub(crate) fn caller(work: *mut Work, port: PortBe) -> Caller {
    Caller::new(port, Witness::interface(get!(work.key.interface)))
}

/// Writes the reverse key of the flow at `work.key` to `work.other`.
#[inline(always)]
pub(crate) fn reverse_key(work: *mut Work, flow: *const Flow) {
    copy_address!(work.other.guest = work.key.guest);
    copy_address!(work.other.remote = flow.peer);
    set!(work.other.guest_port = get!(flow.guest_port));
    set!(work.other.remote_port = get!(flow.peer_port));
    set!(work.other.interface = get!(work.key.interface));
    set!(work.other.vlan = get!(work.key.vlan));
    set!(work.other.direction = FlowKey::REVERSE);
}
