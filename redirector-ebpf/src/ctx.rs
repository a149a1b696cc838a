//! Reads and writes the contexts of hooks.
//!
//! The verifier (5.10 to 6.18) requires each access to be one load or store at a constant offset of
//! the context pointer. To copy an array the compiler would compute addresses: "dereference of
//! modified ctx ptr". So every word has its own volatile access.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use redirector_common::addr::{Ip4Be, Ip6Be, PortBe};

macro_rules! read {
    ($field:expr) => {
        // SAFETY: the kernel passes every program a valid context; the verifier checks the offset.
        unsafe { core::ptr::read_volatile(&raw const $field) }
    };
}
macro_rules! write {
    ($field:expr, $value:expr) => {
        // SAFETY: as for reading; the verifier checks that the field is writable in this hook.
        unsafe { core::ptr::write_volatile(&raw mut $field, $value) }
    };
}
pub(crate) use read;

/// The type of TCP sockets, and of MPTCP ones, whose first subflow makes the connect.
const SOCK_STREAM: u32 = 1;
pub(crate) const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
const IPPROTO_UDP: u32 = 17;

// TCP states.
pub(crate) const TCP_ESTABLISHED: u32 = 1;
pub(crate) const TCP_SYN_SENT: u32 = 2;
pub(crate) const TCP_CLOSE: u32 = 7;

/// A `connect`, `sendmsg`, `recvmsg` or `getpeername` hook's context.
pub(crate) struct SockAddr(*mut bpf_sock_addr);

impl SockAddr {
    #[inline(always)]
    pub(crate) fn new(ctx: &SockAddrContext) -> Self {
        Self(ctx.sock_addr)
    }

    /// The address in an IPv4 hook.
    #[inline(always)]
    pub(crate) fn ip4(&self) -> Ip4Be {
        Ip4Be(read!((*self.0).user_ip4))
    }

    #[inline(always)]
    pub(crate) fn set_ip4(&self, ip: Ip4Be) {
        write!((*self.0).user_ip4, ip.0)
    }

    /// The address in an IPv6 hook.
    #[inline(always)]
    pub(crate) fn ip6(&self) -> Ip6Be {
        Ip6Be([
            read!((*self.0).user_ip6[0]),
            read!((*self.0).user_ip6[1]),
            read!((*self.0).user_ip6[2]),
            read!((*self.0).user_ip6[3]),
        ])
    }

    #[inline(always)]
    pub(crate) fn set_ip6(&self, ip: Ip6Be) {
        let [a, b, c, d] = ip.0;
        write!((*self.0).user_ip6[0], a);
        write!((*self.0).user_ip6[1], b);
        write!((*self.0).user_ip6[2], c);
        write!((*self.0).user_ip6[3], d);
    }

    /// Whether the application has bound an IPv4 socket to an address or a port.
    #[inline(always)]
    pub(crate) fn is_bound4(&self) -> bool {
        let sk = read!((*self.0).__bindgen_anon_1.sk);
        read!((*sk).src_ip4) | read!((*sk).src_port) != 0
    }

    /// The destination that an earlier connect has left in a socket.
    #[inline(always)]
    pub(crate) fn last_destination4(&self) -> Ip4Be {
        let sk = read!((*self.0).__bindgen_anon_1.sk);
        Ip4Be(read!((*sk).dst_ip4))
    }

    /// Whether an IPv4 socket is bound to an address, but not to a port.
    #[inline(always)]
    pub(crate) fn has_only_address4(&self) -> bool {
        let sk = read!((*self.0).__bindgen_anon_1.sk);
        read!((*sk).src_ip4) != 0 && read!((*sk).src_port) == 0
    }

    /// Whether the application has bound an IPv6 socket to an address, and whether to a port.
    #[inline(always)]
    pub(crate) fn is_bound6(&self) -> (bool, bool) {
        let sk = read!((*self.0).__bindgen_anon_1.sk);
        let ip = [
            read!((*sk).src_ip6[0]),
            read!((*sk).src_ip6[1]),
            read!((*sk).src_ip6[2]),
            read!((*sk).src_ip6[3]),
        ];
        (ip[0] | ip[1] | ip[2] | ip[3] != 0, read!((*sk).src_port) != 0)
    }

    /// The port, in either hook.
    #[inline(always)]
    pub(crate) fn port(&self) -> PortBe {
        PortBe(read!((*self.0).user_port) as u16)
    }

    /// Writes four bytes, since the verifier rejects a 2-byte write.
    #[inline(always)]
    pub(crate) fn set_port(&self, port: PortBe) {
        write!((*self.0).user_port, u32::from(port.0))
    }

    /// Whether this is TCP; UDP probes of a VIP are left alone.
    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        let protocol = read!((*self.0).protocol);
        read!((*self.0).type_) == SOCK_STREAM
            && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
    }

    /// Whether this is TCP or UDP; the hooks run for a ping socket too.
    #[inline(always)]
    pub(crate) fn has_ports(&self) -> bool {
        let protocol = read!((*self.0).protocol);
        protocol == IPPROTO_UDP || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP
    }

    /// The socket's mark (SO_MARK).
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        let sk = read!((*self.0).__bindgen_anon_1.sk);
        read!((*sk).mark)
    }

    /// The socket.
    #[inline(always)]
    pub(crate) fn sk(&self) -> *mut core::ffi::c_void {
        read!((*self.0).__bindgen_anon_1.sk).cast()
    }
}
