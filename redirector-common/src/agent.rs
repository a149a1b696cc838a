//! What the agent tells everybody who can read the pins.

use crate::{
    addr::{Ip4Be, Ip6Be},
    table_type::table_type,
};

/// The one element of the agent's table: whose tables these are, and the agent's sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentState {
    /// `CLOCK_MONOTONIC` in nanoseconds at the agent's last sign of life; 0 before the first.
    pub heartbeat_ns: u64,
    /// [`crate::abi::ABI`] of the binary that made the tables.
    pub abi: u32,
    /// Process id of the agent, in its own pid namespace.
    pub pid: u32,
    /// First address of the IPv4 pool.
    pub pool_base: Ip4Be,
    /// Length of the IPv4 pool's prefix.
    pub pool_prefix: u32,
    /// First address of the IPv6 pool, which has as many; `::` for none.
    pub pool6_base: Ip6Be,
}
table_type!(AgentState, 40);

/// The one element of the table with what the agent may change while the programs run. 8 bytes: it
/// changes in one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// The time-out of the first SYN where another backend is eligible, in jiffies; 0 leaves it to
    /// the kernel.
    pub syn_timeout: u16,
    /// Retransmissions of such a SYN.
    pub syn_retries: u8,
    /// 0: nobody reads events. Else they are told, and of successes one in 2^(n-1): what is told of
    /// a connect is drawn when it begins, so that nobody is told half of a story. Failures are
    /// always told.
    pub events: u8,
    /// Zero.
    pub padding: u32,
}
table_type!(Control, 8);

impl Control {
    /// The longest time-out of a first SYN, in milliseconds: within it, and the timer's inaccuracy,
    /// a dark backend is set aside.
    const LONGEST_FIRST_MS: u32 = 500;

    /// Makes a connect that is not answered end within `connect_timeout_ms`, on a kernel with `hz`
    /// jiffies in a second.
    ///
    /// With `n` retransmissions and a first time-out of `t` the kernel gives up after
    /// `(2ⁿ⁺¹ - 1) t`, linear time-outs (6.5 and later) or not. Its timers are late by up to an
    /// eighth (kernel/time/timer.c), so we aim at seven eighths.
    pub const fn with_connect_timeout(self, connect_timeout_ms: u32, hz: u32) -> Self {
        let aim = connect_timeout_ms as u64 * 7 / 8;
        let mut retries = 1;
        while retries < 16 && aim / ((2 << retries) - 1) > Self::LONGEST_FIRST_MS as u64 {
            retries += 1;
        }
        let jiffies = aim * hz as u64 / 1000 / ((2 << retries) - 1);
        let syn_timeout = if jiffies > u16::MAX as u64 { u16::MAX } else { jiffies as u16 };
        Self {
            syn_timeout: if syn_timeout == 0 { 1 } else { syn_timeout },
            syn_retries: retries as u8,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_connect_ends_within_the_time_out_and_is_suspected_within_half_a_second() {
        for hz in [100, 250, 300, 1000] {
            for connect_timeout in [100, 500, 1000, 3000, 5000, 10_000, 60_000] {
                let control = Control::default().with_connect_timeout(connect_timeout, hz);
                let first_ms = u32::from(control.syn_timeout) * 1000 / hz;
                let whole_ms =
                    u32::from(control.syn_timeout) * ((2 << control.syn_retries) - 1) * 1000 / hz;
                assert!(first_ms <= 500, "{hz} {connect_timeout}: {control:?}");
                assert!(
                    whole_ms * 9 / 8 <= connect_timeout && whole_ms * 2 >= connect_timeout,
                    "{hz} {connect_timeout}: {control:?}"
                );
            }
        }
        assert_eq!(
            Control::default().with_connect_timeout(3000, 250),
            Control { syn_timeout: 93, syn_retries: 2, events: 0, padding: 0 }
        );
    }
}
