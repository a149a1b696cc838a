//! The inputs of a draw, and its result in one word.

use crate::{
    abi::MAX_BACKENDS,
    backend::{BackendId, Caller},
};

/// Which candidate a connect gets.
///
/// | bits | content |
/// |---|---|
/// | 0–5 | offset among the candidates, below [`MAX_BACKENDS`] |
/// | 8 | another candidate is eligible, or this one has failed and there is another one |
/// | 9 | every candidate is ejected |
/// | 10 | the connect is the candidate's trial |
/// | 11 | the block was replaced while it was read; the rest is meaningless |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Draw(u32);

impl Draw {
    const OFFSET: u32 = MAX_BACKENDS as u32 - 1;
    pub(super) const ALTERNATIVE: u32 = 1 << 8;
    const ALL_EJECTED: u32 = 1 << 9;
    const TRIAL: u32 = 1 << 10;
    pub(super) const FLAGS: u32 = Self::ALTERNATIVE | Self::ALL_EJECTED | Self::TRIAL;
    /// The block was replaced while it was read.
    pub(in crate::decide) const STALE: Self = Self(1 << 11);

    /// The first candidate, with the flag for another eligible one if there is an `alternative`.
    #[inline(always)]
    pub(in crate::decide) const fn new(alternative: bool) -> Self {
        Self(if alternative { Self::ALTERNATIVE } else { 0 })
    }

    /// The same flags with the offset of another candidate, below [`MAX_BACKENDS`].
    #[inline(always)]
    pub(in crate::decide) const fn at(self, offset: u32) -> Self {
        Self(offset | self.0)
    }

    /// With the flag that every candidate is ejected.
    #[inline(always)]
    pub(in crate::decide) const fn with_all_ejected(self) -> Self {
        Self(self.0 | Self::ALL_EJECTED)
    }

    /// The same flags with the offset of another candidate.
    #[inline(always)]
    pub(in crate::decide) const fn moved_to(self, offset: u32) -> Self {
        Self(self.0 & !Self::OFFSET | offset & Self::OFFSET)
    }

    /// The same candidate, with the flag for another one if there is an `alternative`.
    #[inline(always)]
    pub(in crate::decide) const fn with_alternative(self, alternative: bool) -> Self {
        if alternative { Self(self.0 | Self::ALTERNATIVE) } else { self }
    }

    /// With the flag for a trial.
    #[inline(always)]
    pub(in crate::decide) const fn with_trial(self) -> Self {
        Self(self.0 | Self::TRIAL)
    }

    /// The word.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The candidate's offset.
    pub(in crate::decide) const fn offset(self) -> u32 {
        self.0 & Self::OFFSET
    }

    pub(super) const fn flags(self) -> u32 {
        self.0 & Self::FLAGS
    }

    /// See [`Backend::has_alternative`](crate::decide::Backend::has_alternative).
    pub(in crate::decide) const fn has_alternative(self) -> bool {
        self.0 & Self::ALTERNATIVE != 0
    }

    /// See [`Backend::all_ejected`](crate::decide::Backend::all_ejected).
    pub(in crate::decide) const fn all_ejected(self) -> bool {
        self.0 & Self::ALL_EJECTED != 0
    }

    /// See [`Backend::is_trial`](crate::decide::Backend::is_trial).
    pub(in crate::decide) const fn is_trial(self) -> bool {
        self.0 & Self::TRIAL != 0
    }

    pub(in crate::decide) const fn is_stale(self) -> bool {
        self.0 & Self::STALE.0 != 0
    }
}

/// The backends of one family in a block.
///
/// Besides `first`, a global function takes them as one word:
///
/// | bits | content |
/// |---|---|
/// | 0–7 | count |
/// | 8–15 | generation |
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// Index of the first one's slot.
    pub first: u32,
    /// Their number; only the first [`MAX_BACKENDS`] are considered.
    pub count: u32,
    /// The block's generation.
    pub generation: u8,
}

impl Candidates {
    /// Count and generation in one word.
    #[inline(always)]
    pub fn shape(self) -> u32 {
        self.count | u32::from(self.generation) << 8
    }

    /// From the first slot and [`Candidates::shape`].
    #[inline(always)]
    pub const fn from_shape(first: u32, shape: u32) -> Self {
        Self { first, count: shape & 0xff, generation: (shape >> 8) as u8 }
    }
}

/// The input of the second draw.
#[derive(Clone, Copy, Debug)]
pub struct DrawInput {
    /// Offset of the first draw's candidate.
    pub offset: u32,
    /// The last backend of this socket.
    pub last: BackendId,
    /// Who connects, and to which port.
    pub caller: Caller,
}

impl DrawInput {
    /// The offset, masked to be below [`MAX_BACKENDS`].
    #[inline(always)]
    pub(in crate::decide) const fn offset(self) -> u32 {
        self.offset & Draw::OFFSET
    }
}
