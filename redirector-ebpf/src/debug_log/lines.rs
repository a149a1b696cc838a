//! The debug build's log lines, written through aya-log. Each is written by a global function,
//! which the verifier checks once; it takes integers only, so it gets addresses and labels in
//! words.

use aya_log_ebpf::info;
use redirector_common::{
    addr::{Ip6Be, PortBe},
    origin::Origin,
};

use super::label::Label;
use crate::pools;

#[inline(always)]
pub(super) fn connect(origin: &Origin, label: Label) {
    let ports = u32::from(origin.vip_port.0) << 16 | u32::from(origin.backend_port.0);
    let ([upper, lower], [a, b]) = (halves(origin.backend), label.to_words());
    rd_log_connect(u64::from(origin.route) << 32 | u64::from(ports), upper, lower, a, b);
}

#[inline(always)]
pub(super) fn denied((route, port): (u32, PortBe), verdict: Label, reason: Label) {
    let ([verdict, _], [a, b]) = (verdict.to_words(), reason.to_words());
    rd_log_denied(u64::from(route) << 16 | u64::from(port.0), verdict, a, b);
}

#[inline(always)]
pub(super) fn query(resolver: Ip6Be, slot: u32, label: Label) {
    let ([upper, lower], [a, b]) = (halves(resolver), label.to_words());
    rd_log_query(upper, lower, slot, a, b);
}

/// `destination` is the route, the VIP's port and, in the low 16 bits, the backend's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_log_connect(destination: u64, upper: u64, lower: u64, a: u64, b: u64) -> u32 {
    let route = (destination >> 32) as u32;
    let vip_port = PortBe((destination >> 16) as u16).get();
    let port = PortBe(destination as u16).get();
    let (backend, label) = (address(upper, lower), text([a, b]));
    info!(
        (),
        "route={} vip={:i}:{} backend=[{:i}]:{} verdict={}",
        route,
        vip(route),
        vip_port,
        backend,
        port,
        as_str(&label)
    );
    0
}

/// `destination` is the route and, in the low 16 bits, the VIP's port.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_log_denied(destination: u64, verdict: u64, a: u64, b: u64) -> u32 {
    let route = (destination >> 16) as u32;
    let port = PortBe(destination as u16).get();
    // Both verdicts have six letters.
    let ([verdict @ .., _, _], reason) = (verdict.to_ne_bytes(), text([a, b]));
    info!(
        (),
        "route={} vip={:i}:{} backend=none verdict={} reason={}",
        route,
        vip(route),
        port,
        as_str(&verdict),
        as_str(&reason)
    );
    0
}

/// The slot is [`redirector_common::dns::SLOTS`] for a query that is left alone.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rd_log_query(upper: u64, lower: u64, slot: u32, a: u64, b: u64) -> u32 {
    let (resolver, label) = (address(upper, lower), text([a, b]));
    info!((), "resolver=[{:i}] slot={} verdict={}", resolver, slot, as_str(&label));
    0
}

/// The IPv4 VIP of a route, as a number in host order.
#[inline(always)]
fn vip(route: u32) -> u32 {
    pools::pool4().base.to_bits().wrapping_add(route)
}

/// An address in two words, in memory order.
#[inline(always)]
fn halves(address: Ip6Be) -> [u64; 2] {
    let [a, b, c, d] = address.0.map(u64::from);
    [a | b << 32, c | d << 32]
}

#[inline(always)]
fn address(upper: u64, lower: u64) -> [u8; 16] {
    text([upper, lower])
}

#[inline(always)]
fn text(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both types have 16 bytes, and any bytes are a value of either.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
fn as_str(bytes: &[u8]) -> &str {
    // SAFETY: the bytes are those of a `Label`, which are a string.
    unsafe { core::str::from_utf8_unchecked(bytes) }
}
