//! The properties of a client in one word.

use crate::{
    addr::PortBe,
    backend::{BackendId, Caller, Witness},
    bits::zero_bit,
    route::RouteEntry,
};

/// Which address families a connect can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The client asked for an IPv6 address (not an IPv4-mapped one), so IPv6 backends come first.
    pub prefer_v6: bool,
    /// The socket can use both families: a route without backends of the preferred family serves
    /// it with the other. False for an `AF_INET` socket and for one bound to an address.
    pub dual_stack: bool,
}

impl Families {
    /// An `AF_INET` socket.
    pub const V4_ONLY: Self = Self { prefer_v6: false, dual_stack: false };
}

/// The port and the families of a client, who it is, and the last backend of its socket.
///
/// | bits | content |
/// |---|---|
/// | 0–15 | the client's port in network order; once resolved, the destination's |
/// | 16 | prefers IPv6; once resolved, the backend is an IPv6 one |
/// | 17 | dual stack; once resolved, 0 |
/// | 18–31 | [`Witness`] |
/// | 32–63 | [`BackendId`] of the last backend of this socket |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ClientKey(u64);

impl ClientKey {
    const V6_SHIFT: u32 = 16;
    const DUAL_STACK_SHIFT: u32 = 17;
    const WITNESS_SHIFT: u32 = 18;
    const LAST_SHIFT: u32 = 32;
    /// The last backend and the witness.
    const KEPT_MASK: u64 = 0xffff_ffff_fffc_0000;

    /// Packs a client's port, its families, who it is, and the last backend of its socket.
    #[inline(always)]
    pub fn new(port: PortBe, families: Families, witness: Witness, last: BackendId) -> Self {
        let Families { prefer_v6, dual_stack } = families;
        Self(
            u64::from(port.0)
                | u64::from(prefer_v6) << Self::V6_SHIFT
                | u64::from(dual_stack) << Self::DUAL_STACK_SHIFT
                | u64::from(witness.bits()) << Self::WITNESS_SHIFT
                | u64::from(last.0) << Self::LAST_SHIFT,
        )
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word as two arguments of a global function, the lower half first.
    #[inline(always)]
    pub const fn halves(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }

    /// The inverse of [`ClientKey::halves`].
    #[inline(always)]
    pub const fn from_halves(lower: u32, upper: u32) -> Self {
        Self(lower as u64 | (upper as u64) << 32)
    }

    /// The client's port; once resolved, the destination's.
    #[inline(always)]
    pub const fn port(self) -> PortBe {
        PortBe(self.0 as u16)
    }

    /// The connect, for judging its backend. Valid once resolved.
    #[inline(always)]
    pub(in crate::decide) const fn caller(self) -> Caller {
        Caller::new(self.port(), Witness::from_bits((self.0 >> Self::WITNESS_SHIFT) as u32))
    }

    /// The last backend of this socket; [`BackendId::NONE`] if it had none.
    #[inline(always)]
    pub(in crate::decide) const fn last(self) -> BackendId {
        BackendId((self.0 >> Self::LAST_SHIFT) as u32)
    }

    /// With the destination's port, and the family that the backend will have (1: IPv6).
    #[inline(always)]
    pub(in crate::decide) const fn resolved(self, port: PortBe, v6: u32) -> Self {
        Self(self.0 & Self::KEPT_MASK | (v6 as u64) << Self::V6_SHIFT | port.0 as u64)
    }

    /// 1 when the backend is an IPv6 one, else 0. Valid once resolved.
    #[inline(always)]
    pub(in crate::decide) const fn v6_bit(self) -> u32 {
        (self.0 >> Self::V6_SHIFT) as u32 & 1
    }

    /// The family to resolve to in the block of `entry`, 1 for IPv6:
    /// `if prefer_v6 { !(dual_stack && no_v6) } else { dual_stack && no_v4 }`, in arithmetic.
    #[inline(always)]
    pub(in crate::decide) const fn choose_v6(self, entry: RouteEntry) -> u32 {
        let (prefer_v6, dual_stack) =
            ((self.0 >> Self::V6_SHIFT) as u32, (self.0 >> Self::DUAL_STACK_SHIFT) as u32);
        let (no_v4, no_v6) =
            (zero_bit(entry.backends4 as u32) as u32, zero_bit(entry.backends6() as u32) as u32);
        (prefer_v6 & !(dual_stack & no_v6) | !prefer_v6 & dual_stack & no_v4) & 1
    }
}
