//! Loops without a loop.
//!
//! Without CAP_PERFMON a verifier before 6.17 follows both ways of every branch, also where it
//! knows the way, as the processor might by speculation; beyond the last round of a loop it then
//! finds one more, without end: "The sequence of 8193 jumps is too complex" (5.10 to 6.12).

use crate::{
    abi::{MAX_BACKENDS, MAX_PORTS},
    dns::SLOTS,
};

/// `for $offset in 0..4`, `0..16`, `0..32` or `0..64`, each round written out. `break` leaves it;
/// `continue` is not to be used.
macro_rules! unrolled {
    ($offset:ident in 0..4 $body:block) => {
        #[allow(clippy::never_loop, reason = "one round: `break` leaves it from any place")]
        loop {
            $crate::decide::unroll::unrolled!(@each $offset $body 0, 1, 2, 3);
            break;
        }
    };
    ($offset:ident in 0..16 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 0);
            break;
        }
    };
    ($offset:ident in 0..32 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 0);
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 16);
            break;
        }
    };
    ($offset:ident in 0..64 $body:block) => {
        #[allow(clippy::never_loop, reason = "as above")]
        loop {
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 0);
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 16);
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 32);
            $crate::decide::unroll::unrolled!(@sixteen $offset $body 48);
            break;
        }
    };
    (@sixteen $offset:ident $body:block $from:literal) => {
        $crate::decide::unroll::unrolled!(@each $offset $body $from + 0, $from + 1, $from + 2, $from + 3);
        $crate::decide::unroll::unrolled!(@each $offset $body $from + 4, $from + 5, $from + 6, $from + 7);
        $crate::decide::unroll::unrolled!(@each $offset $body $from + 8, $from + 9, $from + 10, $from + 11);
        $crate::decide::unroll::unrolled!(@each $offset $body $from + 12, $from + 13, $from + 14, $from + 15);
    };
    (@each $offset:ident $body:block $($value:expr),+) => {
        $({
            let $offset: u32 = $value;
            $body
        })+
    };
}
pub(super) use unrolled;

// The rounds that are written out are the limits.
const _: () = assert!(MAX_PORTS == 16 && SLOTS == 32 && MAX_BACKENDS == 64);
