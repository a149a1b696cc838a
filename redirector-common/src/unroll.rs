//! Unrolled loops.
//!
//! Without CAP_PERFMON a verifier before 6.17 follows both sides of every branch, even of one with
//! a known result, as a speculating processor might. Beyond the last round of a loop it therefore
//! finds another one, without end: "The sequence of 8193 jumps is too complex" (5.10 to 6.12).

use crate::{
    abi::{MAX_BACKENDS, MAX_PORTS},
    dns::SLOTS,
};

/// `for $offset in 0..4`, `0..8`, `0..16`, `0..32` or `0..64`, unrolled. The body may `break`, but
/// must not `continue`.
macro_rules! unroll {
    ($offset:ident in 0..4 $body:block) => {
        #[allow(clippy::never_loop, reason = "one round, so that `break` can leave it")]
        loop {
            $crate::unroll::unroll!(@each $offset $body 0, 1, 2, 3);
            break;
        }
    };
    ($offset:ident in 0..8 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::unroll::unroll!(@each $offset $body 0, 1, 2, 3, 4, 5, 6, 7);
            break;
        }
    };
    ($offset:ident in 0..16 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::unroll::unroll!(@sixteen $offset $body 0);
            break;
        }
    };
    ($offset:ident in 0..32 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::unroll::unroll!(@sixteen $offset $body 0);
            $crate::unroll::unroll!(@sixteen $offset $body 16);
            break;
        }
    };
    ($offset:ident in 0..64 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::unroll::unroll!(@sixteen $offset $body 0);
            $crate::unroll::unroll!(@sixteen $offset $body 16);
            $crate::unroll::unroll!(@sixteen $offset $body 32);
            $crate::unroll::unroll!(@sixteen $offset $body 48);
            break;
        }
    };
    (@sixteen $offset:ident $body:block $from:literal) => {
        $crate::unroll::unroll!(
            @each $offset $body $from + 0, $from + 1, $from + 2, $from + 3,
            $from + 4, $from + 5, $from + 6, $from + 7, $from + 8, $from + 9, $from + 10,
            $from + 11, $from + 12, $from + 13, $from + 14, $from + 15
        );
    };
    (@each $offset:ident $body:block $($value:expr),+) => {
        $({
            let $offset: u32 = $value;
            $body
        })+
    };
}
pub(crate) use unroll;

// These are the loops that the limits need.
const _: () = assert!(MAX_PORTS == 16 && SLOTS == 8 && MAX_BACKENDS == 64);
